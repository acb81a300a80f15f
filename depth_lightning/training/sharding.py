"""A network whose weights, gradients and optimizer state are sharded over all processes: PyTorch's FSDP2.

(Zhao et al., 2023, arXiv:2304.11277, as implemented by `torch.distributed.fsdp.fully_shard`.) Each encoder block and
the head are gathered when they compute and resharded afterwards.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, OptimStateKeyType, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from depth_lightning.models import DepthAnythingV2
from depth_lightning.models.torch_files import read_torch
from depth_lightning.settings import boolean


class FullySharded(ModelParallelStrategy):
    """Lightning's model-parallel strategy, with the network sharded over all processes of all nodes.

    Args:
        in_parts: write last.ckpt as a folder to which every process writes its shard, so that no process holds the full
            state. By default the first process writes a single file, which resumes under any other strategy.
    """

    def __init__(self, in_parts: bool = False) -> None:
        super().__init__(save_distributed_checkpoint=boolean("in_parts", in_parts))
        self.in_parts = in_parts
        """Whether checkpoints are folders."""

    @contextmanager
    def in_one_file(self) -> Iterator[None]:
        """Inside the context, checkpoints are single files.

        Lightning 2.6 only lets the constructor choose, and reads the choice from a private attribute.
        """
        self._save_distributed_checkpoint = False
        try:
            yield
        finally:
            self._save_distributed_checkpoint = self.in_parts

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load every process's shard from the file.

        Lightning broadcasts the file's tensors from the first process in their memory layout, which scrambles a
        channels-last head.
        """
        path = Path(checkpoint_path)
        if path.is_dir():
            return super().load_checkpoint(path, weights_only)
        checkpoint: dict[str, Any] = read_torch(path)
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, _contiguous(checkpoint.pop("state_dict")), options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = FullyShardedDataParallel.rekey_optim_state_dict(
                _contiguous(state), OptimStateKeyType.PARAM_NAME, self.model
            )
            set_optimizer_state_dict(self.model, optimizer, named, options=options)
        return checkpoint


def _contiguous(state: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], apply_to_collection(state, Tensor, Tensor.contiguous))


def shard(network: DepthAnythingV2, mesh: DeviceMesh) -> None:
    """Shard the weights over the processes of `mesh`, in place; all processes must start with equal weights."""
    # FSDP requires contiguous weights; the head's feature maps stay channels-last.
    network.to(memory_format=torch.contiguous_format)
    for part in (*network.encoder.blocks, network.head):
        fully_shard(part, mesh=mesh)
    fully_shard(network, mesh=mesh)


def is_sharded(network: nn.Module) -> bool:
    """Whether the weights are sharded."""
    return isinstance(network, FSDPModule)


def unshard(network: nn.Module) -> None:
    """Gather all weights in every process until `reshard`, so that processes may run different numbers of passes."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def reshard(network: nn.Module) -> None:
    """Undo `unshard`."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(module is not network, recurse=False)
            module.reshard()


def shard_like(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A run's state dict, with every tensor sharded that is sharded in `network`, and in the same way."""
    parts = dict(state)
    for name, parameter in network.named_parameters(prefix="network"):
        if isinstance(parameter, DTensor):
            parts[name] = distribute_tensor(state[name], parameter.device_mesh, parameter.placements)
    return parts


def full_tensor(tensor: Any) -> Tensor:
    """The full tensor, gathered if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

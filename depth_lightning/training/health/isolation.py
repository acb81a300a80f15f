"""Running a network beside the training of a run without affecting the run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

_MIXED = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@contextmanager
def isolated(network: nn.Module) -> Iterator[None]:
    """Enable gradients and disable compilation inside; restore random generators, buffers and training modes after.

    Parameters and their `.grad` are left to the caller: compute gradients with `torch.autograd.grad`, which neither
    accumulates into `.grad` nor starts DDP's all-reduce.
    """
    modes = {module: module.training for module in network.modules()}
    buffers = {buffer: buffer.clone() for buffer in network.buffers()}
    try:
        # A compiled network would be recompiled for batches of another size, and skips the hooks of its modules.
        with torch.inference_mode(False), torch.enable_grad(), isolate_rng(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers.items():
                buffer.copy_(before)


def mixed_precision(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The autocast of a trainer's precision, such as "16-mixed"; a null context for a precision without autocast."""
    if precision not in _MIXED:
        return nullcontext()
    return torch.autocast(device.type, _MIXED[precision], cache_enabled=False)

"""Gradual unfreezing (Howard and Ruder, 2018, arXiv:1801.06146): the head first, then the encoder from the top on.

All parameters are in the optimizer from the start, with their rates and the schedule, and a frozen one is passed over
since it has no gradient. Lightning's BaseFinetuning adds groups to the optimizer instead, which a schedule by
functions does not know.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from depth_lightning.settings import SettingError, one_of, optional, whole_number
from depth_lightning.training.module import DepthModule

log = logging.getLogger(__name__)
Unit = Literal["epochs", "steps"]


class Unfreeze(Callback):
    """Lets the head learn alone at first, then with more and more of the encoder's layers.

    What learns follows from the epoch or step alone, so that a resumed run continues as one that was not interrupted.

    Args:
        head_alone: how long the head learns alone.
        every: then one more layer each time this has passed; 0: all at once.
        unit: in which both are counted: "epochs", or optimizer "steps".
        layers: how many layers learn in the end, the blocks from the top on and last what makes the tokens; None: all.

    Raises:
        SettingError: an argument is out of range.
    """

    def __init__(self, head_alone: int = 1, every: int = 1, unit: Unit = "epochs", layers: int | None = None) -> None:
        from_0 = partial(whole_number, least=0)
        self.head_alone, self.every = from_0("head_alone", head_alone), from_0("every", every)
        self.unit: Unit = one_of("unit", unit, get_args(Unit))
        self.layers: int | None = optional("layers", layers, whole_number)
        self._from_the_top: Sequence[Sequence[nn.Parameter]] = ()
        self._learning: int | None = None
        """Number of layers; None before the first decision."""

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Find the layers that the run is to unfreeze.

        Raises:
            SettingError: there is no encoder to unfreeze, or it has fewer layers.
            ValueError: the network will be sharded.
        """
        if stage != "fit":
            return
        assert isinstance(pl_module, DepthModule)
        network = pl_module.network
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise ValueError("callbacks=unfreeze is not for trainer=fsdp, which shards the network. Use trainer=ddp.")
        self._from_the_top = network.encoder.layers()[::-1]
        if network.adapter is not None or "encoder" not in network.parameter_groups():
            frozen = "model.freeze_encoder=true" if network.adapter is None else "adapter=lora"
            raise SettingError(
                "callbacks.unfreeze", f"unfreezes the encoder, which {frozen} keeps frozen. Leave out one of the two."
            )
        most = len(self._from_the_top)
        optional("callbacks.unfreeze.layers", self.layers, partial(whole_number, most=most))

    def learning_layers(self, epoch: int, step: int) -> int:
        """How many layers of the encoder, from the top on, learn at this moment of the run."""
        passed = (epoch if self.unit == "epochs" else step) - self.head_alone
        most = self.layers or len(self._from_the_top)
        if passed < 0:
            return 0
        return min(most, 1 + passed // self.every) if self.every else most

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Freeze the encoder after it has entered the optimizer."""
        end = trainer.max_epochs if self.unit == "epochs" else trainer.estimated_stepping_batches
        if end is not None and 0 < end <= self.head_alone:
            rank_zero_only(log.warning)(
                f"The encoder never learns: callbacks.unfreeze.head_alone={self.head_alone}, and the run ends after "
                f"{end:g} {self.unit}."
            )
        self._let_learn(trainer, self.learning_layers(trainer.current_epoch, trainer.global_step))

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, index: int) -> None:
        """Unfreeze what is due."""
        self._let_learn(trainer, self.learning_layers(trainer.current_epoch, trainer.global_step))

    def _let_learn(self, trainer: lightning.Trainer, count: int) -> None:
        if count == self._learning:
            return
        self._learning = count
        for number, layer in enumerate(self._from_the_top):
            for parameter in layer:
                parameter.requires_grad_(number < count)
                parameter.grad = None
        _wrap_again(trainer.strategy)
        rank_zero_only(log.info)(
            f"From step {trainer.global_step} on, the head and {count} of {len(self._from_the_top)} layers learn."
        )


def _wrap_again(strategy: Strategy) -> None:
    """Have DDP average the gradients of what learns now: it looks when it wraps the network, and never again."""
    wrapped = strategy.model
    if isinstance(strategy, DDPStrategy) and isinstance(wrapped, DistributedDataParallel):
        wrapped._remove_autograd_hooks()  # type: ignore[no-untyped-call]
        strategy.model = wrapped.module
        strategy.configure_ddp()

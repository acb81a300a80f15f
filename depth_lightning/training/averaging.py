"""An exponential moving average of the weights, kept beside the weights being trained."""

from functools import partial
from typing import Any

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.settings import number, optional, whole_number


class AveragedWeights(EMAWeightAveraging):
    """Lightning's exponential moving average, for runs that may stop anywhere and resume.

    Every checkpoint holds the average as its network, and beside it the weights being trained, from which the run
    resumes. Lightning's own callback overwrites the latter before the end of the run is saved, swaps the two in a
    checkpoint saved during a validation, and replaces the network validated after the run with the last average.

    Args:
        decay: of the average at each update, in [0, 1).
        update_every_n_steps: optimizer steps between two updates.
        update_starting_at_step: optimizer steps before the average begins.
        update_starting_at_epoch: epochs before the average begins.

    Raises:
        SettingError: an argument is out of range.
    """

    _swapped = False
    """Whether the module currently holds the average, during a validation."""

    def __init__(
        self,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
    ) -> None:
        from_0 = partial(whole_number, least=0)
        super().__init__(
            decay=number("decay", decay, least=0, below=1),
            update_every_n_steps=whole_number("update_every_n_steps", update_every_n_steps),
            update_starting_at_step=optional("update_starting_at_step", update_starting_at_step, from_0),
            update_starting_at_epoch=optional("update_starting_at_epoch", update_starting_at_epoch, from_0),
        )

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Create the average on the training device, to which Lightning has not moved the network yet.

        Raises:
            ValueError: the network will be sharded, so that no process could hold the complete average.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise ValueError(
                "callbacks=ema averages complete networks, but trainer=fsdp shards them. Use trainer=ddp instead."
            )
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """During training, validate the average."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Switch back to the weights being trained."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)
            self._swapped = False

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Save the average as the network, and the weights being trained beside it."""
        super().on_save_checkpoint(trainer, module, checkpoint)
        if self._swapped:
            network, beside = "state_dict", "current_model_state"
            checkpoint[network], checkpoint[beside] = checkpoint[beside], checkpoint[network]

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Keep the trained weights until the end of the run is saved."""

    def on_fit_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Copy the average into the network."""
        super().on_train_end(trainer, module)

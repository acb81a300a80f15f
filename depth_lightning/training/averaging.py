"""An average of the weights over the steps, beside the weights that are trained."""

from functools import partial
from typing import Any

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.settings import number, optional, whole_number


class AveragedWeights(EMAWeightAveraging):
    """Lightning's exponential moving average, of a run that may stop anywhere and go on.

    Every checkpoint holds the average as its network and, for the run to go on with, the weights that are trained.
    Lightning's own overwrites the latter before the end of the run is saved, takes one for the other in what is saved
    in the middle of a validation, and puts the last average in the place of what is validated after the run.

    Args:
        decay: of the average at each update, in [0, 1).
        update_every_n_steps: optimizer steps.
        update_starting_at_step: optimizer steps before the average begins.
        update_starting_at_epoch: epochs before it begins.

    Raises:
        SettingError: an argument is out of range.
    """

    _swapped = False
    """Whether the module holds the average, for a validation to score."""

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
        """Begin the average where the network will be trained, to which Lightning has not moved it yet.

        Raises:
            ValueError: the network will be split over the processes, of which none then has all of the average.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise ValueError("callbacks=ema averages whole networks, and trainer=fsdp splits them: take trainer=ddp.")
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate the average, while it is made."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Train on with the weights that are trained."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)
            self._swapped = False

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the network, and the weights that are trained beside it."""
        super().on_save_checkpoint(trainer, module, checkpoint)
        if self._swapped:
            network, beside = "state_dict", "current_model_state"
            checkpoint[network], checkpoint[beside] = checkpoint[beside], checkpoint[network]

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Leave the network as it is until the end of the run is saved."""

    def on_fit_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Give the network the average."""
        super().on_train_end(trainer, module)

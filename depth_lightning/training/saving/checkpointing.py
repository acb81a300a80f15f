"""The callback that saves a run with all it needs to go on exactly, whenever and however it ended."""

import logging
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.reporting.loggers import MetricsFile
from depth_lightning.settings import one_of, text
from depth_lightning.training.saving.best import BestValidation
from depth_lightning.training.saving.checkpoint_files import BEST, LAST, WholeFiles
from depth_lightning.training.saving.checkpoint_folder import CheckpointFolder
from depth_lightning.training.saving.interval import SavingInterval
from depth_lightning.training.saving.position import Position, begin_data_at, count_steps, read_position, write_position
from depth_lightning.training.saving.signals import EXIT_SAVED, Stopped, StopSignals

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Saves last.ckpt after every validation, every so often, at the end, and when SIGTERM or SIGUSR1 ends the run.

    The one before stays as previous.ckpt, and the one with the best validation as best.ckpt. All are saved between two
    optimizer steps, with all that the run needs to go on as if it had never stopped, on any number of devices.

    Args:
        folder: where the three files are.
        monitor: what "best" goes by; val/affine_error where no validation image has metric truth.
        mode: whether the least or the greatest is best.
        every_n_steps: also save after every n-th optimizer step.
        every_n_minutes: also save when this long has passed since the last time.

    Raises:
        SettingError: an argument is out of range.
    """

    decisive = ("monitor", "mode")

    def __init__(
        self,
        folder: str | Path,
        monitor: str = "val/abs_rel",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        self.folder = CheckpointFolder(Path(text("folder", folder, "a path")))
        self.best = BestValidation(
            text("monitor", monitor, "the name of what is validated, such as val/abs_rel"),
            one_of("mode", mode, ("min", "max")),
        )
        self.interval = SavingInterval(every_n_steps, every_n_minutes)
        self.signals = StopSignals()
        self._new_validation = False
        self._resumed: Position | None = None
        self._hosts: torch.distributed.ProcessGroup | None = None

    @property
    def best_path(self) -> Path | None:
        """The checkpoint with the best validation, if there was one."""
        return None if self.best.step is None else self.folder.path / BEST

    def setup(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Have Lightning write whole files."""
        trainer.strategy.checkpoint_io = WholeFiles()

    def on_fit_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """See that the best checkpoint so far is in this run's folder, whichever folder the run began in.

        Raises:
            ValueError: the processes do not go on from the same checkpoint.
        """
        own = trainer.ckpt_path and str(trainer.ckpt_path)
        first = trainer.strategy.broadcast(own)
        if not trainer.strategy.reduce_boolean_decision(own == first):
            raise ValueError(
                f"The first process goes on from {first}, and this one, {trainer.global_rank}, from {own}: "
                f"{self.folder.path} must be on a disk that all nodes share."
            )
        if self.best.step is None or trainer.ckpt_path is None:
            return
        resumed = Path(trainer.ckpt_path)
        kept = trainer.is_global_zero and self.folder.adopt_best(self.best.step, resumed.with_name(BEST), resumed)
        if not trainer.strategy.broadcast(kept):
            if trainer.is_global_zero:
                log.warning(
                    f"{resumed.with_name(BEST)} is not the best checkpoint so far, that of step {self.best.step}: "
                    "the best of this run is chosen among what is still to come."
                )
            self.best.score = self.best.step = None

    def on_sanity_check_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Listen for signals, in the place of what Lightning has just set to do so."""
        self.signals.listen()

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Listen for signals; have the data of a run that goes on begin where it stood."""
        self.signals.listen()
        if trainer.world_size > 1:
            self._hosts = cast(torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo"))
        self.interval.restart()
        if trainer.strategy.restore_checkpoint_after_setup:  # what is known at the start of others
            self.on_fit_start(trainer, module)
        if self._resumed is not None:
            begin_data_at(trainer, self._resumed)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save the epoch before."""
        self._between_steps(trainer)

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, index: int) -> None:
        """Save if it is time: the step before is complete, with its validation and its line in the logs."""
        if index % trainer.accumulate_grad_batches == 0:
            count_steps(trainer)
            self._between_steps(trainer)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save the end."""
        self._between_steps(trainer, ended=True)

    def on_validation_batch_start(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Leave before a validation is over if asked to; with several processes, when it is over."""
        last = trainer.global_step == trainer.max_steps  # Lightning does not go back to the validation of this one
        if self.signals.received and trainer.world_size == 1 and _of_training(trainer) and not last:
            self._save(trainer, best=False)
            self._leave(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Remember that there are new numbers."""
        self._new_validation = _of_training(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What "best" means, and the best so far."""
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best so far, if it goes by the same number; `on_fit_start` sees to its file."""
        self.best.load_state_dict(state_dict)

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Write down where the run stands, and how long its logs are."""
        write_position(trainer, checkpoint)
        files = _metrics_files(trainer) if trainer.is_global_zero else []
        checkpoint["log_rows"] = max((file.rows for file in files), default=0)

    def on_load_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Have Lightning go on where the run stood.

        Raises:
            ValueError: the global batches are of another size, or the checkpoint is none of this callback's.
        """
        self._resumed = read_position(trainer, checkpoint)
        self.folder.saved_step = checkpoint["global_step"]
        if trainer.is_global_zero and self.folder.holds(Path(str(trainer.ckpt_path))):
            for file in _metrics_files(trainer):
                file.keep(checkpoint["log_rows"])

    def _between_steps(self, trainer: lightning.Trainer, ended: bool = False) -> None:
        stop, due = self._agreed(trainer)
        best = self._new_validation and self.best.improved(trainer)
        new_step = trainer.global_step != self.folder.saved_step
        if self._new_validation or (new_step and (due or stop or ended)):
            self._save(trainer, best)
        if stop and not ended:
            self._leave(trainer)

    def _agreed(self, trainer: lightning.Trainer) -> tuple[bool, bool]:
        """Whether to stop and whether it is time to save: any process may be asked to stop, the first has the clock."""
        stop = self.signals.received is not None
        due = trainer.is_global_zero and self.interval.is_due(trainer.global_step)
        if trainer.world_size == 1:
            return stop, due
        # Between the hosts: on the devices, every step would have to wait for the one before.
        flags = torch.tensor([stop, due]).int()
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._hosts)
        stop, due = flags.bool().tolist()
        return stop, due

    def _save(self, trainer: lightning.Trainer, best: bool) -> None:
        self.folder.save(trainer, best)
        self.interval.restart()
        self._new_validation = False

    def _leave(self, trainer: lightning.Trainer) -> None:
        asked_by = self.signals.received.name if self.signals.received else "a signal to another process"
        if trainer.is_global_zero:
            log.info(
                f"Stopped by {asked_by} after step {trainer.global_step}, and saved as {self.folder.path / LAST}. "
                "The same command with checkpoint=auto and this run's folder as hydra.run.dir goes on from there."
            )
        raise Stopped(EXIT_SAVED if trainer.is_global_zero else 0)  # Lightning takes any other status for a failure


def _of_training(trainer: lightning.Trainer) -> bool:
    """Whether this is a validation between steps of training, and not the sanity check."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _metrics_files(trainer: lightning.Trainer) -> list[MetricsFile]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]

"""The callback that saves everything a run needs to resume exactly, whenever and however it ended."""

import logging
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.atomic import explained
from depth_lightning.reporting.loggers import MetricsFile, resume_logs
from depth_lightning.settings import one_of, text
from depth_lightning.training.saving.best import BestValidation
from depth_lightning.training.saving.checkpoint_files import BEST, LAST
from depth_lightning.training.saving.checkpoint_folder import CheckpointFolder
from depth_lightning.training.saving.interval import SavingInterval
from depth_lightning.training.saving.position import Position, begin_data_at, count_steps, read_position, write_position
from depth_lightning.training.saving.signals import EXIT_SAVED, Stopped, StopSignals

log = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Saves last.ckpt after every validation, at intervals, at the end, and when SIGTERM or SIGUSR1 stops the run.

    The previous checkpoint is kept as previous.ckpt, and the one with the best validation as best.ckpt. All are saved
    between two optimizer steps, with everything needed to resume as if the run had never stopped, on any number of
    devices.

    Args:
        folder: for the three files.
        monitor: the metric that decides which is best; val/affine_error if no validation image has metric truth.
        mode: whether lower ("min") or higher ("max") is better.
        every_n_steps: also save after every n-th optimizer step.
        every_n_minutes: also save when this long has passed since the last save.

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
            text("monitor", monitor, "the name of a validation metric, such as val/abs_rel"),
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
        """Make Lightning write files atomically and aside, into a folder that exists before the first step.

        Raises:
            OSError: the folder cannot be created.
        """
        if stage == "fit" and trainer.is_global_zero:
            with explained(self.folder.path):
                self.folder.path.mkdir(parents=True, exist_ok=True)
        trainer.strategy.checkpoint_io = self.folder.files

    def on_fit_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Make sure that the best checkpoint so far is in this run's folder, wherever the run began.

        Raises:
            ValueError: the processes do not resume from the same checkpoint.
        """
        own = trainer.ckpt_path and str(trainer.ckpt_path)
        first = trainer.strategy.broadcast(own)
        if not trainer.strategy.reduce_boolean_decision(own == first):
            raise ValueError(
                f"The first process resumes from {first}, but process {trainer.global_rank} from {own}: "
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
                    "the best checkpoint is chosen from the coming validations only."
                )
            self.best.score = self.best.step = None

    def on_sanity_check_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Listen for signals, replacing the handlers that Lightning has just installed."""
        self.signals.listen()

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Listen for signals; when resuming, position the training data where the run stopped."""
        self.signals.listen()
        if trainer.world_size > 1:
            self._hosts = cast(torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo"))
        self.interval.restart()
        if trainer.strategy.restore_checkpoint_after_setup:  # other strategies have restored it before on_fit_start
            self.on_fit_start(trainer, module)
        if self._resumed is not None:
            begin_data_at(trainer, self._resumed)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save the epoch that has just ended."""
        self._between_steps(trainer)

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, index: int) -> None:
        """Save if due: the previous step is complete, with its validation and its row in the logs."""
        if index % trainer.accumulate_grad_batches == 0:
            count_steps(trainer)
            self._between_steps(trainer)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save the end."""
        self._between_steps(trainer, ended=True)
        self.folder.finish(trainer)

    def on_validation_batch_start(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """On a signal, stop in the middle of a validation; with several processes, at its end."""
        last = trainer.global_step == trainer.max_steps  # Lightning does not repeat the validation of the last step
        if self.signals.received and trainer.world_size == 1 and _of_training(trainer) and not last:
            self._save(trainer, best=False)
            self._leave(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Remember that there is a new validation."""
        self._new_validation = _of_training(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The monitor and mode, and the best score so far."""
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score so far, if it is of the same metric; `on_fit_start` takes care of its file."""
        self.best.load_state_dict(state_dict)

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Record the run's position and the length of its logs."""
        write_position(trainer, checkpoint)
        loggers = trainer.loggers if trainer.is_global_zero else []
        files = [logger for logger in loggers if isinstance(logger, MetricsFile)]
        checkpoint["log_rows"] = max((file.rows for file in files), default=0)

    def on_load_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Make Lightning resume where the run stopped.

        Raises:
            ValueError: the global batch size differs, or the checkpoint was not saved by this callback.
        """
        self._resumed = read_position(trainer, checkpoint)
        self.folder.saved_step = checkpoint["global_step"]
        if trainer.is_global_zero and (self._resumed.stopped or 0 < (trainer.max_epochs or 0) <= self._resumed.epoch):
            log.info("This run is complete: nothing is left to train.")
        if trainer.is_global_zero and self.folder.holds(Path(str(trainer.ckpt_path))):
            resume_logs(trainer.loggers, checkpoint["log_rows"], checkpoint["global_step"])

    def _between_steps(self, trainer: lightning.Trainer, ended: bool = False) -> None:
        stop, due, failed = self._agreed(trainer)
        if failed:
            self.folder.finish(trainer)
        best = self._new_validation and self.best.improved(trainer)
        new_step = trainer.global_step != self.folder.saved_step
        if self._new_validation or (new_step and (due or stop or ended)):
            self._save(trainer, best)
        if stop and not ended:
            self._leave(trainer)

    def _agreed(self, trainer: lightning.Trainer) -> tuple[bool, ...]:
        """Whether to stop, which any process may be asked to, whether a save is due, and whether the last one failed.

        The first process keeps the time, and writes.
        """
        flags = (
            self.signals.received is not None,
            trainer.is_global_zero and self.interval.is_due(trainer.global_step),
            self.folder.has_failed,
        )
        if trainer.world_size == 1:
            return flags
        # Between the hosts: on the devices, every step would have to wait for the previous one.
        agreed = torch.tensor(flags).int()
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._hosts)
        return tuple(agreed.bool().tolist())

    def _save(self, trainer: lightning.Trainer, best: bool) -> None:
        self.folder.save(trainer, best)
        self.interval.restart()
        self._new_validation = False

    def _leave(self, trainer: lightning.Trainer) -> None:
        self.folder.finish(trainer)
        asked_by = self.signals.received.name if self.signals.received else "a signal to another process"
        if trainer.is_global_zero:
            log.info(f"Stopped by {asked_by} after step {trainer.global_step}, and saved as {self.folder.path / LAST}.")
        raise Stopped(EXIT_SAVED if trainer.is_global_zero else 0)  # Lightning treats any other status as a failure


def _of_training(trainer: lightning.Trainer) -> bool:
    """Whether this is a validation during training, and not the sanity check."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

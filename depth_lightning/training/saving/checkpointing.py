"""When a run is saved, and with what, so that it goes on exactly, whenever and however it ended."""

import logging
import operator
import signal
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.data import DepthDataModule
from depth_lightning.data.sampling import TrainSampler
from depth_lightning.reporting.loggers import MetricsFile
from depth_lightning.settings import number, one_of, optional, text, whole_number
from depth_lightning.training.saving.checkpoint_files import BEST, LAST, WholeFiles
from depth_lightning.training.saving.checkpoint_folder import CheckpointFolder
from depth_lightning.training.saving.position import Position, place, position_of

log = logging.getLogger(__name__)

EXIT_SAVED = 75
"""The exit status of what a signal stopped and the same command goes on with: EX_TEMPFAIL of sysexits.h."""


class Stopped(SystemExit):
    """The run was asked to stop, and is saved."""


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

    def __init__(
        self,
        folder: str | Path,
        monitor: str = "val/abs_rel",
        mode: Literal["min", "max"] = "min",
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        self.folder = CheckpointFolder(Path(text("folder", folder, "a path")))
        self.monitor = text("monitor", monitor, "the name of what is validated, such as val/abs_rel")
        self.mode: str = one_of("mode", mode, ("min", "max"))
        never = " null: only after every validation."
        self.every_n_steps = optional("every_n_steps", every_n_steps, partial(whole_number, otherwise=never))
        self.every_n_minutes = optional("every_n_minutes", every_n_minutes, partial(number, above=0, otherwise=never))
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._saved_at = time.monotonic()
        self._new_step = self._new_validation = False
        self._resumed: Position | None = None
        self._signal: signal.Signals | None = None
        self._hosts: torch.distributed.ProcessGroup | None = None

    @property
    def best_path(self) -> Path | None:
        """The checkpoint with the best validation, if there was one."""
        return None if self.best_step is None else self.folder.path / BEST

    def setup(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Have Lightning write whole files."""
        trainer.strategy.checkpoint_io = WholeFiles()

    # When to save

    def on_sanity_check_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Listen for signals, in the place of what Lightning has just set to do so."""
        self._listen()

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Listen for signals; have the data of a run that goes on begin where it stood."""
        self._listen()
        if trainer.world_size > 1:
            self._hosts = cast(torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo"))
        self._saved_at = time.monotonic()
        if trainer.strategy.restore_checkpoint_after_setup:  # what is known at the start of others
            self.on_fit_start(trainer, module)
        if self._resumed is not None:
            self._begin_at(trainer, self._resumed)

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, index: int) -> None:
        """Save if it is time: the step before is complete, with its validation and its line in the logs."""
        if index % trainer.accumulate_grad_batches == 0:
            # Of a run that goes on, Lightning has counted the last step or not, depending on whether it validated.
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
            self._between_steps(trainer)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Remember that there is something to save."""
        self._new_step = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save the epoch before."""
        self._between_steps(trainer)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Save the end."""
        self._between_steps(trainer, ended=True)

    def on_validation_batch_start(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Leave before a validation is over if asked to; with several processes, when it is over."""
        last = trainer.global_step == trainer.max_steps  # Lightning does not go back to the validation of this one
        if self._signal is not None and trainer.world_size == 1 and _of_training(trainer) and not last:
            self._save(trainer, best=False)
            self._leave(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Remember that there are new numbers."""
        self._new_validation = _of_training(trainer)

    def _between_steps(self, trainer: lightning.Trainer, ended: bool = False) -> None:
        stop, due = self._agreed(trainer)
        best = self._new_validation and self._improved(trainer)
        if self._new_validation or (self._new_step and (due or stop or ended)):
            self._save(trainer, best)
        if stop and not ended:
            self._leave(trainer)

    def _agreed(self, trainer: lightning.Trainer) -> tuple[bool, bool]:
        """Whether to stop and whether it is time to save: any process may be told to stop, the first has the clock."""
        by_step = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        minutes = (time.monotonic() - self._saved_at) / 60
        by_clock = self.every_n_minutes is not None and minutes >= self.every_n_minutes and trainer.is_global_zero
        stop, due = self._signal is not None, by_step or by_clock
        if trainer.world_size == 1:
            return stop, due
        # Between the hosts: on the devices, every step would have to wait for the one before.
        flags = torch.tensor([stop, due]).int()
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._hosts)
        stop, due = flags.bool().tolist()
        return stop, due

    def _improved(self, trainer: lightning.Trainer) -> bool:
        found = trainer.callback_metrics
        if self.monitor not in found and "val/affine_error" in found:
            log.info(f"The best checkpoint is the one with the least val/affine_error: no truth allows {self.monitor}.")
            self.monitor, self.mode = "val/affine_error", "min"
        if self.monitor not in found:
            known = ", ".join(name for name in found if name.startswith("val/"))
            raise ValueError(f"callbacks.checkpoints.monitor={self.monitor} is none of what is validated: {known}.")
        score = float(trainer.strategy.broadcast(float(found[self.monitor])))
        if score != score:
            score = float("inf" if self.mode == "min" else "-inf")
        better = operator.lt if self.mode == "min" else operator.gt
        if self.best_score is not None and not better(score, self.best_score):
            return False
        self.best_score, self.best_step = score, trainer.global_step
        return True

    def _save(self, trainer: lightning.Trainer, best: bool) -> None:
        self.folder.save(trainer, best)
        self._saved_at = time.monotonic()
        self._new_step = self._new_validation = False

    def _leave(self, trainer: lightning.Trainer) -> None:
        name = self._signal.name if self._signal is not None else "a signal to another process"
        if trainer.is_global_zero:
            log.info(
                f"Stopped by {name} after step {trainer.global_step}, and saved as {self.folder.path / LAST}. "
                "The same command with checkpoint=auto and this run's folder as hydra.run.dir goes on from there."
            )
        raise Stopped(EXIT_SAVED if trainer.is_global_zero else 0)  # Lightning takes any other status for a failure

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self._signal = signal.Signals(number)

    # What is in it

    def state_dict(self) -> dict[str, Any]:
        """What "best" means, and the best so far."""
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            "best_score": self.best_score,
            "best_step": self.best_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best so far, if it goes by the same number; `on_fit_start` sees to its file."""
        affine = state_dict["monitor"] == "val/affine_error"  # what a run comes to whose truth allows nothing else
        if affine or (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.monitor, self.mode = state_dict["monitor"], state_dict["mode"]
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Write down where the run stands, and how long its logs are."""
        position = self._position(trainer)
        checkpoint["position"] = position._asdict()
        place(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)
        files = _metrics_files(trainer) if trainer.is_global_zero else []
        checkpoint["log_rows"] = max((file.rows for file in files), default=0)

    def on_load_checkpoint(self, trainer: lightning.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Have Lightning go on where the run stood.

        Raises:
            ValueError: the global batches are of another size, or the checkpoint is none of this callback's.
        """
        if "position" not in checkpoint:
            raise ValueError(
                f"{trainer.ckpt_path} does not say where its run stood: start one from it, model.weights=…."
            )
        position = Position(**checkpoint["position"])
        now = _data(trainer).global_batch_size
        if now != position.global_batch_size:
            raise ValueError(
                f"The run goes on with the global batches it began with: {position.global_batch_size} images, which is "
                f"devices × data.batch_size × trainer.accumulate_grad_batches; found {now} = {trainer.world_size} × "
                f"{_data(trainer).batch_size} × {trainer.accumulate_grad_batches}. "
                "To train its weights further in other batches, start a run with model.weights=<the checkpoint>."
            )
        place(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)
        # The loader does begin in the middle of an epoch, at the place that Lightning's counters say.
        warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
        self._resumed, self.folder.saved_step = position, checkpoint["global_step"]
        trainer.should_stop = position.stopped
        if trainer.is_global_zero and self.folder.holds(Path(str(trainer.ckpt_path))):
            for file in _metrics_files(trainer):
                file.keep(checkpoint["log_rows"])

    def _begin_at(self, trainer: lightning.Trainer, position: Position) -> None:
        now = self._position(trainer).steps_per_epoch
        if position.steps_per_epoch != now:
            raise ValueError(
                f"The checkpoint is of a run with {position.steps_per_epoch} steps in an epoch; found {now}. "
                "To train its weights further on other data, start a run with model.weights=<the checkpoint>."
            )
        sampler = trainer.train_dataloader.sampler  # type: ignore[union-attr]
        if isinstance(sampler, TrainSampler):
            sampler.resume(position.epoch, position.samples)
        elif position.batches:
            raise ValueError("A run with trainer.overfit_batches goes on from the end of an epoch only.")

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
        if self.best_step is None or trainer.ckpt_path is None:
            return
        resumed = Path(trainer.ckpt_path)
        found = trainer.is_global_zero and self.folder.adopt_best(self.best_step, resumed.with_name(BEST), resumed)
        if not trainer.strategy.broadcast(found):
            if trainer.is_global_zero:
                log.warning(
                    f"{resumed.with_name(BEST)} is not the best checkpoint so far, that of step {self.best_step}: "
                    "the best of this run is chosen among what is still to come."
                )
            self.best_score = self.best_step = None

    def _position(self, trainer: lightning.Trainer) -> Position:
        return position_of(trainer, _data(trainer).global_batch_size)


def _of_training(trainer: lightning.Trainer) -> bool:
    """Whether this is a validation between steps of training, and not the sanity check."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _data(trainer: lightning.Trainer) -> DepthDataModule:
    data: DepthDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def _metrics_files(trainer: lightning.Trainer) -> list[MetricsFile]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]

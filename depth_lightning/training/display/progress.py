"""Progress of a run: a bar on a terminal, log lines elsewhere."""

import logging
import math
import os
import sys
import time
from typing import Any, TextIO

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from depth_lightning.training.display.panels import validated_epoch
from depth_lightning.training.display.throughput import logs_step

log = logging.getLogger(__name__)

HEADLINE = ("abs_rel", "delta1", "affine_error", "ordinal_error")
"""The metrics shown after a validation, as far as its ground truth allows them."""
REFRESH_S = 0.1


def progress() -> Callback:
    """A bar on a terminal; log lines elsewhere, including notebooks, which pose as a terminal but keep every line."""
    in_notebook = "JPY_PARENT_PID" in os.environ  # set by a Jupyter kernel for itself and its children
    return TerminalProgress() if sys.stdout.isatty() and not in_notebook else PlainProgress()


progress.decisive = ()  # type: ignore[attr-defined]


class Pace:
    """Estimates a run's remaining time from the steps of this process, including their validations."""

    def __init__(self, trainer: lightning.Trainer) -> None:
        self.started, self.first_step = time.monotonic(), trainer.global_step

    def gone_s(self) -> float:
        """Seconds since this process began training."""
        return time.monotonic() - self.started

    def left_s(self, trainer: lightning.Trainer) -> float:
        """Estimated seconds until the end of the run; NaN before the first step."""
        done = trainer.global_step - self.first_step
        total = int(trainer.estimated_stepping_batches)
        return self.gone_s() / done * (total - trainer.global_step) if done else math.nan


def state(trainer: lightning.Trainer) -> str:
    """The last loss, the first metric of the last validation, and the speed, as far as they are known.

    Copies values from the device and waits for it, so call it rarely.
    """
    known = trainer.callback_metrics
    parts = [f"loss {known['train/loss']:.4f}"] if "train/loss" in known else []
    parts += [f"{name} {known[f'val/{name}']:.4f}" for name in HEADLINE if f"val/{name}" in known][:1]
    if "time/images_per_s" in known:
        parts.append(f"{known['time/images_per_s']:.3g} images/s")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; a dash for NaN."""
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class PlainProgress(Callback):
    """Progress for a log file: plain lines without control characters.

    Args:
        every_seconds: least time between two lines within an epoch.
    """

    decisive = ()

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._last = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the clock."""
        self._pace, self._last = Pace(trainer), time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Write a line if the last one is older than `every_seconds`."""
        if trainer.is_global_zero and time.monotonic() - self._last >= self.every_seconds:
            self._last = time.monotonic()
            log.info(
                f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}/"
                f"{int(trainer.estimated_stepping_batches)}: {state(trainer)}, "
                f"{clock(self._pace.gone_s())} elapsed, {clock(self._pace.left_s(trainer))} left"
            )

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Write the validation's metrics."""
        if validated_epoch(trainer):
            log.info(_validation(trainer))


def _validation(trainer: lightning.Trainer) -> str:
    values = {name: trainer.callback_metrics.get(f"val/{name}") for name in HEADLINE}
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value is not None)
    return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}: val {numbers}"


class TerminalProgress(ProgressBar):
    """A bar over the epoch with loss, last validation, speed and the run's remaining time; messages scroll above it.

    The numbers are updated when Lightning logs, so that the bar never waits for the device. Lightning's RichProgressBar
    waits at every step, knows the remaining time of an epoch alone, and has a thread, whose lock a forked worker may
    inherit.
    """

    decisive = ()

    def __init__(self) -> None:
        super().__init__()
        self._shown: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._status = ""
        self._refreshed = 0.0
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this on every process but the first."""
        self._enabled = False

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the clock."""
        self._pace = Pace(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the epoch's bar."""
        epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
        self._begin("train", f"epoch {trainer.current_epoch + 1}{epochs}", self.total_train_batches)

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Move on."""
        batch_index = args[2]
        if self._enabled and logs_step(trainer, batch_index):
            self._status = f"{state(trainer)}, {clock(self._pace.left_s(trainer))} left"
        self._advance("train", batch_index + 1, self._status)

    def on_validation_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start a bar below the epoch's."""
        name = self.sanity_check_description if trainer.sanity_checking else self.validation_description
        total = sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)
        self._begin("validation", name.lower(), total)

    def on_validation_batch_end(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Move on."""
        self._advance("validation", args[2] + 1)

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Remove the bar, and log the validation's metrics."""
        self._end("validation")
        if validated_epoch(trainer):
            log.info(_validation(trainer))
        if not self._tasks:
            self._stop()

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Remove all bars."""
        self._stop()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def teardown(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _begin(self, name: str, description: str, total: float) -> None:
        if not self._enabled:
            return
        if self._shown is None:
            self._start()
        assert self._shown is not None
        self._end(name)
        known = total if math.isfinite(total) else None
        status = self._status if name == "train" else ""
        self._tasks[name] = self._shown.add_task(description, total=known, status=status)
        self._shown.refresh()

    def _advance(self, name: str, completed: int, status: str = "") -> None:
        if self._shown is None or name not in self._tasks:
            return
        self._shown.update(self._tasks[name], completed=completed, status=status)
        if time.monotonic() - self._refreshed >= REFRESH_S:
            self._refreshed = time.monotonic()
            self._shown.refresh()

    def _end(self, name: str) -> None:
        if self._shown is not None and name in self._tasks:
            self._shown.remove_task(self._tasks.pop(name))

    def _start(self) -> None:
        # No refresh thread: workers might be forked while it holds the terminal's lock.
        self._shown = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True)),
            console=Console(),
            auto_refresh=False,
            expand=True,
            transient=True,
        )
        self._stdout = sys.stdout
        self._shown.start()
        _redirect(self._stdout, sys.stdout)

    def _stop(self) -> None:
        if self._shown is not None:
            for name in list(self._tasks):
                self._end(name)
            _redirect(sys.stdout, self._stdout)
            self._shown.stop()
            self._shown = None


def _redirect(stream: TextIO, to: TextIO) -> None:
    """Redirect log messages from one stream to another: above a bar, or back."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            handler.setStream(to)

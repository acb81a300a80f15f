"""The folder of a run's checkpoints, into which its processes save together."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import lightning

from depth_lightning.training.saving.checkpoint_files import (
    BEST,
    LAST,
    PREVIOUS,
    WholeFiles,
    keep_as,
    newest_whole,
    put,
    whole_step,
)
from depth_lightning.training.sharding import FullySharded


class CheckpointFolder:
    """last.ckpt, previous.ckpt and best.ckpt of a run, each of them intact at any moment.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = WholeFiles()
        self.saved_step = 0
        """Of last.ckpt, once it is written."""
        self._writing: Future[None] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether this process could not write the last checkpoint, as `finish` will tell."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def save(self, trainer: lightning.Trainer, best: bool) -> None:
        """Save as last.ckpt, and as best.ckpt as well if `best`; every process takes part.

        It is written while training goes on; of the save before, the end is awaited.

        Raises:
            OSError: a checkpoint could not be written. The existing files are intact.
        """
        split = trainer.strategy if isinstance(trainer.strategy, FullySharded) and trainer.strategy.in_parts else None
        if split and best:
            with split.in_one_file():  # for evaluation and export
                self._write(trainer, lambda new: put(new, self.path / BEST))

        def keep(new: Path) -> None:
            if best and not split:
                keep_as(new, self.path / BEST)
            if (self.path / LAST).exists():
                keep_as(self.path / LAST, self.path / PREVIOUS)
            put(new, self.path / LAST)

        self._write(trainer, keep)
        self.saved_step = trainer.global_step

    def finish(self, trainer: lightning.Trainer) -> None:
        """Wait until everything is written; every process takes part.

        Raises:
            OSError: a checkpoint could not be written. The existing files are intact.
        """
        failure = None
        try:
            if self._writing is not None:
                self._writing.result()
        except OSError as error:
            failure = error
        self._writing = None
        self._raise_together(trainer, failure)

    def _write(self, trainer: lightning.Trainer, keep: Callable[[Path], None]) -> None:
        self.finish(trainer)
        new, failure = self.path / "new.ckpt", None
        try:
            if trainer.is_global_zero and new.is_dir():  # left by a run that was killed while saving
                shutil.rmtree(new)
            trainer.save_checkpoint(new)
        except OSError as error:  # of parts, for which training waits
            failure = error
            trainer.strategy.barrier()  # where the other processes wait
        self._raise_together(trainer, failure)
        if trainer.is_global_zero:
            self._writing = self.files.then(lambda: keep(new))

    def _raise_together(self, trainer: lightning.Trainer, failure: OSError | None) -> None:
        if not trainer.strategy.reduce_boolean_decision(failure is not None, all=False):
            return
        if failure is None:  # the process that failed reports it
            raise SystemExit(0)
        there = newest_whole(self.path).path
        intact = f"{there}, of step {whole_step(there)}, is intact." if there else "There is no earlier checkpoint."
        raise OSError(
            failure.errno,
            f"{failure.strerror or failure} {intact} Once there is space on the disk, checkpoint=auto resumes the run.",
        ) from failure

    def holds(self, checkpoint: Path) -> bool:
        """Whether the checkpoint lies in this folder."""
        return checkpoint.resolve().parent == self.path.resolve()

    def adopt_best(self, step: int, *candidates: Path) -> bool:
        """Make sure that best.ckpt is the checkpoint of `step`, taken from the candidates if necessary.

        Returns:
            False if neither best.ckpt nor any candidate is of that step.
        """
        for path in (self.path / BEST, *candidates):
            try:
                if whole_step(path) != step:
                    continue
            except (ValueError, FileNotFoundError):
                continue
            if path != self.path / BEST:
                keep_as(path, self.path / BEST)
            return True
        return False

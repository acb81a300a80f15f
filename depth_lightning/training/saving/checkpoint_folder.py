"""The folder of a run's checkpoints, into which its processes save together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lightning

from depth_lightning.training.saving.checkpoint_files import BEST, LAST, PREVIOUS, keep_as, put, whole_step
from depth_lightning.training.sharding import FullySharded


class CheckpointFolder:
    """last.ckpt, previous.ckpt and best.ckpt of a run, each of them intact at any moment.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved_step = 0
        """Of last.ckpt."""

    def save(self, trainer: lightning.Trainer, best: bool) -> None:
        """Write last.ckpt, and best.ckpt as well if `best`; every process takes part.

        Raises:
            OSError: the checkpoint could not be written. The existing files are intact.
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

    def _write(self, trainer: lightning.Trainer, keep: Callable[[Path], None]) -> None:
        new, written, failure = self.path / "new.ckpt", False, None
        try:
            if trainer.is_global_zero and new.is_dir():  # left by a run that was killed while saving
                shutil.rmtree(new)
            trainer.save_checkpoint(new)
            written = True
            if trainer.is_global_zero:
                keep(new)
        except OSError as error:
            failure = error
            if not written:  # the other processes wait at the end of writing
                trainer.strategy.barrier()
        if trainer.strategy.reduce_boolean_decision(failure is not None, all=False):
            raise self._not_saved(failure)

    def _not_saved(self, failure: OSError | None) -> BaseException:
        if failure is None:  # the process that failed reports it
            return SystemExit(0)
        there = self.path / LAST
        intact = (
            f"{there}, of step {self.saved_step}, is intact." if there.exists() else "There is no earlier checkpoint."
        )
        return OSError(
            failure.errno,
            f"{failure.strerror or failure} {intact} Once there is space on the disk, checkpoint=auto resumes the run.",
        )

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

"""The folder of a run's checkpoints, into which its processes save together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lightning

from depth_lightning.training.saving.checkpoint_files import BEST, LAST, PREVIOUS, keep_as, put, whole_step
from depth_lightning.training.sharding import FullySharded


class CheckpointFolder:
    """last.ckpt, previous.ckpt and best.ckpt of a run, each of them whole at any moment.

    Args:
        path: where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved_step = 0
        """Of last.ckpt."""

    def save(self, trainer: lightning.Trainer, best: bool) -> None:
        """Write last.ckpt, and best.ckpt if it is that; every process takes part.

        Raises:
            OSError: it could not be written. The files there are whole.
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
            if trainer.is_global_zero and new.is_dir():  # of a run that was killed while it saved
                shutil.rmtree(new)
            trainer.save_checkpoint(new)
            written = True
            if trainer.is_global_zero:
                keep(new)
        except OSError as error:
            failure = error
            if not written:  # the other processes wait where writing ends
                trainer.strategy.barrier()
        if trainer.strategy.reduce_boolean_decision(failure is not None, all=False):
            raise self._not_saved(failure)

    def _not_saved(self, failure: OSError | None) -> BaseException:
        if failure is None:  # the first process says it
            return SystemExit(0)
        there = self.path / LAST
        whole = f"{there}, of step {self.saved_step}, is whole." if there.exists() else "There is none from before."
        return OSError(
            failure.errno, f"{failure.strerror or failure} {whole} Once there is room, checkpoint=auto goes on from it."
        )

    def holds(self, checkpoint: Path) -> bool:
        """Whether the checkpoint is one of this folder."""
        return checkpoint.resolve().parent == self.path.resolve()

    def adopt_best(self, step: int, *candidates: Path) -> bool:
        """See that best.ckpt is that of `step`: the one there, or the first of the candidates that is; else False."""
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

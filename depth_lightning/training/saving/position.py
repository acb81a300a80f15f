"""Where a run stands between two optimizer steps, and Lightning's counters set to go on from there.

Lightning saves its counters as they stand at the moment of saving, half a step in, and infers on resume what was done.
Here the position is written down in the run's own terms, and the counters are derived from it: the same on any number
of devices, which differ in batches per step.
"""

from typing import Any, NamedTuple

import lightning


class Position(NamedTuple):
    """A place between two optimizer steps of a run."""

    epoch: int
    """Epochs that are complete, with their validation."""
    batches: int
    """Batches of the epoch under way that every process has trained on."""
    total_batches: int
    """The same, of all epochs."""
    validated: bool
    """Whether a validation that is due at this place is done."""
    stopped: bool
    """Whether something, such as EarlyStopping, has ended the run."""
    accumulated: int
    """Batches of a process in a step."""
    global_batch_size: int
    steps_per_epoch: int

    @property
    def samples(self) -> int:
        """Samples of the epoch under way that have been trained on, by all processes."""
        return self.batches // self.accumulated * self.global_batch_size


def position_of(trainer: lightning.Trainer, global_batch_size: int) -> Position:
    """Where a run stands, asked between two optimizer steps."""
    epochs = trainer.fit_loop.epoch_progress.state_dict()["current"]
    done = trainer.fit_loop.epoch_loop.batch_progress.state_dict()
    epoch, batches, whole = epochs["processed"], done["current"]["processed"], int(trainer.num_training_batches)
    if epochs["started"] == epochs["processed"]:  # the counter of batches still stands where the epoch before left it
        ended_early = 0 < batches < whole
        epoch, batches = (epoch - 1, batches) if ended_early else (epoch, 0)
    return Position(
        epoch=epoch,
        batches=batches,
        total_batches=done["total"]["processed"],
        validated=not trainer.validating and batches < whole,
        stopped=trainer.should_stop,
        accumulated=trainer.accumulate_grad_batches,
        global_batch_size=global_batch_size,
        steps_per_epoch=-(-whole // trainer.accumulate_grad_batches),
    )


def set_loop_counters(loops: dict[str, Any], position: Position, accumulated: int) -> None:
    """Set the counters of a checkpoint's `loops`, in place, so that Lightning goes on from `position`.

    Args:
        loops: of the fit loop.
        position: where to go on.
        accumulated: batches of a process in a step, now.
    """

    def rescaled(batches: int) -> int:
        return -(-batches * accumulated // position.accumulated)

    epoch, batches, total = position.epoch, rescaled(position.batches), rescaled(position.total_batches)
    steps_of_epoch = -(-position.batches // position.accumulated)
    under_way = epoch + (batches > 0)
    _set(loops["epoch_progress"], "total", ready=under_way, started=under_way, processed=epoch, completed=epoch)
    _set(loops["epoch_progress"], "current", ready=under_way, started=under_way, processed=epoch, completed=epoch)
    _set(loops["epoch_loop.batch_progress"], "total", total, total, total, total)
    _set(loops["epoch_loop.batch_progress"], "current", batches, batches, batches, batches)
    # A validation that was started and not processed is what Lightning goes back to.
    due = int(not position.validated)
    _set(loops["epoch_loop.val_loop.batch_progress"], "total", ready=due, started=due)
    _set(loops["epoch_loop.val_loop.batch_progress"], "current", ready=due, started=due)
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for progress in (optimizer["step"], optimizer["zero_grad"], loops["epoch_loop.scheduler_progress"]):
        progress["current"] = dict.fromkeys(progress["current"], steps_of_epoch)
    # One less than the steps made: Lightning comes by where it counts the last of them.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = optimizer["step"]["total"]["completed"] - 1


def _set(progress: dict[str, Any], part: str, ready: int, started: int, processed: int = 0, completed: int = 0) -> None:
    progress[part] = {"ready": ready, "completed": completed, "started": started, "processed": processed}
    if "is_last_batch" in progress:
        progress["is_last_batch"] = False

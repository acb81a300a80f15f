"""A run's position between two optimizer steps, and Lightning's counters set to resume from there.

Lightning saves its counters with the values at the moment of saving, half a step in, and infers on resume what was
done. Here the position is recorded in the run's own terms, and the counters are derived from it, so that they are right
for any number of devices and batches per step.
"""

import warnings
from typing import Any, NamedTuple

import lightning

from depth_lightning.data import DepthDataModule
from depth_lightning.data.sampling import TrainSampler


class Position(NamedTuple):
    """A place between two optimizer steps of a run."""

    epoch: int
    """Completed epochs, including their validation."""
    batches: int
    """Batches of the current epoch that every process has trained on."""
    total_batches: int
    """The same, over all epochs."""
    validated: bool
    """Whether the validation due at this position, if any, is done."""
    stopped: bool
    """Whether a callback such as EarlyStopping has ended the run."""
    accumulated: int
    """Batches per process in a step."""
    global_batch_size: int
    steps_per_epoch: int

    @property
    def samples(self) -> int:
        """Samples of the current epoch that all processes together have trained on."""
        return self.batches // self.accumulated * self.global_batch_size


def position_of(trainer: lightning.Trainer) -> Position:
    """The run's position; to be called between two optimizer steps."""
    epochs = trainer.fit_loop.epoch_progress.state_dict()["current"]
    done = trainer.fit_loop.epoch_loop.batch_progress.state_dict()
    epoch, batches, full = epochs["processed"], done["current"]["processed"], int(trainer.num_training_batches)
    if epochs["started"] == epochs["processed"]:  # the batch counter still has its value from the previous epoch
        ended_early = 0 < batches < full
        epoch, batches = (epoch - 1, batches) if ended_early else (epoch, 0)
    return Position(
        epoch=epoch,
        batches=batches,
        total_batches=done["total"]["processed"],
        validated=not trainer.validating and batches < full,
        stopped=trainer.should_stop,
        accumulated=trainer.accumulate_grad_batches,
        global_batch_size=trainer.datamodule.global_batch_size,  # type: ignore[attr-defined]
        steps_per_epoch=-(-full // trainer.accumulate_grad_batches),
    )


def write_position(trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> None:
    """Store the run's position in the checkpoint, and set Lightning's counters there to match."""
    position = position_of(trainer)
    checkpoint["position"] = position._asdict()
    set_loop_counters(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)


def read_position(trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> Position:
    """The position stored in a checkpoint, from which Lightning is set to resume.

    Raises:
        ValueError: the global batch size differs, or the checkpoint has no position.
    """
    if "position" not in checkpoint:
        raise ValueError(
            f"{trainer.ckpt_path} does not record its run's position and cannot be resumed. To start a new run from "
            "its weights, use model.weights=<the checkpoint>."
        )
    position = Position(**checkpoint["position"])
    data: DepthDataModule = trainer.datamodule  # type: ignore[attr-defined]
    if data.global_batch_size != position.global_batch_size:
        raise ValueError(
            f"A run resumes with the global batch size it began with: {position.global_batch_size} images = "
            f"devices × data.batch_size × trainer.accumulate_grad_batches; found {data.global_batch_size} = "
            f"{trainer.world_size} × {data.batch_size} × {trainer.accumulate_grad_batches}. "
            "To train its weights further with another batch size, start a run with model.weights=<the checkpoint>."
        )
    set_loop_counters(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)
    # The loader does start in the middle of an epoch, where Lightning's counters say.
    warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
    trainer.should_stop = position.stopped
    return position


def begin_data_at(trainer: lightning.Trainer, position: Position) -> None:
    """Position the training data where the run stopped.

    Raises:
        ValueError: the length of an epoch differs, or the data cannot start in the middle of one.
    """
    now = position_of(trainer).steps_per_epoch
    if position.steps_per_epoch != now:
        raise ValueError(
            f"The checkpoint is from a run with {position.steps_per_epoch} steps in an epoch; found {now}. "
            "To train its weights further on other data, start a run with model.weights=<the checkpoint>."
        )
    sampler = trainer.train_dataloader.sampler  # type: ignore[union-attr]
    if isinstance(sampler, TrainSampler):
        sampler.resume(position.epoch, position.samples)
    elif position.batches:
        raise ValueError("A run with trainer.overfit_batches can only resume from the end of an epoch.")


def count_steps(trainer: lightning.Trainer) -> None:
    """Make Lightning number the rows of the logs by completed steps.

    After resuming, its counter includes the last step or not, depending on whether it was validated. The counter is
    private, and the only one that Lightning 2.6 passes to loggers.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def set_loop_counters(loops: dict[str, Any], position: Position, accumulated: int) -> None:
    """Set the counters of a checkpoint's `loops`, in place, so that Lightning resumes from `position`.

    Args:
        loops: the state of the fit loop.
        position: where to resume.
        accumulated: the current number of batches per process in a step.
    """

    def rescaled(batches: int) -> int:
        return -(-batches * accumulated // position.accumulated)

    epoch, batches = position.epoch, rescaled(position.batches)
    for part, trained in (("total", rescaled(position.total_batches)), ("current", batches)):
        _set(loops["epoch_progress"], part, begun=epoch + (batches > 0), done=epoch)
        _set(loops["epoch_loop.batch_progress"], part, begun=trained, done=trained)
        # Lightning repeats a validation that was begun but not completed.
        _set(loops["epoch_loop.val_loop.batch_progress"], part, begun=int(not position.validated), done=0)
    steps_of_epoch = -(-position.batches // position.accumulated)
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for progress in (optimizer["step"], optimizer["zero_grad"], loops["epoch_loop.scheduler_progress"]):
        progress["current"] = dict.fromkeys(progress["current"], steps_of_epoch)
    # One less than the completed steps: on resume, Lightning counts the last of them again.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = optimizer["step"]["total"]["completed"] - 1


def _set(progress: dict[str, Any], part: str, begun: int, done: int) -> None:
    progress[part] = {"ready": begun, "completed": done, "started": begun, "processed": done}
    if "is_last_batch" in progress:
        progress["is_last_batch"] = False

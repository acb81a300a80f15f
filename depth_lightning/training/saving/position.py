"""Where a run stands between two optimizer steps, and Lightning's counters set to go on from there.

Lightning saves its counters as they stand at the moment of saving, half a step in, and infers on resume what was done.
Here the position is written down in the run's own terms, and the counters are derived from it: the same on any number
of devices, which differ in batches per step.
"""

import warnings
from typing import Any, NamedTuple

import lightning

from depth_lightning.data import DepthDataModule
from depth_lightning.data.sampling import TrainSampler


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


def position_of(trainer: lightning.Trainer) -> Position:
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
        global_batch_size=trainer.datamodule.global_batch_size,  # type: ignore[attr-defined]
        steps_per_epoch=-(-whole // trainer.accumulate_grad_batches),
    )


def write_position(trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> None:
    """Put into the checkpoint where the run stands, and let Lightning's counters say the same."""
    position = position_of(trainer)
    checkpoint["position"] = position._asdict()
    set_loop_counters(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)


def read_position(trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> Position:
    """Where the run of a checkpoint stood, from where Lightning then goes on.

    Raises:
        ValueError: the global batches are of another size, or the checkpoint has no position.
    """
    if "position" not in checkpoint:
        raise ValueError(f"{trainer.ckpt_path} does not say where its run stood: start one from it, model.weights=….")
    position = Position(**checkpoint["position"])
    data: DepthDataModule = trainer.datamodule  # type: ignore[attr-defined]
    if data.global_batch_size != position.global_batch_size:
        raise ValueError(
            f"The run goes on with the global batches it began with: {position.global_batch_size} images, which is "
            f"devices × data.batch_size × trainer.accumulate_grad_batches; found {data.global_batch_size} = "
            f"{trainer.world_size} × {data.batch_size} × {trainer.accumulate_grad_batches}. "
            "To train its weights further in other batches, start a run with model.weights=<the checkpoint>."
        )
    set_loop_counters(checkpoint["loops"]["fit_loop"], position, trainer.accumulate_grad_batches)
    # The loader does begin in the middle of an epoch, at the place that Lightning's counters say.
    warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before the epoch ended.*")
    trainer.should_stop = position.stopped
    return position


def begin_data_at(trainer: lightning.Trainer, position: Position) -> None:
    """Have the training data begin where the run stood.

    Raises:
        ValueError: an epoch has another length, or the data cannot begin within one.
    """
    now = position_of(trainer).steps_per_epoch
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


def count_steps(trainer: lightning.Trainer) -> None:
    """Let Lightning number the rows of the logs by the steps made.

    Of a run that goes on, it has counted the last step or not, depending on whether it validated. The counter is
    private, and the only one that Lightning 2.6's loggers go by.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def set_loop_counters(loops: dict[str, Any], position: Position, accumulated: int) -> None:
    """Set the counters of a checkpoint's `loops`, in place, so that Lightning goes on from `position`.

    Args:
        loops: of the fit loop.
        position: where to go on.
        accumulated: batches of a process in a step, now.
    """

    def rescaled(batches: int) -> int:
        return -(-batches * accumulated // position.accumulated)

    epoch, batches = position.epoch, rescaled(position.batches)
    for part, trained in (("total", rescaled(position.total_batches)), ("current", batches)):
        _set(loops["epoch_progress"], part, begun=epoch + (batches > 0), done=epoch)
        _set(loops["epoch_loop.batch_progress"], part, begun=trained, done=trained)
        # A validation that was begun and is not done is what Lightning goes back to.
        _set(loops["epoch_loop.val_loop.batch_progress"], part, begun=int(not position.validated), done=0)
    steps_of_epoch = -(-position.batches // position.accumulated)
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for progress in (optimizer["step"], optimizer["zero_grad"], loops["epoch_loop.scheduler_progress"]):
        progress["current"] = dict.fromkeys(progress["current"], steps_of_epoch)
    # One less than the steps made: Lightning comes by where it counts the last of them.
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = optimizer["step"]["total"]["completed"] - 1


def _set(progress: dict[str, Any], part: str, begun: int, done: int) -> None:
    progress[part] = {"ready": begun, "completed": done, "started": begun, "processed": done}
    if "is_last_batch" in progress:
        progress["is_last_batch"] = False

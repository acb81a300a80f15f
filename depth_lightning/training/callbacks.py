"""What a person sees of a run while it goes on: learning rates, pictures, progress."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from depth_lightning.metrics.alignment import align, fit_scale_shift
from depth_lightning.models.depth_anything import Output
from depth_lightning.reporting.loggers import log_image
from depth_lightning.reporting.panels import draw_panel, save_png, stack_panels
from depth_lightning.sample import DepthBatch, DepthDataset, DepthKind, DepthSample, collate
from depth_lightning.training.module import DepthModule

log = logging.getLogger(__name__)


class LearningRates(Callback):
    """Logs every group's learning rate under lr/<group>."""

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        """Log the rates that the coming step uses."""
        for group in trainer.optimizers[0].param_groups:
            module.log(f"lr/{group['name']}", group["lr"], batch_size=1)


class StepSeed(Callback):
    """Seeds torch before every batch by (seed, epoch, batch, process).

    So what a network or a loss draws, as dropout does, is the same in a run that was interrupted.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        """Seed the coming batch."""
        entropy = (self.seed, trainer.current_epoch, batch_index, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


class Panels(Callback):
    """Draws image | truth | prediction | error of the same few validation images after every validation.

    Pictures go to <run folder>/panels/epoch_<n>.png, n counted from 1, and to every logger that takes images. Drawn by
    the first process alone.

    Args:
        images: how many, spread evenly over the validation set.
        every_n_epochs: draw after every n-th epoch's validation.
    """

    def __init__(self, images: int = 4, every_n_epochs: int = 1) -> None:
        self.images = images
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Draw and save, except after the sanity check."""
        if not _validated_epoch(trainer) or trainer.current_epoch % self.every_n_epochs:
            return
        assert isinstance(module, DepthModule)
        picture = draw_panels(module, trainer.datamodule.val_data, self.images)  # type: ignore[attr-defined]
        save_png(Path(trainer.default_root_dir) / "panels" / f"epoch_{trainer.current_epoch + 1:03d}.png", picture)
        for logger in trainer.loggers:
            log_image(logger, "val/panels", picture, trainer.global_step)


def _validated_epoch(trainer: lightning.Trainer) -> bool:
    """Whether this is the first process, after the validation of a training epoch."""
    return trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def draw_panels(module: DepthModule, data: DepthDataset, images: int) -> np.ndarray:
    """The panels of a few of `data`'s transformed samples, spread evenly, one below the other."""
    chosen = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(int)
    return stack_panels([_panel(module, data[int(index)]) for index in chosen])


def _panel(module: DepthModule, sample: DepthSample) -> np.ndarray:
    batch = module.transfer_batch_to_device(collate([sample]), module.device, 0)
    was_training = module.training
    module.eval()
    with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
        prediction = _like_truth(module.predict_batch(batch).float(), batch, module.network.output)
    module.train(was_training)
    return draw_panel(
        (sample.image.clip(0, 1) * 255).round().astype(np.uint8),
        sample.target,
        sample.mask,
        prediction[0].cpu().numpy(),
        kind=sample.kind,
        unit="m" if sample.kind == DepthKind.METRES else "",
        title=sample.id,
    )


def _like_truth(prediction: Tensor, batch: DepthBatch, output: Output) -> Tensor:
    """The prediction in the unit of its truth; fitted to it where the two have no unit in common."""
    target, mask, kind = batch.target, batch.mask, batch.kind[0]
    if kind == DepthKind.DISPARITY:
        disparity = prediction if output == "relative" else 1 / prediction
        scale, shift, _ = fit_scale_shift(disparity, target, mask)
        return scale[:, None, None] * disparity + shift[:, None, None]
    if output == "relative":
        return align(prediction, target, mask, "scale_shift_disparity").depth
    if kind == DepthKind.UP_TO_SCALE:
        return align(prediction, target, mask, "scale_median_of_ratios").depth
    return prediction


class PlainProgress(Callback):
    """Progress for a log file: a line every so often, without control characters.

    Args:
        every_seconds: how often a line is written within an epoch.
    """

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._started = self._last = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Start the clock."""
        self._started = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *args: Any) -> None:
        """Write a line if the last one is old."""
        now = time.monotonic()
        if trainer.is_global_zero and now - self._last >= self.every_seconds:
            self._last = now
            done, total = trainer.global_step, int(trainer.estimated_stepping_batches)
            left = (now - self._started) / max(1, done - self._first_step) * (total - done)
            loss = float(trainer.callback_metrics.get("train/loss", torch.nan))
            log.info(
                f"epoch {trainer.current_epoch + 1}, step {done}/{total}, loss {loss:.4f}, "
                f"{_minutes(now - self._started)} gone, {_minutes(left)} left"
            )

    def on_validation_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Write what the validation found."""
        if _validated_epoch(trainer):
            headline = ("val/abs_rel", "val/delta1", "val/affine_error", "val/ordinal_error")
            found = {name: trainer.callback_metrics[name] for name in headline if name in trainer.callback_metrics}
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
            log.info(f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}: {numbers}")


def progress() -> Callback:
    """A bar on a terminal, lines anywhere else."""
    return RichProgressBar() if sys.stdout.isatty() else PlainProgress()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"

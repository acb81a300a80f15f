"""What a person sees of a run while it goes on: learning rates, and pictures of the same images every epoch."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.data.sampling import evenly_spread
from depth_lightning.reporting.loggers import log_image
from depth_lightning.reporting.panels import draw_panel, save_png, stack_panels
from depth_lightning.sample import DepthDataset, DepthKind, DepthSample, collate
from depth_lightning.training.module import DepthModule


class LearningRates(Callback):
    """Logs every group's learning rate under lr/<group>."""

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        """Log the rates that the coming step uses."""
        for group in trainer.optimizers[0].param_groups:
            rate = torch.tensor(group["lr"])  # a float would be copied to the device, for which the host waits
            module.log(f"lr/{group['name']}", rate, batch_size=1)


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
        without = " Without the pictures: ~callbacks.panels"
        self.images = count("callbacks.panels.images", images, otherwise=without)
        self.every_n_epochs = count("callbacks.panels.every_n_epochs", every_n_epochs, otherwise=without)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Draw and save, except after the sanity check."""
        if not validated_epoch(trainer) or trainer.current_epoch % self.every_n_epochs:
            return
        assert isinstance(module, DepthModule)
        picture = draw_panels(module, trainer.datamodule.val_data, self.images)  # type: ignore[attr-defined]
        save_png(Path(trainer.default_root_dir) / "panels" / f"epoch_{trainer.current_epoch + 1:03d}.png", picture)
        for logger in trainer.loggers:
            log_image(logger, "val/panels", picture, trainer.global_step)


def count(key: str, value: Any, least: int = 1, otherwise: str = "") -> int:
    """The value of a key that must be a whole number.

    Raises:
        ValueError: it is none, or below `least`; `otherwise` ends the message.
    """
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{key} is a whole number, {least} or above, found {value!r}.{otherwise}")
    return value


def validated_epoch(trainer: lightning.Trainer) -> bool:
    """Whether this is the first process, after the validation of a training epoch."""
    return trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def draw_panels(module: DepthModule, data: DepthDataset, images: int) -> np.ndarray:
    """The panels of a few of `data`'s transformed samples, spread evenly, one below the other."""
    return stack_panels([sample_panel(module, data[index]) for index in evenly_spread(range(len(data)), images)])


def sample_panel(module: DepthModule, sample: DepthSample) -> np.ndarray:
    """The panel of one transformed sample, (h, w, 3) uint8 RGB."""
    batch = module.transfer_batch_to_device(collate([sample]), module.device, 0)
    was_training = module.training
    module.eval()
    with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
        given = module.predict_batch(batch).float()
        prediction = module.like_truth(given, batch.target, batch.mask, sample.kind).depth
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

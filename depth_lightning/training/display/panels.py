"""Pictures of the same validation images, epoch by epoch."""

from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from depth_lightning.data.sampling import evenly_spread
from depth_lightning.reporting.loggers import log_image
from depth_lightning.reporting.panels import draw_panel, save_png, stack_panels
from depth_lightning.sample import DepthDataset, DepthKind, DepthSample, collate
from depth_lightning.settings import whole_number
from depth_lightning.training.like_truth import like_truth
from depth_lightning.training.module import DepthModule


class Panels(Callback):
    """Draws image | truth | prediction | error of the same few validation images after every validation.

    Pictures go to <run folder>/panels/epoch_<n>.png, with n counted from 1, and to every logger that supports images.
    Only the first process draws.

    Args:
        images: number of images, spread evenly over the validation set.
        every_n_epochs: draw after every n-th epoch's validation.
    """

    decisive = ()

    def __init__(self, images: int = 4, every_n_epochs: int = 1) -> None:
        without = " To turn the pictures off: ~callbacks.panels"
        self.images = whole_number("images", images, otherwise=without)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, otherwise=without)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Draw and save, except after the sanity check."""
        if not validated_epoch(trainer) or trainer.current_epoch % self.every_n_epochs:
            return
        assert isinstance(module, DepthModule)
        picture = draw_panels(module, trainer.datamodule.val_data, self.images)  # type: ignore[attr-defined]
        save_png(Path(trainer.default_root_dir) / "panels" / f"epoch_{trainer.current_epoch + 1:03d}.png", picture)
        for logger in trainer.loggers:
            log_image(logger, "val/panels", picture, trainer.global_step)


def validated_epoch(trainer: lightning.Trainer) -> bool:
    """Whether this is the first process, after the validation of a training epoch."""
    return trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def draw_panels(module: DepthModule, data: DepthDataset, images: int) -> np.ndarray:
    """Stacked panels of a few of `data`'s transformed samples, spread evenly."""
    return stack_panels([sample_panel(module, data[index]) for index in evenly_spread(range(len(data)), images)])


def sample_panel(module: DepthModule, sample: DepthSample) -> np.ndarray:
    """The panel of one transformed sample, (h, w, 3) uint8 RGB."""
    batch = module.transfer_batch_to_device(collate([sample]), module.device, 0)
    was_training = module.training
    module.eval()
    with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
        raw = module.predict_batch(batch).float()
        prediction = like_truth(module.network, raw, batch.target, batch.mask, sample.kind).depth
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

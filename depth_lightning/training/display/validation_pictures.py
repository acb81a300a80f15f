"""Pictures of a validation: a histogram of predicted against true depth, and the images with the largest errors."""

from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor

from depth_lightning.metrics import ImageTable
from depth_lightning.reporting.depth_histogram import draw_depth_histogram
from depth_lightning.reporting.loggers import log_image, log_table
from depth_lightning.reporting.panels import save_png, stack_panels
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.settings import whole_number
from depth_lightning.training.display.panels import sample_panel, validated_epoch
from depth_lightning.training.like_truth import like_truth
from depth_lightning.training.module import DepthModule
from depth_lightning.training.prediction_observer import PredictionObserver

BINS = 100
MEDIANS = 4.0
"""Ground truth without a unit is counted in multiples of its image's median, up to this limit."""


class DepthHistogram(PredictionObserver):
    """Counts the pixels of every validation by true and predicted depth, and logs the histogram as a picture.

    val/depth_histogram covers the pixels that the protocol scores in images with metric ground truth. Where the ground
    truth has no unit, val/relative_histogram counts it and the aligned prediction in multiples of the image's median
    ground truth. Both are the same on any number of processes.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Reset the counts."""
        empty = torch.zeros(BINS, BINS, dtype=torch.int64, device=module.device)
        self._counts = {name: empty.clone() for name in ("val/depth_histogram", "val/relative_histogram")}

    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Count the batch."""
        for image, kind in enumerate(batch.kind):
            single = slice(image, image + 1)
            target, mask = batch.target[single], batch.mask[single]
            fitted = like_truth(module.network, prediction[single].float(), target, mask, kind).depth
            if kind == DepthKind.METRES:
                valid = module.metrics.protocol.valid(target, mask)
                count_pixels(self._counts["val/depth_histogram"], target, fitted, valid, _limit_m(module))
            else:
                limit = MEDIANS * target.masked_fill(~mask, torch.nan).nanmedian()
                count_pixels(self._counts["val/relative_histogram"], target, fitted, mask, limit)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Sum the counts of all processes, and draw the histograms."""
        if trainer.sanity_checking:
            return
        assert isinstance(module, DepthModule)
        for name, counts in self._counts.items():
            total = trainer.strategy.reduce(counts, reduce_op="sum")
            assert isinstance(total, Tensor)
            if validated_epoch(trainer) and total.any():
                metres = name == "val/depth_histogram"
                limit, unit = (_limit_m(module), "m") if metres else (MEDIANS, "multiples of the image's median truth")
                picture = draw_depth_histogram(total.cpu().numpy(), limit, unit)
                for logger in trainer.loggers:
                    log_image(logger, name, picture, trainer.global_step)


def count_pixels(counts: Tensor, target: Tensor, prediction: Tensor, valid: Tensor, limit: Tensor | float) -> None:
    """Add pixels to counts[prediction, target], (n, n) bins from 0 to `limit`, in place.

    Targets outside [0, limit) and predictions that are not finite are left out; predictions outside are counted in the
    outermost bin.
    """
    n = len(counts)
    valid = valid & prediction.isfinite() & (target < limit) & (target >= 0)
    column = (target / limit * n).clamp(0, n - 1).nan_to_num().long()
    row = (prediction / limit * n).nan_to_num().clamp(0, n - 1).long()
    counts.view(-1).index_add_(0, (row * n + column).flatten(), valid.flatten().long())


def _limit_m(module: DepthModule) -> float:
    if module.network.output == "metric":
        return min(module.metrics.protocol.max_depth, module.network.max_depth)
    return module.metrics.protocol.max_depth


class WorstImages(PredictionObserver):
    """Draws the validation images with the largest errors after every validation.

    The pictures go to <run folder>/worst/epoch_<n>.png and to every logger that supports images; the numbers go to the
    loggers that support tables, as val/worst. Images are ranked by abs_rel, or by affine_error where no ground truth
    allows abs_rel.

    Args:
        images: number of images.
        every_n_epochs: draw after every n-th epoch's validation.
    """

    def __init__(self, images: int = 8, every_n_epochs: int = 1) -> None:
        without = " To turn the pictures off: ~callbacks.worst"
        self.images = whole_number("images", images, otherwise=without)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs, otherwise=without)
        self._ids: list[str] = []

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Forget the previous validation's images."""
        self._ids = []

    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Remember the order of the images."""
        self._ids += batch.id

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Draw and save, except after the sanity check."""
        ids = _in_order(trainer, self._ids)
        if not validated_epoch(trainer) or trainer.current_epoch % self.every_n_epochs:
            return
        assert isinstance(module, DepthModule) and module.tables is not None
        table = module.tables.depth if module.tables.depth.scored.any() else module.tables.affine
        rows = worst(table, self.images)
        if not rows:
            return
        data = trainer.datamodule.val_data  # type: ignore[attr-defined]
        panels = [sample_panel(module, data[ids.index(table.id[row])]) for row in rows]
        sheet = stack_panels(panels)
        save_png(Path(trainer.default_root_dir) / "worst" / f"epoch_{trainer.current_epoch + 1:03d}.png", sheet)
        columns = ["id", "scene", *table.errors, "panel"]
        cells: list[list[str | float | np.ndarray]] = [
            [table.id[row], table.scene[row], *(float(values[row]) for values in table.errors.values()), panel]
            for row, panel in zip(rows, panels, strict=True)
        ]
        for logger in trainer.loggers:
            log_table(logger, "val/worst", columns, cells, trainer.global_step)


def worst(table: ImageTable, images: int) -> list[int]:
    """The rows of the scored images with the largest errors, in descending order."""
    if not table.scored.any():
        return []
    errors = table.errors["abs_rel" if "abs_rel" in table.errors else "affine_error"]
    scored = np.flatnonzero(table.scored)
    ordered: list[int] = scored[np.argsort(-errors[scored], kind="stable")].tolist()
    return ordered[:images]


def _in_order(trainer: lightning.Trainer, ids: list[str]) -> list[str]:
    """The ids of all processes in the order of the data set, whose samples `EvaluationSampler` deals out in turn."""
    if trainer.world_size == 1:
        return ids
    shares: list[list[str]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(shares, ids)
    return [part[turn] for turn in range(len(shares[0])) for part in shares if turn < len(part)]

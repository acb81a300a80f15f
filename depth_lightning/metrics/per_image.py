"""Metrics that are averages over images, as state that batches and processes add to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depth_lightning.metrics.errors import ErrorFunction


class ImageCounts(NamedTuple):
    """How many images the averages stand for."""

    scored: int
    without_valid_pixel: int
    """Nothing to compare with inside the protocol's crop and range; not in the averages."""
    not_aligned: int
    """The pixels do not determine the alignment, or the truth has no unit and none is fitted; not in the averages."""


class PerImageMetrics(Metric):
    """Averages over images of errors that a subclass computes for each.

    Nothing is read back to the host in `update`; `compute` averages in float64, so that neither the batch size nor
    the number of processes moves the result.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, errors: Mapping[str, ErrorFunction], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.errors = dict(errors)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (b, h, w), at the target's resolution.
            target: (b, h, w).
            mask: (b, h, w) bool, True where the target is valid.

        Raises:
            ValueError: the shapes differ.
        """
        if not (prediction.shape == target.shape == mask.shape) or prediction.ndim != 3:
            raise ValueError(
                f"{type(self).__name__} takes (b, h, w) prediction, target and mask of one shape, found "
                f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}. "
                "Predictions are upsampled to the ground truth, never the other way round."
            )
        self.rows.append(self.image_rows(prediction.float(), target.float(), mask))

    def image_rows(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """One row an image, as `with_status` makes it."""
        raise NotImplementedError

    @staticmethod
    def with_status(errors: Tensor, valid: Tensor, determined: Tensor) -> Tensor:
        """(b, errors + 2): the errors, the number of pixels in the (b, h, w) mask, and whether they could be scored."""
        pixels = valid.sum(dim=(1, 2))
        return torch.cat([errors, pixels[:, None].to(errors), determined[:, None].to(errors)], dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Every error by its name, averaged over the images scored; NaN where none was."""
        errors, scored, _ = self.table()
        means = errors[scored].mean(dim=0).float()
        return dict(zip(self.errors, means, strict=True))

    def counts(self) -> ImageCounts:
        """The images behind `compute`, of all processes: a collective call, to be made by every process."""
        with self.sync_context(should_sync=self._to_sync):
            _, scored, pixels = self.table()
        valid = pixels > 0
        return ImageCounts(int(scored.sum()), int((~valid).sum()), int((valid & ~scored).sum()))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one that saw no image takes part with none."""
        if not len(self.rows):  # torchmetrics would gather a placeholder of another shape, and fail
            self.rows.append(torch.empty(0, len(self.errors) + 2, device=self.device))
        super().sync(*args, **kwargs)

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of this process: errors (n, errors), whether each image is scored (n,), its valid pixels (n,), in float64."""
        table = dim_zero_cat(self.rows) if len(self.rows) else torch.empty(0, len(self.errors) + 2)
        rows = table.cpu().double()
        pixels, determined = rows[:, -2], rows[:, -1].bool()
        return rows[:, :-2], (pixels > 0) & determined, pixels

"""The depth metrics as a torchmetrics class: per-image errors under a protocol, averaged over images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depth_lightning.metrics.alignment import align
from depth_lightning.metrics.errors import ERRORS, ErrorFunction
from depth_lightning.metrics.protocol import Protocol


class ImageCounts(NamedTuple):
    """How many images the averages stand for."""

    scored: int
    without_valid_pixel: int
    """Nothing to compare with inside the protocol's crop and range; not in the averages."""
    not_aligned: int
    """The alignment was not determined; not in the averages."""


class DepthMetrics(Metric):
    """Errors of depth maps, per image, averaged over the images of all batches and processes.

    Nothing is read back to the host in `update`; `compute` averages in float64, so that neither the batch size nor
    the number of processes moves the result.

    Args:
        protocol: what counts and how it is aligned.
        errors: names and functions to report; the standard eleven by default.

    >>> metrics = DepthMetrics(Protocol(max_depth=10.0))
    >>> target = torch.rand(2, 4, 4) + 1
    >>> metrics.update(1.1 * target, target, target > 0)
    >>> round(metrics.compute()["abs_rel"].item(), 3)
    0.1
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    rows: list[Tensor]

    def __init__(self, protocol: Protocol, errors: Mapping[str, ErrorFunction] = ERRORS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        self.errors = dict(errors)
        # One row an image: every error, then whether it had a valid pixel, then whether its alignment was determined.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (b, h, w) depth at the target's resolution, in its unit; disparity for the alignment
                `scale_shift_disparity`.
            target: (b, h, w) depth in metres.
            mask: (b, h, w) bool, True where the target is valid.

        Raises:
            ValueError: the shapes differ.
        """
        if not (prediction.shape == target.shape == mask.shape) or prediction.ndim != 3:
            raise ValueError(
                "DepthMetrics takes (b, h, w) prediction, target and mask of one shape, found "
                f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}. "
                "Predictions are upsampled to the ground truth, never the other way round."
            )
        self.rows.append(self.image_rows(prediction.float(), target.float(), mask))

    def image_rows(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """(b, errors + 2): one row an image, as kept in the state."""
        valid = self.protocol.valid(target, mask)
        aligned = align(prediction, target, valid, self.protocol.alignment)
        depth = self.protocol.bound(aligned.depth)
        columns = [function(depth, target, valid) for function in self.errors.values()]
        return torch.stack([*columns, valid.flatten(1).any(dim=1).float(), aligned.determined.float()], dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Every error by its name, averaged over the images scored; NaN where none was."""
        errors, scored, _ = self._table()
        means = errors[scored].mean(dim=0).float()
        return dict(zip(self.errors, means, strict=True))

    def counts(self) -> ImageCounts:
        """The images behind `compute`, of all processes: a collective call, to be made by every process."""
        with self.sync_context(should_sync=self._to_sync):
            _, scored, valid = self._table()
        return ImageCounts(int(scored.sum()), int((~valid).sum()), int((valid & ~scored).sum()))

    def _table(self) -> tuple[Tensor, Tensor, Tensor]:
        table = dim_zero_cat(self.rows) if len(self.rows) else torch.empty(0, len(self.errors) + 2)
        rows = table.cpu().double()
        valid, determined = rows[:, -2].bool(), rows[:, -1].bool()
        return rows[:, :-2], valid & determined, valid

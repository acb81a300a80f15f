"""The depth metrics as a torchmetrics class: per-image errors under a protocol, averaged over images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from depth_lightning.metrics.alignment import Aligned, align
from depth_lightning.metrics.errors import ERRORS, ErrorFunction
from depth_lightning.metrics.intervals import Units, mean_intervals
from depth_lightning.metrics.per_image import ImageFacts, ImageRows, ImageTable, PerImageMetrics
from depth_lightning.metrics.protocol import Protocol

POOLED: Mapping[str, int] = {
    "abs_rel": 1, "sq_rel": 1, "rmse": 2, "rmse_log": 2, "log10": 1, "mae": 1, "delta1": 1, "delta2": 1, "delta3": 1,
}  # fmt: skip
"""The errors that are defined over the pixels of all images together: (Σ pixels · errorᵖ / Σ pixels)^(1/p), with p."""


class DepthMetrics(PerImageMetrics):
    """Errors of depth maps against truth in metres (or depth up to scale, with an alignment that fits the scale).

    `update` takes depth in the target's unit, and disparity for the alignment `scale_shift_disparity`.

    Args:
        protocol: which pixels count and how predictions are aligned.
        errors: name → function; by default the eleven of `ERRORS`.

    >>> metrics = DepthMetrics(Protocol(max_depth=10.0))
    >>> target = torch.rand(2, 4, 4) + 1
    >>> metrics.update(1.1 * target, target, target > 0)
    >>> round(metrics.compute()["abs_rel"].item(), 3)
    0.1
    """

    def __init__(self, protocol: Protocol, errors: Mapping[str, ErrorFunction] = ERRORS, **kwargs: Any) -> None:
        super().__init__(errors, **kwargs)
        self.protocol = protocol

    def image_rows(
        self, prediction: Tensor, target: Tensor, mask: Tensor, scale_known: bool, intrinsics: Tensor | None = None
    ) -> ImageRows:
        """One row per image: aligned, bounded and scored according to the protocol."""
        depth, valid, aligned = prepare(prediction, target, mask, self.protocol)
        fits_scale, fits_shift = self.protocol.alignment != "none", "shift" in self.protocol.alignment
        return ImageRows(
            self.image_errors(depth, target, valid, intrinsics),
            ImageFacts.of(
                target,
                valid,
                scale=aligned.scale if fits_scale else None,
                shift=aligned.shift if fits_shift else None,
            ),
            aligned.determined & (scale_known or fits_scale),
        )

    def compute(self) -> dict[str, Tensor]:
        """Name → error, averaged over images, or with the reduction `pixel`, over pixels for those in `POOLED`."""
        if self.protocol.reduction == "image":
            return super().compute()
        rows = self.table()
        columns = dict(zip(self.errors, rows.errors[rows.scored].T, strict=True))
        weights = rows.facts.valid_pixels[rows.scored]
        return {
            name: ((columns[name] ** p * weights).sum() / weights.sum()).float() ** (1 / p)
            for name, p in POOLED.items()
            if name in columns
        }

    def averages(self, images: ImageTable) -> dict[str, float]:
        """What `compute` gives for the images of a table, or for a part of them; empty if none of them is scored."""
        scored = images.scored
        if self.protocol.reduction == "image" or not scored.any():
            return super().averages(images)
        weights = images.facts["valid_pixels"][scored]
        return {
            name: float(np.average(images.errors[name][scored] ** p, weights=weights) ** (1 / p))
            for name, p in POOLED.items()
            if name in images.errors
        }

    def bounds(self, values: np.ndarray, pixels: np.ndarray, units: Units) -> dict[str, tuple[float, float]]:
        """Interval bounds of the values that `compute` reports."""
        if self.protocol.reduction == "image":
            return super().bounds(values, pixels, units)
        powers = np.array([POOLED.get(name, 0) for name in self.errors])
        pooled = powers > 0
        ends = mean_intervals(values[:, pooled] ** powers[pooled], units, weights=pixels) ** (1 / powers[pooled, None])
        return dict(zip((name for name in self.errors if name in POOLED), map(tuple, ends.tolist()), strict=True))


def prepare(prediction: Tensor, target: Tensor, mask: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor, Aligned]:
    """(b, h, w) depth after alignment and bounds, the (b, h, w) pixels that count, and the alignment."""
    valid = protocol.valid(target, mask)
    aligned = align(prediction, target, valid, protocol.alignment)
    return protocol.bound(aligned.depth), valid, aligned

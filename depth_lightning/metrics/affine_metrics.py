"""Metrics for ground truth that is known only up to scale and shift, such as from uncalibrated stereo."""

from typing import Any

import torch
from torch import Tensor

from depth_lightning.affine import normalised
from depth_lightning.metrics.errors import ErrorFunction
from depth_lightning.metrics.per_image import ImageFacts, ImageRows, PerImageMetrics
from depth_lightning.metrics.pixels import random_valid_pixels

PAIRS = 10_000
MARGIN = 0.05


def affine_error(disparity: Tensor, target_disparity: Tensor, mask: Tensor) -> Tensor:
    """(b,) mean |p̂ − t̂| of disparities minus their median, divided by their mean absolute deviation (MiDaS, 2020).

    0 for a perfect ordering with perfect proportions, about 1 for a constant prediction.
    """
    residual = normalised(disparity, mask) - normalised(target_disparity, mask)
    return torch.where(mask, residual, 0).abs().sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def ordinal_error(disparity: Tensor, target_disparity: Tensor, mask: Tensor) -> Tensor:
    """(b,) share of point pairs that the prediction puts in the wrong order; ½ for a random guess.

    10,000 pairs of valid pixels, the same for the same mask. Pairs whose truth differs by less than 5 % of its mean
    absolute deviation have no clear order and are left out; a tie in the prediction counts as wrong.
    """
    truth = normalised(target_disparity, mask).flatten(1)
    flat = disparity.flatten(1)
    pixels = random_valid_pixels(mask, 2 * PAIRS)
    first, second = pixels.chunk(2, dim=1)
    true_order = truth.gather(1, first) - truth.gather(1, second)
    predicted_order = flat.gather(1, first) - flat.gather(1, second)
    ordered = true_order.abs() > MARGIN
    return (ordered & (true_order * predicted_order <= 0)).sum(dim=1) / ordered.sum(dim=1)


class AffineMetrics(PerImageMetrics):
    """`affine_error` and `ordinal_error` of disparities, averaged over images."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        errors: dict[str, ErrorFunction] = {"affine_error": affine_error, "ordinal_error": ordinal_error}
        super().__init__(errors, **kwargs)

    def image_rows(
        self, prediction: Tensor, target: Tensor, mask: Tensor, scale_known: bool, intrinsics: Tensor | None = None
    ) -> ImageRows:
        """One row per image. A constant truth orders no pair, so it counts as not determined."""
        errors = self.image_errors(prediction, target, mask)
        return ImageRows(errors, ImageFacts.of(target, mask), errors.isfinite().all(dim=1))

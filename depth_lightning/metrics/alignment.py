"""Alignment of a prediction with the ground truth of its image before scoring, in the variants that papers use.

Every fit is per image, over valid pixels only, in closed form and without a host sync. An
underdetermined fit is not applied: the image is reported as not aligned, never scored with an arbitrary factor.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from depth_lightning.metrics.protocol import Alignment


class Aligned(NamedTuple):
    """The outcome of an alignment."""

    depth: Tensor
    """(b, h, w) the prediction in the unit of the target."""
    scale: Tensor
    """(b,) the fitted factor; 1 without an alignment."""
    shift: Tensor
    """(b,) the fitted offset; 0 if none is fitted. In disparity for `scale_shift_disparity`."""
    determined: Tensor
    """(b,) bool, False where there are too few valid pixels or the fit is near-singular."""


def align(prediction: Tensor, target: Tensor, mask: Tensor, alignment: Alignment) -> Aligned:
    """Align (b, h, w) predictions with their targets.

    prediction is depth, and disparity (larger is nearer) for `scale_shift_disparity`; target is depth. The aligned
    disparity has a floor of 1 / the image's largest valid target: without it, a single pixel near 0 would dominate
    the average.

    >>> depth_m = torch.tensor([[[1.0, 2.0, 4.0]]])
    >>> aligned = align(3 / depth_m + 1, depth_m, depth_m > 0, "scale_shift_disparity")
    >>> torch.allclose(aligned.depth, depth_m)
    True
    """
    one, zero = prediction.new_ones(len(prediction)), prediction.new_zeros(len(prediction))
    count = mask.sum(dim=(1, 2))
    if alignment == "none":
        return Aligned(prediction, one, zero, count > 0)
    if alignment == "scale_shift_disparity":
        scale, shift, determined = fit_scale_shift(prediction, torch.where(mask, 1 / target, 0), mask)
        farthest = target.masked_fill(~mask, 0).amax(dim=(1, 2), keepdim=True)
        disparity = scale[:, None, None] * prediction + shift[:, None, None]
        return Aligned(1 / torch.maximum(disparity, 1 / farthest), scale, shift, determined)
    if alignment == "scale_shift_depth":
        scale, shift, determined = fit_scale_shift(prediction, target, mask)
        return Aligned(scale[:, None, None] * prediction + shift[:, None, None], scale, shift, determined)

    if alignment == "scale_median_of_ratios":
        scale = _median(target / prediction, mask)
    elif alignment == "scale_ratio_of_medians":
        scale = _median(target, mask) / _median(prediction, mask)
    else:
        product = torch.where(mask, prediction * target, 0).sum(dim=(1, 2))
        scale = product / torch.where(mask, prediction.square(), 0).sum(dim=(1, 2))
    determined = scale.isfinite() & (scale > 0)
    scale = torch.where(determined, scale, 1)
    return Aligned(scale[:, None, None] * prediction, scale, zero, determined)


def fit_scale_shift(x: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares a, b of a·x + b ≈ y per image, and whether the pixels determine them; each (b,).

    A near-singular fit (fewer than two valid pixels, or x constant to within 1e-5 of itself) gives a = 1, b = 0, False.
    """
    count = mask.sum(dim=(1, 2)).clamp(min=1)
    x, y = torch.where(mask, x, 0), torch.where(mask, y, 0)
    mean_x, mean_y = x.sum(dim=(1, 2)) / count, y.sum(dim=(1, 2)) / count
    # Centre first: in float32, the normal equations of uncentred values lose the precision that the shift needs.
    centred_x = torch.where(mask, x - mean_x[:, None, None], 0)
    centred_y = torch.where(mask, y - mean_y[:, None, None], 0)
    variance = centred_x.square().sum(dim=(1, 2)) / count
    covariance = (centred_x * centred_y).sum(dim=(1, 2)) / count
    determined = (mask.sum(dim=(1, 2)) >= 2) & (variance.sqrt() > 1e-5 * mean_x.abs()) & (variance > 0)
    scale = torch.where(determined, covariance / variance, 1)
    shift = torch.where(determined, mean_y - scale * mean_x, 0)
    return scale, shift, determined


def _median(values: Tensor, mask: Tensor) -> Tensor:
    """(b,) median over valid pixels, the lower of the two middle values; NaN without a valid pixel."""
    return values.masked_fill(~mask, torch.nan).flatten(1).nanmedian(dim=1).values

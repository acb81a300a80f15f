"""Normalisation of maps that are known only up to scale and shift."""

import torch
from torch import Tensor


def normalised(values: Tensor, mask: Tensor) -> Tensor:
    """(b, h, w) maps minus their median, divided by their mean absolute deviation; both over each image's valid pixels.

    Ranftl et al., MiDaS, 2020. A constant map, or one without a valid pixel, gives 0.
    """
    flat, valid = values.flatten(1), mask.flatten(1)
    # NaN in holes, so that nanmedian sees only valid values; median(mask · values) would count the zeros.
    median = flat.masked_fill(~valid, torch.nan).nanmedian(dim=1, keepdim=True).values.nan_to_num(0.0)
    centred = torch.where(valid, flat - median, 0)
    scale = centred.abs().sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return (centred / scale.clamp(min=1e-6)).view_as(values)

"""Maps that are known up to scale and shift: what is the same in all of them."""

import torch
from torch import Tensor


def normalised(values: Tensor, mask: Tensor) -> Tensor:
    """(b, h, w) maps less their median, over their mean absolute deviation; both over an image's valid pixels only.

    Ranftl et al., MiDaS, 2020. A constant map gives 0, and so does one without a valid pixel.
    """
    flat, valid = values.flatten(1), mask.flatten(1)
    # NaN at the holes, so that nanmedian sees valid values alone; median(mask · values) would count the zeros.
    median = flat.masked_fill(~valid, torch.nan).nanmedian(dim=1, keepdim=True).values.nan_to_num(0.0)
    centred = torch.where(valid, flat - median, 0)
    scale = centred.abs().sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return (centred / scale.clamp(min=1e-6)).view_as(values)

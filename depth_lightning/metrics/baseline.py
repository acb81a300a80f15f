"""The best prediction without seeing the image: one constant depth for every pixel."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from depth_lightning.metrics.protocol import Protocol

_BINS = 8192


def best_constant(truths: Iterable[tuple[Tensor, Tensor]], protocol: Protocol) -> float:
    """The constant prediction with the lowest abs_rel, averaged over images.

    E[|c − t| / t] over an image is a sum of |c − t| weighted by 1 / t, so its minimum is at a weighted median. That is
    read off a histogram over log depth, to within 0.2 % of the depth for any usual range.

    Args:
        truths: (h, w) target and mask of every image.
        protocol: which pixels count.

    Raises:
        ValueError: no image has a valid pixel.
    """
    low, high = math.log(protocol.min_depth), math.log(protocol.max_depth)
    weights = torch.zeros(_BINS, dtype=torch.float64)
    for target, mask in truths:
        valid = target[protocol.valid(target[None], mask[None])[0]].double()
        bins = ((valid.log() - low) / (high - low) * _BINS).long().clamp(0, _BINS - 1)
        weights.index_add_(0, bins, 1 / (valid * max(1, len(valid))))
    if not weights.any():
        raise ValueError("No image has a valid pixel under this protocol, so there is no best constant.")
    cumulative = weights.cumsum(0)
    middle = int(torch.searchsorted(cumulative, cumulative[-1] / 2))
    return math.exp(low + (middle + 0.5) / _BINS * (high - low))

"""How well the depth edges of a prediction match the truth's: the boundary F1 of Depth Pro (Bochkovskii et al., 2024,
arXiv:2410.02073), in the form of its published evaluation.

Two neighbouring pixels are an edge in one of four directions if the depth of one exceeds t times that of the other.
Only ratios matter, so the scale does not. Functions of (prediction, target, mask) → (b,), as in `errors`; an image
without two valid neighbours gives NaN. Holes hide edges, so the truth should be dense, as rendered depth is.
"""

import torch
from torch import Tensor

THRESHOLDS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)
"""The values of t; an image's value is their mean, weighted by t."""


def boundary_f1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Harmonic mean of precision and recall at each t, in [0, 1]; 0 where no edge matches.

    >>> depth_m = torch.tensor([[[1.0, 1.0, 2.0, 2.0]]])
    >>> boundary_f1(3 * depth_m, depth_m, depth_m > 0)
    tensor([0.2500])
    """
    precision, recall = _precision_recall(prediction, target, mask)
    return _weighted(2 * precision * recall / (precision + recall).clamp(min=1e-12), mask)


def boundary_precision(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of the prediction's edges that are edges of the truth, the mean of the four directions."""
    return _weighted(_precision_recall(prediction, target, mask)[0], mask)


def boundary_recall(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of the truth's edges that are edges of the prediction, the mean of the four directions."""
    return _weighted(_precision_recall(prediction, target, mask)[1], mask)


for _function in (boundary_f1, boundary_precision, boundary_recall):
    _function.higher_is_better = True  # type: ignore[attr-defined]


def _precision_recall(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(b, thresholds) each. A direction without an edge counts as 0, as in Depth Pro."""
    shares = []
    for predicted, true in zip(_ratios(prediction, mask), _ratios(target, mask), strict=True):
        matching = _edges(torch.minimum(predicted, true))
        shares.append(torch.stack([matching / _edges(ratio).clamp(min=1) for ratio in (predicted, true)]))
    precision, recall = torch.stack(shares).mean(0)
    return precision, recall


def _ratios(depth: Tensor, mask: Tensor) -> list[Tensor]:
    """The ratio of each pixel to its neighbour on the left, on the right, above and below; 0 if one is not valid."""
    ratios = []
    for axis in (2, 1):
        one, other = depth.narrow(axis, 1, depth.shape[axis] - 1), depth.narrow(axis, 0, depth.shape[axis] - 1)
        valid = mask.narrow(axis, 1, mask.shape[axis] - 1) & mask.narrow(axis, 0, mask.shape[axis] - 1)
        ratios += [torch.where(valid, one / other, 0), torch.where(valid, other / one, 0)]
    return ratios


def _edges(ratios: Tensor) -> Tensor:
    """(b, thresholds): how many ratios exceed each threshold."""
    counts = [torch.count_nonzero(ratios > t, dim=(1, 2)) for t in THRESHOLDS.tolist()]
    return torch.stack(counts, dim=1).double()


def _weighted(values: Tensor, mask: Tensor) -> Tensor:
    weights = (THRESHOLDS / THRESHOLDS.sum()).to(values.device)
    pairs = (mask[:, :, 1:] & mask[:, :, :-1]).any(2).any(1) | (mask[:, 1:] & mask[:, :-1]).any(2).any(1)
    return torch.where(pairs, values @ weights, torch.nan).float()

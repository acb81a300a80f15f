"""The errors of monocular depth (Eigen et al., 2014, and the names used since), one pure function each.

All take positive (b, h, w) prediction and target in one unit and a bool mask that is True where both count, and
return one value per image, (b,). An image without a valid pixel gives NaN: its error is undefined, not 0.
Lower is better, unless the function has the attribute `higher_is_better = True`. A function with the attribute
`needs_intrinsics = True` takes the cameras as well, (b, 4) fx, fy, cx, cy in pixels.

>>> target = torch.tensor([[[1.0, 2.0], [4.0, 9.0]]])
>>> abs_rel(1.1 * target, target, target < 5)
tensor([0.1000])
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

ErrorFunction = Callable[..., Tensor]
"""(prediction, target, mask) → (b,), or with the attribute `needs_intrinsics`, (…, intrinsics) → (b,)."""


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """(b,) mean of (b, h, w) values where mask is True."""
    return torch.where(mask, values, 0).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))


def abs_rel(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """E[|p − t| / t]."""
    return _mean((prediction - target).abs() / target, mask)


def sq_rel(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """E[(p − t)² / t], in the unit of the target."""
    return _mean((prediction - target).square() / target, mask)


def mae(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """E[|p − t|], in the unit of the target."""
    return _mean((prediction - target).abs(), mask)


def rmse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """√E[(p − t)²], in the unit of the target."""
    return _mean((prediction - target).square(), mask).sqrt()


def rmse_log(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """√E[(ln p − ln t)²]."""
    return _mean((prediction.log() - target.log()).square(), mask).sqrt()


def log10(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """E[|log₁₀ p − log₁₀ t|]."""
    return _mean((prediction.log10() - target.log10()).abs(), mask)


def silog(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """√(E[d²] − ½ E[d]²) with d = ln t − ln p, as Depth Anything V2 reports it under this name."""
    difference = target.log() - prediction.log()
    mean = _mean(difference, mask)
    return (_log_variance(difference, mean, mask) + 0.5 * mean.square()).sqrt()


def silog_100(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """100 · √(E[d²] − E[d]²), as KITTI, BTS and ZoeDepth report it under the name silog."""
    difference = target.log() - prediction.log()
    return 100 * _log_variance(difference, _mean(difference, mask), mask).sqrt()


def _log_variance(difference: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
    return _mean((difference - mean[:, None, None]).square(), mask)


def delta1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of pixels with max(p/t, t/p) < 1.25."""
    return _within(1.25, prediction, target, mask)


def delta2(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of pixels with max(p/t, t/p) < 1.25²."""
    return _within(1.25**2, prediction, target, mask)


def delta3(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of pixels with max(p/t, t/p) < 1.25³."""
    return _within(1.25**3, prediction, target, mask)


def _within(threshold: float, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return _mean((torch.maximum(prediction / target, target / prediction) < threshold).float(), mask)


delta1.higher_is_better = delta2.higher_is_better = delta3.higher_is_better = True  # type: ignore[attr-defined]

ERRORS: Mapping[str, ErrorFunction] = {
    function.__name__: function
    for function in (
        abs_rel, sq_rel, rmse, rmse_log, log10, mae, silog, silog_100, delta1, delta2, delta3,
    )
}  # fmt: skip
"""Every error by its reported name, in the order of the table."""


def with_intrinsics(function: ErrorFunction) -> bool:
    """Whether the function takes the cameras as well: its `needs_intrinsics`, False without one."""
    return bool(getattr(function, "needs_intrinsics", False))


def directions(errors: Mapping[str, ErrorFunction]) -> dict[str, bool]:
    """Name → whether higher is better: the function's `higher_is_better`, False without one.

    >>> directions({"abs_rel": abs_rel, "delta1": delta1})
    {'abs_rel': False, 'delta1': True}
    """
    return {name: bool(getattr(function, "higher_is_better", False)) for name, function in errors.items()}

"""How well a prediction's surfaces are oriented: the angle between its normals and the truth's, in degrees.

Functions of (prediction, target, mask, intrinsics) → (b,), see `errors`. A pixel's normal is the cross product of the
differences between its neighbours' points, to the right and left, and below and above; it counts where these four and
the pixel itself are valid. The scale of depth does not matter. An image without such a pixel gives NaN.
"""

import torch
from torch import Tensor

THRESHOLDS_DEG = (11.25, 22.5, 30.0)
"""Of the usual shares (Eigen and Fergus, 2015)."""


def normals_mean(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Mean angle in degrees.

    >>> depth_m = torch.full((1, 8, 8), 2.0)
    >>> slanted = 1 / (0.5 - 0.5 * (torch.arange(8) - 3.5) / 100).expand(1, 8, 8)  # z = 2 m + x, at 45°
    >>> normals_mean(slanted, depth_m, depth_m > 0, torch.tensor([[100.0, 100.0, 3.5, 3.5]]))
    tensor([45.0000])
    """
    angles, valid = angles_deg(prediction, target, mask, intrinsics)
    return torch.where(valid, angles, 0).sum(dim=(1, 2)) / valid.sum(dim=(1, 2))


def normals_median(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Median angle in degrees; of an even number, the lower of the two in the middle."""
    angles, valid = angles_deg(prediction, target, mask, intrinsics)
    return angles.masked_fill(~valid, torch.nan).flatten(1).nanmedian(dim=1).values


def normals_below_11(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Share of the pixels with an angle below 11.25°."""
    return _share_below(THRESHOLDS_DEG[0], prediction, target, mask, intrinsics)


def normals_below_22(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Share of the pixels with an angle below 22.5°."""
    return _share_below(THRESHOLDS_DEG[1], prediction, target, mask, intrinsics)


def normals_below_30(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Share of the pixels with an angle below 30°."""
    return _share_below(THRESHOLDS_DEG[2], prediction, target, mask, intrinsics)


for _function in (normals_below_11, normals_below_22, normals_below_30):
    _function.higher_is_better = True  # type: ignore[attr-defined]
for _function in (normals_mean, normals_median, normals_below_11, normals_below_22, normals_below_30):
    _function.needs_intrinsics = True  # type: ignore[attr-defined]


def angles_deg(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """(b, h - 2, w - 2) angles in degrees, from 0 to 180, and where they are defined, bool."""
    (ax, ay, az), (bx, by, bz) = (_normals(depth, intrinsics) for depth in (prediction, target))
    crossed = (ay * bz - az * by).square() + (az * bx - ax * bz).square() + (ax * by - ay * bx).square()
    # Of two nearly parallel vectors, the arc cosine has no precision.
    angles = torch.atan2(crossed.sqrt(), ax * bx + ay * by + az * bz).rad2deg()
    inner = mask[:, 1:-1, 1:-1] & mask[:, 1:-1, 2:] & mask[:, 1:-1, :-2] & mask[:, 2:, 1:-1] & mask[:, :-2, 1:-1]
    return angles, inner


def _normals(depth: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and z, each (b, h - 2, w - 2), of the normals, of any length and towards the camera's far side.

    The cross product of the points' differences, divided by all that the neighbours' depths have in common.
    """
    fx, fy, cx, cy = intrinsics.to(depth)[:, :, None, None].unbind(dim=1)
    height, width = depth.shape[1:]
    x = torch.arange(1, width - 1, device=depth.device, dtype=depth.dtype)
    y = torch.arange(1, height - 1, device=depth.device, dtype=depth.dtype)[:, None]
    left, right, above, below = depth[:, 1:-1, :-2], depth[:, 1:-1, 2:], depth[:, :-2, 1:-1], depth[:, 2:, 1:-1]
    slope_x = fx * (left - right) / (left + right)
    slope_y = fy * (above - below) / (above + below)
    return slope_x, slope_y, 1 - (x - cx) / fx * slope_x - (y - cy) / fy * slope_y


def _share_below(limit: float, prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    angles, valid = angles_deg(prediction, target, mask, intrinsics)
    return ((angles < limit) & valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2))

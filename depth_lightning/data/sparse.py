"""Sparse depth, as from LiDAR, which is moved point by point: resampling would duplicate its points or lose them."""

import numpy as np

from depth_lightning.sample import DepthKind

SPARSE = 0.3
"""Below this share of valid pixels a target is moved point by point; KITTI's accumulated LiDAR has 0.2."""


def is_sparse(mask: np.ndarray) -> bool:
    """Whether a target with this mask, (h, w) bool, is sparse."""
    return bool(np.count_nonzero(mask) < SPARSE * mask.size)


def scattered(
    values: np.ndarray, row: np.ndarray, column: np.ndarray, size: tuple[int, int], kind: DepthKind
) -> tuple[np.ndarray, np.ndarray]:
    """Target and mask of `size` (h, w) from the values (n,) of points; of two in one pixel the nearer is kept.

    Args:
        values: in what `kind` says.
        row: (n,) whole numbers; points outside are dropped.
        column: likewise.
        size: (h, w).
        kind: of the values.
    """
    inside = (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
    nearer, far = (np.maximum, -np.inf) if kind == DepthKind.DISPARITY else (np.minimum, np.inf)
    target = np.full(size, far, np.float32)
    nearer.at(target, (row[inside], column[inside]), values[inside])
    mask = target != far
    return np.where(mask, target, np.float32(0)), mask

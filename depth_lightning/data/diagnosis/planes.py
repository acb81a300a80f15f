"""What flat surfaces reveal about a depth map: whether it holds depth, disparity, or distances along the ray.

In a pinhole image, 1 / depth of a plane is linear in the pixel's coordinates, whatever the intrinsics. Depth itself is
not, so a map that is linear on tilted planes holds disparity. Distances along the ray are too large towards the edges
of the image by the factor sqrt(1 + ρ²), ρ being the distance from its centre in focal lengths: planes bulge.
"""

from typing import Final, NamedTuple

import numpy as np

GRID: Final = 5
"""Windows along each side of the map; each spans a third of it, so that neighbours overlap by half or more."""
POINTS: Final = 24
"""Most points along each side of a window."""
MIN_POINTS: Final = 100
MAX_RESIDUAL: Final = 0.01
"""Largest relative RMS distance from a plane in a window that counts as flat."""
MIN_INLIERS: Final = 0.9
USUAL_FOCAL: Final = 0.85
"""Focal length over the longer side, if unknown: a field of view of 61°. Cameras have 0.55 (wide) to 1.1."""


class Plane(NamedTuple):
    """Measurements of one flat window."""

    bulge: float
    """0 for planar depth, 1 for distances along the ray, −1 for depth that was divided by the factor twice."""
    bulge_error: float
    """Its standard error."""
    tilt: float
    """Ratio of the farthest to the nearest depth in the window (95th and 5th percentile)."""
    depth_vote: float
    """log of the ratio of plane residuals, in disparity over in depth: above 0 if the map holds depth."""


def flat_windows(depth: np.ndarray, mask: np.ndarray, focal: float | None = None) -> list[Plane]:
    """The flat windows of a map.

    Args:
        depth: (h, w), positive where valid; for a disparity map, its reciprocal.
        mask: (h, w) bool.
        focal: focal length over the width of the map; None for a typical one.
    """
    h, w = depth.shape
    focal_px = focal * w if focal else USUAL_FOCAL * max(h, w)
    size_y, size_x = h // 3, w // 3
    planes = []
    for top in np.linspace(0, h - size_y, GRID).astype(int):
        for left in np.linspace(0, w - size_x, GRID).astype(int):
            y, x = _points(mask[top : top + size_y, left : left + size_x])
            if len(y) < MIN_POINTS:
                continue
            y, x = y + top, x + left
            ray = np.stack([(x - (w - 1) / 2) / focal_px, (y - (h - 1) / 2) / focal_px, np.ones(len(x))], axis=1)
            plane = _judge(depth[y, x].astype(np.float64), ray)
            if plane is not None:
                planes.append(plane)
    return planes


def _points(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of valid pixels: on a lattice, or a subset of all if they are sparse."""
    h, w = mask.shape
    y, x = (axis.ravel() for axis in np.meshgrid(_spread(h, POINTS), _spread(w, POINTS), indexing="ij"))
    valid = mask[y, x]
    if valid.sum() >= MIN_POINTS:
        return y[valid], x[valid]
    y, x = np.nonzero(mask)
    some = _spread(len(y), POINTS**2)
    return y[some], x[some]


def _spread(length: int, most: int) -> np.ndarray:
    return np.linspace(0, length - 1, min(length, most)).astype(int)


def _judge(depth: np.ndarray, ray: np.ndarray) -> Plane | None:
    """Fit planes to points with directions `ray` (n, 3), z = 1; None if the points are not flat."""
    middle = np.median(depth)
    disparity = middle / depth
    plane, depth_residual, depth_inliers = _fit(ray, disparity)
    _, disparity_residual, disparity_inliers = _fit(ray, depth / middle)
    if min(depth_residual, disparity_residual) > MAX_RESIDUAL:
        return None
    if max(depth_inliers.mean(), disparity_inliers.mean()) < MIN_INLIERS:
        return None
    # Based on the fitted plane: the noise of the measured disparity would bias the estimate towards 0.
    bulging = -(ray @ plane) * (np.linalg.norm(ray, axis=1) - 1)
    columns = np.column_stack([ray, bulging])
    coefficients, residual, inliers = _fit(columns, disparity)
    normal = columns[inliers].T @ columns[inliers]
    error = np.sqrt(np.linalg.pinv(normal)[3, 3]) * max(residual, 1e-5)
    near, far = np.percentile(depth, [5, 95])
    vote = np.log(max(disparity_residual, 1e-4) / max(depth_residual, 1e-4))
    return Plane(float(coefficients[3]), float(error), float(far / near), float(vote))


def _fit(columns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Least squares without outliers: coefficients, RMS residual of the inliers, and the inlier mask."""
    inliers = np.ones(len(values), bool)
    for _ in range(3):
        kept = columns[inliers]
        coefficients = np.linalg.lstsq(kept.T @ kept, kept.T @ values[inliers], rcond=None)[0]
        residual = values - columns @ coefficients
        limit = 3 * 1.4826 * np.median(np.abs(residual[inliers])) + 1e-9
        inliers = np.abs(residual) < limit
        if inliers.sum() < MIN_POINTS // 2:
            return coefficients, np.inf, inliers
    return coefficients, float(np.sqrt((residual[inliers] ** 2).mean())), inliers

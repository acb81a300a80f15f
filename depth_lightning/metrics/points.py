"""How near the points of a prediction are to those of the truth: Chamfer distance and F-score, as of reconstructions.

Functions of (prediction, target, mask, intrinsics) → (b,), for depth in metres; see `errors`. Up to `MOST` valid pixels
of an image, evenly spread, become points, and every `STEP`-th of them looks for the nearest point of the other cloud,
on the CPU. An image without a valid pixel gives NaN.
"""

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

MOST = 65_536
STEP = 8


def points_chamfer(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """Mean distance in metres to the nearest point of the other cloud; the mean of both directions.

    >>> depth_m = torch.full((1, 40, 40), 2.0)
    >>> points_chamfer(depth_m + 0.25, depth_m, depth_m > 0, torch.tensor([[1e4, 1e4, 19.5, 19.5]]))
    tensor([0.2500])
    """
    ways = _nearest(prediction, target, mask, intrinsics, torch.inf)
    return prediction.new_tensor([np.mean([distances.mean() for distances in way]) if way else np.nan for way in ways])


def points_f1(
    prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor, threshold_m: float = 0.05
) -> Tensor:
    """Harmonic mean of precision and recall at a threshold, in [0, 1]; 5 cm is usual indoors.

    Precision is the share of predicted points with a point of the truth within `threshold_m`, recall the share of the
    truth's points with a predicted one.
    """
    values = []
    for way in _nearest(prediction, target, mask, intrinsics, threshold_m):
        precision, recall = (np.isfinite(distances).mean() for distances in way) if way else (np.nan, np.nan)
        values.append(2 * precision * recall / max(precision + recall, 1e-12))
    return prediction.new_tensor(values)


def points_f1_25cm(prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor) -> Tensor:
    """`points_f1` at 25 cm, for open scenes."""
    return points_f1(prediction, target, mask, intrinsics, threshold_m=0.25)


for _function in (points_f1, points_f1_25cm):
    _function.higher_is_better = True  # type: ignore[attr-defined]
for _function in (points_chamfer, points_f1, points_f1_25cm):
    _function.needs_intrinsics = True  # type: ignore[attr-defined]


def unprojected(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """(b, h, w) depth along the optical axis → (b, h, w, 3) points x, y, z in its unit.

    Args:
        depth: (b, h, w).
        intrinsics: (b, 4) fx, fy, cx, cy in pixels; the centre of the first pixel is at (0, 0), see `camera`.
    """
    fx, fy, cx, cy = intrinsics.to(depth).unbind(dim=1)
    x, y = (torch.arange(side, device=depth.device, dtype=depth.dtype) for side in (depth.shape[2], depth.shape[1]))
    across = ((x - cx[:, None]) / fx[:, None])[:, None, :] * depth
    down = ((y - cy[:, None]) / fy[:, None])[:, :, None] * depth
    return torch.stack([across, down, depth], dim=3)


def _nearest(
    prediction: Tensor, target: Tensor, mask: Tensor, intrinsics: Tensor, most_m: float
) -> list[tuple[np.ndarray, ...]]:
    """For each image the distances from predicted points to the truth, and from the truth's points to the prediction.

    Infinite beyond `most_m`; an image without a valid pixel has none.
    """
    found = list[tuple[np.ndarray, ...]]()
    for index, valid in enumerate(mask.flatten(1)):
        pixels = valid.nonzero()[:, 0]
        spread = torch.linspace(0, len(pixels) - 1, min(MOST, len(pixels)), device=pixels.device).long()
        clouds = [
            unprojected(depth[index, None], intrinsics[index, None]).view(-1, 3)[pixels[spread]].cpu().numpy()
            for depth in (prediction, target)
        ]
        trees = [KDTree(cloud, balanced_tree=False, compact_nodes=False) for cloud in clouds] if len(pixels) else []
        found.append(
            tuple(
                tree.query(cloud[::STEP], distance_upper_bound=most_m)[0]
                for tree, cloud in zip(trees[::-1], clouds, strict=False)
            )
        )
    return found

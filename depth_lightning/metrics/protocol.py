"""How a prediction is scored: which pixels count, in which range, after which alignment.

Papers differ in all of these, and 5–10 % of AbsRel with them, so they are one object with a hash that stands beside
the numbers.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Crop = Literal["none", "nyu_eigen", "kitti_garg", "kitti_eigen"]
Alignment = Literal[
    "none",
    "scale_median_of_ratios",
    "scale_ratio_of_medians",
    "scale_least_squares",
    "scale_shift_depth",
    "scale_shift_disparity",
]

_KITTI_CROPS = {
    # rows from, to, columns from, to, as shares of height and width
    "kitti_garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al., 2016
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al., 2014
}


@dataclass(frozen=True)
class Protocol:
    """One way to measure.

    Args:
        min_depth: pixels count where min_depth < target < max_depth, in the unit of the target (metres). Predictions
            below it are raised to it, so that no logarithm meets 0.
        max_depth: see min_depth.
        crop: the region of the image that counts; `nyu_eigen` needs 480×640 targets.
        alignment: what is fitted to the truth of each image first; see `depth_lightning.metrics.alignment`.
        strict: whether targets equal to a bound are left out (ZoeDepth) or count (Depth Anything V2).
        clip: whether predictions beyond max_depth are lowered to it (ZoeDepth, BTS) or not (Depth Anything V2).

    Raises:
        ValueError: a name is unknown, or the range is empty.
    """

    min_depth: float = 1e-3
    max_depth: float = 10.0
    crop: Crop = "none"
    alignment: Alignment = "none"
    strict: bool = True
    clip: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("crop", self.crop, get_args(Crop)),
            ("alignment", self.alignment, get_args(Alignment)),
        ):
            if value not in allowed:
                raise ValueError(f"protocol.{name} is one of {', '.join(allowed)}; found {value!r}.")
        if not 0 < self.min_depth < self.max_depth:
            raise ValueError(
                "A protocol needs 0 < protocol.min_depth < protocol.max_depth, "
                f"found {self.min_depth} and {self.max_depth}."
            )

    @property
    def hash(self) -> str:
        """Eight hex digits that differ when anything that moves the numbers differs."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, float | str]:
        """The fields as plain values."""
        return dataclasses.asdict(self)

    def valid(self, target: Tensor, mask: Tensor) -> Tensor:
        """The pixels that count, (b, h, w) bool: valid, inside the crop and inside the depth range."""
        if self.strict:
            in_range = (target > self.min_depth) & (target < self.max_depth)
        else:
            in_range = (target >= self.min_depth) & (target <= self.max_depth)
        return mask & in_range & crop_mask(self.crop, *target.shape[-2:]).to(target.device, non_blocking=True)

    def bound(self, depth: Tensor) -> Tensor:
        """Predicted depth, raised to min_depth, and lowered to max_depth where the protocol clips."""
        return depth.clamp(min=self.min_depth, max=self.max_depth if self.clip else None)


def crop_mask(crop: Crop, height: int, width: int) -> Tensor:
    """(h, w) bool, True inside the crop.

    Raises:
        ValueError: the crop is defined for another size than this one.
    """
    inside = torch.zeros(height, width, dtype=torch.bool)
    if crop == "none":
        inside[:] = True
    elif crop == "nyu_eigen":
        if (height, width) != (480, 640):
            raise ValueError(
                f"protocol.crop=nyu_eigen is defined for 480×640 ground truth, found {height}×{width}. "
                "Use protocol.crop=none for other data."
            )
        inside[45:471, 41:601] = True
    else:
        top, bottom, left, right = _KITTI_CROPS[crop]
        inside[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return inside

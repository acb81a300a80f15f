"""How a prediction is scored: which pixels count, in which range, after which alignment.

Papers differ in all of these, which changes AbsRel by 5–10 %. They are therefore one object, whose hash is reported
with the numbers.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_lightning.settings import SettingError, boolean, number, one_of

Crop = Literal["none", "nyu_eigen", "kitti_garg", "kitti_eigen", "kitti_benchmark", "kitti_benchmark_garg"]
Alignment = Literal[
    "none",
    "scale_median_of_ratios",
    "scale_ratio_of_medians",
    "scale_least_squares",
    "scale_shift_depth",
    "scale_shift_disparity",
]
Upsample = Literal["bilinear_corners", "bilinear", "bicubic"]
Reduction = Literal["image", "pixel"]

_NAMES = {"crop": Crop, "alignment": Alignment, "upsample": Upsample, "reduction": Reduction}
_SWITCHES = ("strict", "clip", "flip_average")

_KITTI_SHARES = {
    # rows from, to, columns from, to, as shares of height and width
    "kitti_garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),  # Garg et al., 2016
    "kitti_eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),  # Eigen et al., 2014
}
_KITTI_BENCHMARK = (352, 1216)
_KITTI_LARGEST = (376, 1242)


@dataclass(frozen=True)
class Protocol:
    """One evaluation protocol.

    Args:
        min_depth: pixels count where min_depth < target < max_depth, in the unit of the target (metres). Predictions
            are clamped to it from below, so that no logarithm is taken of 0.
        max_depth: see min_depth.
        crop: the region of the image that counts. `nyu_eigen` needs 480×640 targets. `kitti_benchmark` is the bottom
            352×1216, centred, and `kitti_benchmark_garg` Garg's crop of that, which ZoeDepth reports; BTS uses Garg's
            crop of the full image, `kitti_garg`.
        alignment: what is fitted to the truth of each image before scoring; see `depth_lightning.metrics.alignment`.
        strict: whether targets equal to a bound are excluded (ZoeDepth) or count (Depth Anything V2).
        clip: whether predictions above max_depth are clamped to it (ZoeDepth, BTS) or not (Depth Anything V2).
        upsample: how predictions are resized to the size of the truth: `bilinear_corners` (with align_corners: Depth
            Anything V2, ZoeDepth), `bilinear`, or `bicubic` (MiDaS).
        flip_average: whether predictions are averaged with those of the mirrored image, in the network's unit
            (ZoeDepth).
        reduction: `image`: averages over images with equal weights, as in nearly all papers; `pixel`: over the pixels
            of all images together, for the errors for which this is defined.

    Raises:
        SettingError: an argument is out of range, or the range of depths is empty.
    """

    # `hash` omits fields at their defaults: fields may be added, but defaults must not change.
    min_depth: float = 1e-3
    max_depth: float = 10.0
    crop: Crop = "none"
    alignment: Alignment = "none"
    strict: bool = True
    clip: bool = False
    upsample: Upsample = "bilinear_corners"
    flip_average: bool = False
    reduction: Reduction = "image"

    def __post_init__(self) -> None:
        for name, names in _NAMES.items():
            one_of(name, getattr(self, name), get_args(names))
        for name in _SWITCHES:
            boolean(name, getattr(self, name))
        for name in ("min_depth", "max_depth"):  # 80 and 80.0 are the same protocol
            object.__setattr__(self, name, float(number(name, getattr(self, name), above=0, most=1e6)))
        if self.min_depth >= self.max_depth:
            raise SettingError("min_depth", f"is below max_depth, {self.max_depth:g}; found {self.min_depth:g}.")

    def __str__(self) -> str:
        """The protocol in one line, for readers of a table."""
        sign = "<" if self.strict else "≤"
        parts = [f"{self.min_depth:g} {sign} depth {sign} {self.max_depth:g}", f"crop {self.crop}"]
        parts += [f"alignment {self.alignment}", "clipped" if self.clip else "not clipped"]
        if self.upsample != "bilinear_corners":
            parts.append(f"upsampled {self.upsample}")
        if self.flip_average:
            parts.append("averaged with the mirrored image's")
        if self.reduction == "pixel":
            parts.append("over all pixels together")
        return ", ".join(parts)

    @property
    def hash(self) -> str:
        """Eight hex digits that change with anything that affects the numbers.

        Only fields that differ from their defaults are hashed, so that a field added later keeps earlier hashes.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        changed = {name: value for name, value in self.to_dict().items() if value != defaults[name]}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return dataclasses.asdict(self)

    def upsampled(self, prediction: Tensor, height: int, width: int) -> Tensor:
        """(b, h, w) float32 predictions at the resolution of their truth, which itself is never resized."""
        mode = "bicubic" if self.upsample == "bicubic" else "bilinear"
        corners = self.upsample == "bilinear_corners"
        return F.interpolate(prediction.float()[:, None], (height, width), mode=mode, align_corners=corners)[:, 0]

    def valid(self, target: Tensor, mask: Tensor) -> Tensor:
        """The pixels that count, (b, h, w) bool: valid, inside the crop and inside the depth range."""
        if self.strict:
            in_range = (target > self.min_depth) & (target < self.max_depth)
        else:
            in_range = (target >= self.min_depth) & (target <= self.max_depth)
        return mask & in_range & crop_mask(self.crop, *target.shape[-2:]).to(target.device, non_blocking=True)

    def bound(self, depth: Tensor) -> Tensor:
        """Predicted depth, clamped to at least min_depth, and to at most max_depth if the protocol clips."""
        return depth.clamp(min=self.min_depth, max=self.max_depth if self.clip else None)


def crop_mask(crop: Crop, height: int, width: int) -> Tensor:
    """(h, w) bool, True inside the crop.

    Raises:
        ValueError: the crop is not defined for this size.
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
    elif crop in ("kitti_benchmark", "kitti_benchmark_garg"):
        rows, columns = _KITTI_BENCHMARK
        if height < rows or width < columns:
            raise ValueError(
                f"protocol.crop={crop} takes {rows}×{columns} of a larger ground truth, found {height}×{width}. "
                "Use protocol.crop=none for other data."
            )
        left = (width - columns) // 2
        within = crop_mask("kitti_garg" if crop == "kitti_benchmark_garg" else "none", rows, columns)
        inside[height - rows :, left : left + columns] = within
    else:
        top, bottom, left_share, right_share = _KITTI_SHARES[crop]
        inside[int(top * height) : int(bottom * height), int(left_share * width) : int(right_share * width)] = True
    return inside


def usual_crops(height: int, width: int) -> tuple[Crop, ...]:
    """The crops that papers use on ground truth of this size: NYU's on 480×640, KITTI's on KITTI's sizes."""
    if (height, width) == (480, 640):
        return ("none", "nyu_eigen")
    sides = zip((height, width), _KITTI_BENCHMARK, _KITTI_LARGEST, strict=True)
    if all(smallest <= side <= largest for side, smallest, largest in sides):
        return ("none", "kitti_garg", "kitti_eigen", "kitti_benchmark", "kitti_benchmark_garg")
    return ("none",)

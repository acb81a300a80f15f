"""How the values stored in a depth file become a target, and which of them are holes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from depth_lightning.data.reading import BrokenError
from depth_lightning.sample import DepthKind
from depth_lightning.settings import SettingError, boolean, number, one_of, optional, several, whole_number
from depth_lightning.wording import significant

MEDIAN_M = (0.01, 200.0)
"""Plausible range of a depth map's median in metres; outside it, the scale is wrong."""


@dataclass(frozen=True)
class DepthEncoding:
    """What a data set declares about its depth files.

    A stored value becomes `stored / depth_scale + depth_offset`: metres, depth up to scale, or disparity, depending on
    `kind`. NaN and infinity are always holes.

    Raises:
        SettingError: a declaration is out of range or contradicts another.
    """

    kind: Literal["metres", "up_to_scale", "disparity"] = "metres"
    """See `DepthKind`."""
    depth_scale: float = 1.0
    """Stored units per metre: 1000 for millimetres, 256 for KITTI."""
    depth_offset: float = 0.0
    """In the unit of the result. With `baseline_m`, the difference of the principal points in pixels, which Middlebury
    calls `doffs`."""
    invalid: float | Sequence[float] | None = 0
    """Stored values that mean a hole; None for none."""
    limits: Sequence[float | None] | None = None
    """(smallest, largest) target, None for no limit; values outside are holes."""
    sky: Literal["ignore", "far"] = "ignore"
    """What pixels that store a `sky_value` become: holes, or valid with disparity 0 or the depth of the far limit."""
    sky_value: float | Sequence[float] | None = None
    """Stored values that mean sky; they take precedence over `invalid`."""
    focal_px: float | None = None
    """Focal length, in pixels of an image of width `focal_width`."""
    focal_width: int | None = None
    """For `ray_distance`: the image width that `focal_px` belongs to; None for the depth map's own."""
    baseline_m: float | None = None
    """Of a stereo pair. Declares that the file stores disparity in pixels, which becomes
    `focal_px · baseline_m / (stored / depth_scale + depth_offset)` metres."""
    ray_distance: bool = False
    """The file stores distances along the ray, not along the optical axis, which passes through the image centre."""

    def __post_init__(self) -> None:
        one_of("kind", self.kind, [member.name.lower() for member in DepthKind])
        above_0 = partial(number, above=0)
        above_0("depth_scale", self.depth_scale)
        number("depth_offset", self.depth_offset)
        for name in ("focal_px", "baseline_m"):
            optional(name, getattr(self, name), above_0)
        optional("focal_width", self.focal_width, whole_number)
        boolean("ray_distance", self.ray_distance)
        for name in ("invalid", "sky_value"):
            declared = getattr(self, name)
            for value in [declared] if isinstance(declared, str) else _values(declared):
                if not (isinstance(value, float) and not math.isfinite(value)):  # those are holes anyway
                    number(name, value)
        if self.limits is not None:
            limit = partial(optional, check=number)
            several("limits", self.limits, 2, "[smallest, largest], null for no limit", limit)
        one_of("sky", self.sky, ("ignore", "far"))
        for name in ("baseline_m", "ray_distance"):
            if getattr(self, name) and self.focal_px is None:
                raise SettingError(name, "needs the focal length: set focal_px=… as well.")
        if self.baseline_m is not None and self.kind != "metres":
            raise SettingError(
                "baseline_m",
                f"turns disparity into metres, but kind={self.kind}. Set kind=metres, or leave the baseline out for "
                "disparity up to scale and shift.",
            )
        if self.ray_distance and self.kind == "disparity":
            raise SettingError("ray_distance", "is about distances, but kind=disparity. Set one of them only.")
        smallest, largest = self._limits()
        if smallest >= largest:
            raise SettingError("limits", f"is [smallest, largest], found {[smallest, largest]}.")
        if self.sky == "far" and self.sky_value is None:
            raise SettingError("sky_value", "is the stored value that means sky, which sky=far needs; found None.")
        if self.sky == "far" and self.kind != "disparity" and largest == np.inf:
            raise SettingError("limits", f"needs a far limit, limits=[null,…], for sky=far with kind={self.kind}.")

    @property
    def depth_kind(self) -> DepthKind:
        """`kind` as the enum that samples carry."""
        return DepthKind[self.kind.upper()]

    def decode(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn (h, w) stored values into the target (h, w) float32, 0 in holes, and its mask.

        Raises:
            BrokenError: the dtype cannot hold depth, or there are depths ≤ 0 that `invalid` does not declare.
        """
        holds_disparity = self.kind == "disparity" or self.baseline_m is not None
        if stored.dtype == np.uint8 and not holds_disparity:
            raise BrokenError(
                "expected depth of 16 bits or float, found 8 bits. An 8-bit picture of a depth map cannot be "
                "turned back into depth; read the original file."
            )
        if not (np.issubdtype(stored.dtype, np.integer) or np.issubdtype(stored.dtype, np.floating)):
            raise BrokenError(f"expected whole or floating-point numbers, found {stored.dtype}.")
        is_sky, is_hole = _is_any(stored, self.sky_value), _is_any(stored, self.invalid)
        mask = np.isfinite(stored) & ~is_sky & ~is_hole
        target = np.where(mask, stored, 0).astype(np.float32) / np.float32(self.depth_scale)
        target += np.float32(self.depth_offset)
        if self.baseline_m is not None and self.focal_px is not None:
            mask &= target > 0
            target = self.focal_px * self.baseline_m / np.where(mask, target, 1)
        if self.ray_distance:
            target = target * self._cosine(*stored.shape)
        smallest, largest = self._limits()
        mask &= (target >= smallest) & (target <= largest)
        if self.kind != "disparity" and not (target[mask] > 0).all():
            stray = np.unique(stored[mask & (target <= 0)])[:4].tolist()
            raise BrokenError(
                f"expected depth above 0 wherever it is valid, found the stored values {stray}. If they mean holes, "
                f"declare them: data.invalid={[*_values(self.invalid), *stray]}."
            )
        target = np.where(mask, target, np.float32(0)).astype(np.float32, copy=False)
        if self.sky == "far":
            if self.kind != "disparity":
                target[is_sky] = largest
            mask |= is_sky
        return target, mask

    def check(self, target: np.ndarray, mask: np.ndarray) -> None:
        """Refuse implausible maps.

        Raises:
            BrokenError: the map is all holes, or its median shows that the scale is wrong.
        """
        valid = target[mask]
        if not valid.size:
            raise BrokenError(
                f"expected some depth, found nothing but holes (data.invalid={_values(self.invalid)}, "
                f"data.limits={list(self._limits())}). Correct these, or leave the sample out."
            )
        if self.kind != "metres":
            return
        median = float(np.median(valid[:: max(1, valid.size // 4096)]))
        found = f"a median of {significant(median, 4)} m with data.depth_scale={self.depth_scale:g}"
        message = f"expected depth in metres, found {found}. "
        if median > MEDIAN_M[1]:
            raise BrokenError(
                f"{message}This looks like millimetres: data.depth_scale={1000 * self.depth_scale:g}? KITTI's is 256."
            )
        if median < MEDIAN_M[0]:
            raise BrokenError(
                f"{message}This looks divided twice: does the file hold metres already, data.depth_scale=1?"
            )

    def _limits(self) -> tuple[float, float]:
        smallest, largest = self.limits or (None, None)
        return -np.inf if smallest is None else smallest, np.inf if largest is None else largest

    def _cosine(self, height: int, width: int) -> np.ndarray:
        """Cosine of the angle between each pixel's ray and the optical axis, (h, w)."""
        assert self.focal_px is not None
        focal = self.focal_px * width / (self.focal_width or width)
        x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / focal
        y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / focal
        cosine: np.ndarray = 1 / np.sqrt(1 + x**2 + y[:, None] ** 2)
        return cosine


def _values(declared: float | Sequence[float] | None) -> list[float]:
    if declared is None:
        return []
    return [declared] if isinstance(declared, int | float) else list(declared)


def _is_any(stored: np.ndarray, declared: float | Sequence[float] | None) -> np.ndarray:
    matches = np.zeros(stored.shape, bool)
    for value in _values(declared):  # one or two values; np.isin would be slower than everything else
        matches |= stored == value
    return matches

"""Point clouds from depth maps: pinhole camera, x right, y down, z forward, in metres."""

from collections.abc import Sequence
from functools import partial
from math import radians, tan
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from depth_lightning.settings import number, several

GRAZING_DEG: Final = 85.0
"""Surfaces seen at a more grazing angle count as the ramp between two objects: flying pixels. A floor 1.5 m below the
camera is kept up to 17 m away."""


class Intrinsics(NamedTuple):
    """A pinhole camera, in pixels; the centre of the first pixel is at (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    def scaled(self, calibrated: tuple[int, int], size: tuple[int, int]) -> "Intrinsics":
        """The intrinsics for images of `size` instead of `calibrated`, both (width, height).

        Raises:
            ValueError: the aspect ratios differ by more than 1 %: the image was cropped, not scaled.
        """
        scale_x, scale_y = size[0] / calibrated[0], size[1] / calibrated[1]
        if abs(scale_x / scale_y - 1) > 0.01:
            raise ValueError(
                f"The intrinsics are for {calibrated[0]}×{calibrated[1]}, and the image is {size[0]}×{size[1]}, of "
                "another aspect: it was cropped, at an unknown position."
            )
        # The image edges scale; pixel centres are half a pixel away from them.
        cx, cy = (self.cx + 0.5) * scale_x - 0.5, (self.cy + 0.5) * scale_y - 0.5
        return Intrinsics(self.fx * scale_x, self.fy * scale_y, cx, cy)


def intrinsics_from_fov(fov_deg: float, width: int, height: int) -> Intrinsics:
    """A camera with a horizontal field of view of `fov_deg` degrees, its axis through the centre of the image.

    Raises:
        SettingError: no pinhole camera has that field of view.
    """
    number("fov_deg", fov_deg, above=0, below=180)
    focal = width / 2 / tan(radians(fov_deg) / 2)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)


def unproject(depth: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """(h, w) depth along the optical axis in metres → (h, w, 3) float32 points."""
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - intrinsics.cx) / intrinsics.fx
    y = (np.arange(height, dtype=np.float32) - intrinsics.cy) / intrinsics.fy
    return np.stack([x * depth, y[:, None] * depth, depth], axis=-1).astype(np.float32)


def flying_pixels(points: np.ndarray) -> np.ndarray:
    """Where (h, w, 3) points lie on a surface seen at more than `GRAZING_DEG`: (h, w) bool.

    What the network and the upsampling draw across the edge of an object is such a surface.
    """
    if min(points.shape[:2]) < 2:
        return np.zeros(points.shape[:2], bool)
    along_y, along_x = (np.gradient(points, axis=axis) for axis in (0, 1))
    normal = np.cross(along_x, along_y)
    lengths = np.linalg.norm(normal, axis=-1) * np.linalg.norm(points, axis=-1)
    cosine = np.abs((normal * points).sum(axis=-1)) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(cosine < np.cos(np.radians(GRAZING_DEG)))


def point_cloud(
    depth: np.ndarray,
    image: np.ndarray,
    intrinsics: Intrinsics,
    max_range_m: float | None = None,
    remove_flying: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The points of an image and their colours.

    Args:
        depth: (h, w) in metres.
        image: (h, w, 3) uint8 RGB.
        intrinsics: for an image of this size.
        max_range_m: drop points deeper than this, such as the sky, which a metric network puts at its max_depth.
        remove_flying: drop `flying_pixels`.

    Returns:
        (n, 3) float32 and (n, 3) uint8.

    Raises:
        ValueError: depth and image differ in size.
    """
    if depth.shape != image.shape[:2]:
        raise ValueError(f"A point cloud needs depth and image of one size, found {depth.shape} and {image.shape}.")
    points = unproject(depth, intrinsics)
    kept = np.isfinite(depth) & (depth > 0)
    if max_range_m is not None:
        kept &= depth <= max_range_m
    if remove_flying:
        kept &= ~flying_pixels(points)
    return points[kept], image[kept]


def write_ply(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """Write (n, 3) float32 points with (n, 3) uint8 colours as binary PLY."""
    vertices = np.empty(len(points), [("point", "<f4", 3), ("colour", "u1", 3)])
    vertices["point"], vertices["colour"] = points, colours
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres; x right, y down, z forward",
        f"element vertex {len(points)}",
        *(f"property float {name}" for name in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(vertices.tobytes())


def parse_intrinsics(values: Sequence[float]) -> Intrinsics:
    """Four numbers fx, fy, cx, cy.

    Raises:
        SettingError: not four numbers, or a focal length that is not positive.
    """
    several("intrinsics", values, 4, "[fx,fy,cx,cy] in pixels", number)
    several("intrinsics", values[:2], 2, "[fx,fy,cx,cy] with focal lengths above 0", partial(number, above=0))
    return Intrinsics(*(float(value) for value in values))

"""Pinhole cameras as arrays (…, 4) of fx, fy, cx, cy in pixels, and how they change with their image.

The centre of the first pixel is at (0, 0), as in OpenCV and in published calibrations; an image of width w therefore
extends from -0.5 to w - 0.5. NaN stands for an unknown camera, and stays NaN through every change. The functions accept
NumPy arrays and tensors, and return new ones.
"""

from math import atan, degrees, radians, tan
from typing import TypeVar

import numpy as np
from torch import Tensor

Intrinsics = TypeVar("Intrinsics", np.ndarray, Tensor)

UNKNOWN = np.full(4, np.nan, np.float32)
"""The intrinsics of an unknown camera; read-only."""
UNKNOWN.setflags(write=False)


def resized(intrinsics: Intrinsics, scale_x: float, scale_y: float) -> Intrinsics:
    """The camera after a resize of the image to `scale_x` times its width and `scale_y` times its height."""
    changed = 1 * intrinsics
    changed[..., 2:] += 0.5  # the edges of the image scale; pixel centres are half a pixel away from them
    changed[..., 0::2] *= scale_x
    changed[..., 1::2] *= scale_y
    changed[..., 2:] -= 0.5
    return changed


def cropped(intrinsics: Intrinsics, left: float, top: float) -> Intrinsics:
    """The camera of the part of the image that starts at column `left` and row `top`."""
    changed = 1 * intrinsics
    changed[..., 2] -= left
    changed[..., 3] -= top
    return changed


def mirrored(intrinsics: Intrinsics, width: int) -> Intrinsics:
    """The camera of the image, `width` pixels wide, after a horizontal flip."""
    changed = 1 * intrinsics
    changed[..., 2] = width - 1 - changed[..., 2]
    return changed


def focal_from_fov(fov_deg: float, pixels: float) -> float:
    """Focal length in pixels of a camera that sees `fov_deg` degrees, between 0 and 180, across `pixels` pixels."""
    return pixels / 2 / tan(radians(fov_deg) / 2)


def fov_from_focal(focal_px: float, pixels: float) -> float:
    """Field of view in degrees across `pixels` pixels, for a principal point in their middle."""
    return degrees(2 * atan(pixels / 2 / focal_px))

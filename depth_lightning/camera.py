"""Pinhole cameras as arrays (…, 4) of fx, fy, cx, cy in pixels, and how they change with their image.

The centre of the first pixel is at (0, 0), as in OpenCV and in published calibrations; an image of width w therefore
extends from -0.5 to w - 0.5. NaN stands for an unknown camera, and stays NaN through every change. The functions accept
NumPy arrays and tensors, and return new ones.
"""

from collections.abc import Sequence
from math import atan, degrees, radians, tan
from typing import TypeVar

import numpy as np
from torch import Tensor

Intrinsics = TypeVar("Intrinsics", np.ndarray, Tensor)

UNKNOWN = np.full(4, np.nan, np.float32)
"""The intrinsics of an unknown camera; read-only."""
UNKNOWN.setflags(write=False)
ASPECT_TOLERANCE = 0.01


def resized(intrinsics: Intrinsics, scale_x: float, scale_y: float) -> Intrinsics:
    """The camera after a resize of the image to `scale_x` times its width and `scale_y` times its height."""
    changed = 1 * intrinsics
    changed[..., 2:] += 0.5  # the edges of the image scale; pixel centres are half a pixel away from them
    changed[..., 0::2] *= scale_x
    changed[..., 1::2] *= scale_y
    changed[..., 2:] -= 0.5
    return changed


def rescaled(intrinsics: Intrinsics, old: tuple[int, int], new: tuple[int, int]) -> Intrinsics:
    """The camera after a resize of the image from the size `old` to `new`, (h, w) each."""
    return resized(intrinsics, new[1] / old[1], new[0] / old[0])


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


def fitted(
    intrinsics: Sequence[float], calibrated: tuple[int, int] | None, size: tuple[int, int], how: str = ""
) -> np.ndarray:
    """The intrinsics, (4,) float32, of an image of `size` (h, w) from those for images of `calibrated`.

    Args:
        intrinsics: fx, fy, cx, cy.
        calibrated: (h, w); None for images of any size, unscaled.
        size: (h, w) of the image.
        how: what to type to state the calibrated size, for the message.

    Raises:
        ValueError: the aspect ratios differ by more than 1 %, so the image was cropped, not scaled; or there is no
            calibrated size, and the principal point is outside the image.
    """
    height, width = size
    own = np.array(intrinsics, np.float32)
    if calibrated is None:
        if not (0 <= own[2] < width and 0 <= own[3] < height):
            raise ValueError(
                f"The intrinsics' principal point ({own[2]:g}, {own[3]:g}) is outside this image of {width}×{height} "
                f"(w×h). State the size of the images that they were calibrated for: {how}"
            )
        return own
    scale_y, scale_x = height / calibrated[0], width / calibrated[1]
    if abs(scale_x / scale_y - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"The intrinsics are for {calibrated[1]}×{calibrated[0]}, and the image is {width}×{height} (w×h), of "
            "another aspect: it was cropped, at an unknown position."
        )
    return rescaled(own, calibrated, size)


def from_fov(fov_deg: float, size: tuple[int, int]) -> np.ndarray:
    """The intrinsics, (4,) float32, of an image of `size` (h, w) whose longer side spans `fov_deg` degrees.

    The pixels are square, and the optical axis passes through the image's centre. Of the longer side, so that a camera
    keeps its focal length upright and across.
    """
    return centred(focal_from_fov(fov_deg, max(size)), size)


def centred(focal_px: float, size: tuple[int, int]) -> np.ndarray:
    """The intrinsics, (4,) float32, of an image of `size` (h, w): square pixels, its axis in the centre."""
    height, width = size
    return np.array([focal_px, focal_px, (width - 1) / 2, (height - 1) / 2], np.float32)


def focal_length(intrinsics: Intrinsics) -> Intrinsics:
    """The focal length in pixels, (…): the geometric mean of fx and fy, which the network's resize sets apart."""
    product: Intrinsics = intrinsics[..., 0] * intrinsics[..., 1]
    return product**0.5


def focal_from_fov(fov_deg: float, pixels: float) -> float:
    """Focal length in pixels of a camera that sees `fov_deg` degrees, between 0 and 180, across `pixels` pixels."""
    return pixels / 2 / tan(radians(fov_deg) / 2)


def fov_from_focal(focal_px: float, pixels: float) -> float:
    """Field of view in degrees across `pixels` pixels, for a principal point in their middle."""
    return degrees(2 * atan(pixels / 2 / focal_px))


def fov_of(intrinsics: np.ndarray, size: tuple[int, int]) -> float:
    """Field of view in degrees across the longer side of an image of `size` (h, w); NaN if the camera is unknown."""
    height, width = size
    return fov_from_focal(float(intrinsics[0 if width >= height else 1]), max(size))

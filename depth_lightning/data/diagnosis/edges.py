"""Whether image and depth map are aligned: where depth jumps, the image tends to have an edge."""

from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np

WIDTH: Final = 160
"""Width of the small maps that are compared, in pixels."""
REACH: Final = 20
"""Largest shift that is tried in each direction, in pixels of the small maps: an eighth of the width."""


def _transposed(small: np.ndarray) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(small.T), small.shape[::-1])


ORIENTATIONS: Final[Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "as it is": lambda small: small,
    "mirrored left to right": lambda small: small[:, ::-1],
    "upside down": lambda small: small[::-1],
    "turned by 180°": lambda small: small[::-1, ::-1],
    "transposed": _transposed,
    "turned by 90° clockwise": lambda small: _transposed(small)[::-1],
    "turned by 90° counterclockwise": lambda small: _transposed(small)[:, ::-1],
}
NEAR: Final = 3
"""Tolerated shift between depth and image in pixels of the small maps, 2 % of the width."""


def agreement(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Correlation of the edges of image and depth map for each orientation and shift of the depth map.

    Args:
        image: (h, w, 3) uint8.
        target: (h', w'), positive where valid; depth or disparity.
        mask: (h', w') bool.

    Returns:
        (orientations, 2 · REACH + 1, 2 · REACH + 1): how well the edges agree, in [−1, 1], when the depth map is moved
        down and to the right by the index − REACH. All 0 if there is nothing to compare.
    """
    height = max(2 * REACH, round(WIDTH * image.shape[0] / image.shape[1]))
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (WIDTH, height), interpolation=cv2.INTER_AREA)
    depth = _small(target, mask, height)
    size = (2 * height, 2 * WIDTH)
    image_spectrum = np.fft.rfft2(_edges(grey.astype(np.float32)), size)
    agreements = np.zeros((len(ORIENTATIONS), 2 * REACH + 1, 2 * REACH + 1), np.float32)
    if depth is not None:
        for number, turned in enumerate(ORIENTATIONS.values()):
            spectrum = np.fft.rfft2(_edges(np.ascontiguousarray(turned(depth))), size)
            correlation = np.roll(np.fft.irfft2(np.conj(spectrum) * image_spectrum, size), (REACH, REACH), (0, 1))
            agreements[number] = correlation[: 2 * REACH + 1, : 2 * REACH + 1]
    return agreements


def surely(gains: np.ndarray) -> bool:
    """Whether the gain of one hypothesis over another, per image, is significant: three standard errors."""
    return bool(gains.mean() > 3 * max(float(gains.std()), 0.05) / np.sqrt(len(gains)))


def _small(target: np.ndarray, mask: np.ndarray, height: int) -> np.ndarray | None:
    """log of the target at (height, WIDTH), holes filled with the nearest value; None without a valid pixel."""
    log = np.where(mask, np.log(np.where(mask, target, 1)), 0).astype(np.float32)
    how = cv2.INTER_AREA if target.shape[1] >= WIDTH else cv2.INTER_NEAREST
    total, weight = (
        cv2.resize(values, (WIDTH, height), interpolation=how) for values in (log, mask.astype(np.float32))
    )
    known = weight > 1e-4
    if not known.any():
        return None
    small = total / np.maximum(weight, 1e-4)
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(nearest.max() + 1, np.float32)
    values[nearest[known]] = small[known]
    filled: np.ndarray = values[nearest]
    return filled


def _edges(small: np.ndarray) -> np.ndarray:
    """Edge strength relative to the surroundings, of norm 1."""
    strength = np.sqrt(np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)))
    strength -= cv2.blur(strength, (31, 31))
    edges: np.ndarray = strength / (np.linalg.norm(strength) + 1e-6)
    return edges

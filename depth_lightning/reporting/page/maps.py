"""Compact encoding of numeric maps, quantised, differenced and deflated, which a browser decodes without a library.

`decodeMap` in data.js reads them.
"""

import zlib
from math import sqrt
from typing import Final, NamedTuple

import cv2
import numpy as np

STEPS: Final = 2**14
"""Quantisation steps of a large map, over its own range: 0.6 mm per step if it spans 10 m."""
SMALL_STEPS: Final = 2**12


class QuantisedMap(NamedTuple):
    """A map whose pixel with code c > 0 is low + (c − 1) · step, and which has no value if c is 0."""

    data: bytes
    """Deflated: the differences of the codes in reading order, folded to 0, 1, 2, … for 0, −1, 1, …; first all high
    bytes, then all low ones."""
    low: float
    step: float


def quantise(values: np.ndarray, known: np.ndarray, steps: int = STEPS) -> QuantisedMap:
    """Quantise (h, w) values where (h, w) `known` is True; the error is at most half a step.

    Args:
        values: finite where known.
        known: bool.
        steps: number of steps in the map's range, at most 2¹⁵ − 2.
    """
    inside = values[known].astype(np.float64)
    low, high = (inside.min(), inside.max()) if inside.size else (0.0, 0.0)
    step = float(high - low) / steps
    codes = np.zeros(values.shape, np.int32)
    codes[known] = 1 + (np.rint((inside - low) / step) if step else 0)
    differences = np.diff(codes.ravel(), prepend=0)
    folded = np.where(differences < 0, -2 * differences - 1, 2 * differences).astype(">u2")
    planes = folded.view(np.uint8).reshape(-1, 2).T
    return QuantisedMap(zlib.compress(planes.tobytes(), 6), float(low), step)


def reduced_pixels(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The pixels that represent a map when it is drawn with about `pixels`: (h', w') indices into the flattened map.

    Each is the valid pixel nearest to the centre of its block, so that single LiDAR points remain and every value is an
    original one. In a block without a valid pixel, it is the centre.

    Args:
        mask: (h, w) bool, True where the truth is valid.
        pixels: a map with at most this many keeps all of them.
    """
    height, width = mask.shape
    share = min(1.0, sqrt(pixels / mask.size))
    rows, columns = max(1, round(height * share)), max(1, round(width * share))
    row = ((np.arange(rows) + 0.5) * height / rows).astype(np.intp)[:, None]
    column = ((np.arange(columns) + 0.5) * width / columns).astype(np.intp)
    chosen: np.ndarray = row * width + column
    if (rows, columns) == (height, width) or mask.all() or not mask.any():
        return chosen
    label = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    valid_pixel = np.zeros(label.max() + 1, np.intp)
    valid_pixel[label[mask]] = np.flatnonzero(mask)
    nearest = valid_pixel[label[row, column]]
    in_block = (abs(nearest // width - row) <= height / rows / 2) & (
        abs(nearest % width - column) <= width / columns / 2
    )
    return np.asarray(np.where(in_block, nearest, chosen))

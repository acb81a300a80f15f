"""Near-duplicates: images that show the same view, found by a difference hash and confirmed on small copies."""

from typing import Final, NamedTuple

import cv2
import numpy as np

MAX_BITS: Final = 40
"""Largest distance of two hashes of 256 bits; scaled, brightened and compressed copies differ by up to 30, other views
by 48."""
MIN_CORRELATION: Final = 0.97
"""Least correlation of the small copies; duplicates have 0.99, other views of the same room up to 0.94."""


class Fingerprint(NamedTuple):
    """What is kept of an image to find its duplicates."""

    bits: np.ndarray
    """(4,) uint64: whether brightness rises from each of 16 × 17 cells to the next in its row."""
    small: np.ndarray
    """(1024,) float32: 32 × 32 grey, of mean 0 and norm 1."""


def fingerprint(image: np.ndarray) -> Fingerprint:
    """The fingerprint of an (h, w, 3) uint8 image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint64)
    small = cv2.resize(grey.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    return Fingerprint(bits, small / (np.linalg.norm(small) + 1e-6))


def near_duplicates(first: list[Fingerprint], second: list[Fingerprint]) -> list[tuple[int, int, float]]:
    """Index pairs of images in `first` and `second` that show the same view, and their correlation, highest first."""
    if not first or not second:
        return []
    second_bits = np.stack([print_.bits for print_ in second])
    pairs = []
    for i, print_ in enumerate(first):
        distance = np.bitwise_count(second_bits ^ print_.bits).sum(axis=1)
        for j in np.flatnonzero(distance <= MAX_BITS).tolist():
            correlation = float(print_.small @ second[j].small)
            if correlation >= MIN_CORRELATION:
                pairs.append((i, j, correlation))
    return sorted(pairs, key=lambda pair: -pair[2])

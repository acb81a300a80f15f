"""Measurements of one sample, compact enough to keep for every sample of a data set."""

from typing import Final, NamedTuple

import numpy as np

from depth_lightning.data.bad_samples import check_arrays, path_of
from depth_lightning.data.diagnosis.duplicates import Fingerprint, fingerprint
from depth_lightning.data.diagnosis.edges import agreement
from depth_lightning.data.diagnosis.planes import Plane, flat_windows
from depth_lightning.sample import DepthDataset, DepthKind, DepthSample

HISTOGRAM: Final = np.geomspace(1e-3, 1e5, 401)
"""Bin edges of depth histograms: 50 per decade."""


class Facts(NamedTuple):
    """Measurements of one readable sample."""

    number: int
    """Its index in the data set."""
    id: str
    scene: str
    kind: DepthKind
    image_size: tuple[int, int]
    target_size: tuple[int, int]
    intrinsics: np.ndarray
    """(4,) of the image; NaN if unknown."""
    refused: str
    """Why training refuses the sample, if it does."""
    valid_pixels: int
    median: float
    """Median of the valid target; NaN without a valid pixel."""
    largest: float
    histogram: np.ndarray
    """(400,) counts of valid pixels in the bins of `HISTOGRAM`."""
    levels: int
    """How many levels an 8-bit picture would need to hold this map exactly; 0 if it cannot be one."""
    spike: float
    """Share of the valid pixels that hold the largest value, if that is isolated from all others; else 0."""
    contrast: float
    """Standard deviation of the image's brightness, of 255."""
    fingerprint: Fingerprint
    planes: list[Plane] | None
    """None where the sample was not examined in detail."""
    agreement: np.ndarray | None
    """See `agreement`; None as before."""


class Unreadable(NamedTuple):
    """A sample that could not be read."""

    number: int
    path: str
    reason: str


def examine(source: DepthDataset, index: int, detailed: bool, focal: float | None = None) -> Facts | Unreadable:
    """Read sample `index` and measure it.

    Args:
        source: its `read(index)`, if it has one, is used for samples that indexing refuses.
        index: index of the sample.
        detailed: whether to examine planes and edges, which takes longer than reading.
        focal: focal length over the width of the image, for the planes; None if unknown.
    """
    refused = ""
    try:
        sample = source[index]
        check_arrays(sample)
    except (OSError, ValueError) as error:
        refused = " ".join(str(error).split())
        read = getattr(source, "read", None)
        try:
            if read is None:
                raise
            sample = read(index)
        except (OSError, ValueError):
            return Unreadable(index, path_of(source, index), refused)
    return _measure(sample, index, detailed, focal, refused)


def _measure(sample: DepthSample, index: int, detailed: bool, focal: float | None, refused: str) -> Facts:
    valid = sample.target[sample.mask]
    positive = sample.mask & (sample.target > 0)
    levels, counts = np.unique(valid, return_counts=True)
    planes = edges = None
    if detailed:
        is_disparity = sample.kind == DepthKind.DISPARITY
        safe = np.where(positive, sample.target, 1)
        planes = flat_windows(1 / safe if is_disparity else safe, positive, focal)
        edges = agreement(sample.image, sample.target, positive)
    return Facts(
        number=index,
        id=sample.id,
        scene=sample.scene,
        kind=sample.kind,
        image_size=(sample.image.shape[0], sample.image.shape[1]),
        target_size=(sample.target.shape[0], sample.target.shape[1]),
        intrinsics=sample.intrinsics,
        refused=refused,
        valid_pixels=valid.size,
        median=float(np.median(valid)) if valid.size else np.nan,
        largest=float(levels[-1]) if valid.size else np.nan,
        histogram=np.histogram(valid, HISTOGRAM)[0],
        levels=_levels_of_8_bits(levels) if valid.size >= 1000 else 0,
        spike=counts[-1] / valid.size if len(levels) > 1 and levels[-1] > 1.1 * levels[-2] else 0.0,
        contrast=float(sample.image.std()),
        fingerprint=fingerprint(sample.image),
        planes=planes,
        agreement=edges,
    )


def _levels_of_8_bits(values: np.ndarray) -> int:
    """Number of levels if the sorted distinct values lie on at most 256 evenly spaced levels, else 0.

    A Kinect's levels are few too, but its steps grow with the square of the depth.
    """
    if not 2 <= len(values) <= 256:
        return 0
    steps = (values - values[0]).astype(np.float64) / np.diff(values).min()
    return round(steps[-1]) + 1 if steps[-1] < 256 and np.abs(steps - steps.round()).max() < 0.05 else 0

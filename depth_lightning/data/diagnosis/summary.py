"""Summary statistics of a split."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from depth_lightning.data.diagnosis.cameras import fields_of_view
from depth_lightning.data.diagnosis.facts import HISTOGRAM, Facts, Unreadable
from depth_lightning.sample import DepthKind

NICE_DEPTHS_M: Final = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000)


class Summary(NamedTuple):
    """Statistics of the readable samples of a split."""

    samples: int
    """All samples, readable or not."""
    readable: int
    scenes: int
    """0 if no scene is known."""
    kind: str
    """Name of the `DepthKind`."""
    image_sizes: dict[str, int]
    """"640×480" (w×h) → images, the commonest first."""
    target_sizes: dict[str, int]
    fov_deg: tuple[float, float, float] | None
    """Least, median and largest field of view of the longer side, in degrees; None if no camera is known."""
    valid_share: float
    """Median over the maps; NaN without any."""
    quantiles: tuple[float, float, float]
    """0.1 %, 50 % and 99.9 % quantiles of the valid targets of all maps, to within a histogram bin (5 %)."""
    suggested_max_depth: float | None
    """In metres, see `suggest_max_depth`."""
    beyond: float
    """Share of the valid pixels beyond `suggested_max_depth`."""
    histogram: np.ndarray
    """(400,) counts in the bins of `HISTOGRAM`."""


def summarise(measured: Sequence[Facts | Unreadable]) -> Summary:
    """Summarise a split."""
    facts = [one for one in measured if isinstance(one, Facts)]
    histogram = sum((one.histogram for one in facts), np.zeros(len(HISTOGRAM) - 1, np.int64))
    shares = [one.valid_pixels / (one.target_size[0] * one.target_size[1]) for one in facts]
    kinds, angles = {one.kind for one in facts}, fields_of_view(facts)
    suggested = None
    if kinds == {DepthKind.METRES}:
        suggested = suggest_max_depth(histogram, float(np.nanmax([one.largest for one in facts])))
    return Summary(
        samples=len(measured),
        readable=len(facts),
        scenes=len({one.scene for one in facts} - {""}),
        kind=" and ".join(kind.name.lower().replace("_", " ") for kind in sorted(kinds)),
        image_sizes=_sizes([one.image_size for one in facts]),
        target_sizes=_sizes([one.target_size for one in facts]),
        fov_deg=None if not angles.size else (float(angles.min()), float(np.median(angles)), float(angles.max())),
        valid_share=float(np.median(shares)) if shares else np.nan,
        quantiles=(quantile(histogram, 0.001), quantile(histogram, 0.5), quantile(histogram, 0.999)),
        suggested_max_depth=suggested,
        beyond=share_beyond(histogram, suggested) if suggested else 0.0,
        histogram=histogram,
    )


def quantile(histogram: np.ndarray, share: float) -> float:
    """Geometric centre of the bin of `HISTOGRAM` in which this quantile lies; NaN for an empty histogram."""
    if not histogram.any():
        return np.nan
    bin_ = int(np.searchsorted(np.cumsum(histogram) / histogram.sum(), share))
    return float(np.sqrt(HISTOGRAM[bin_] * HISTOGRAM[bin_ + 1]))


def suggest_max_depth(histogram: np.ndarray, largest: float) -> float | None:
    """A round depth in metres that at most 0.1 % of the valid pixels exceed.

    Args:
        histogram: of the valid pixels.
        largest: of their values.
    """
    bins = np.flatnonzero(np.cumsum(histogram) >= 0.999 * histogram.sum())
    reached = min(largest, HISTOGRAM[bins[0] + 1]) if histogram.any() else np.inf
    return next((float(nice) for nice in NICE_DEPTHS_M if nice >= reached), None)


def share_beyond(histogram: np.ndarray, depth: float) -> float:
    """The share of the valid pixels in the bins of `HISTOGRAM` from `depth` on."""
    return float(histogram[HISTOGRAM[:-1] >= depth].sum() / histogram.sum())


def _sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, int]:
    return {f"{width}×{height}": count for (height, width), count in Counter(sizes).most_common()}

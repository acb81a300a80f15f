"""Confidence intervals of averages over images: studentised bootstrap intervals (Efron, 1979; Hall, 1988).

Frames of one scene are correlated, so scenes are resampled instead of images where they are known (cluster bootstrap).
Errors are skewed to the right: in simulations at a nominal 95 %, percentile and BCa intervals cover the true mean in
93 % of cases with 65 images and in 90 % with 20 scenes, studentised ones in 94 % (93 % where scenes differ tenfold in
size). From a few hundred images on, all perform alike.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MIN_UNITS = 5
"""Fewer independent images or scenes are too few to estimate their variation."""
DRAWS = 10_000
_CHUNK_BYTES = 2**26


class Intervals(NamedTuple):
    """Confidence intervals of several metrics."""

    bounds: dict[str, tuple[float, float]]
    """Name → lower and upper bound; NaN where there are too few units."""
    units: str
    """What was resampled: "images" or "scenes"."""
    total: int
    """The number of units."""


class Units(NamedTuple):
    """The units of resampling: images, or scenes with all of their images."""

    name: str
    """"images" or "scenes"."""
    of_image: np.ndarray
    """(n,) the index of each image's unit, from 0."""
    total: int


def units_of(scenes: Sequence[str]) -> Units:
    """Scenes if there are at least `MIN_UNITS`, else images; an image without a scene is its own unit.

    >>> units_of(["", "", ""]).name, units_of(["a", "a", "b", "c", "d", "e"]).total
    ('images', 5)
    """
    labels = [scene or f"\0{image}" for image, scene in enumerate(scenes)]
    if any(scenes):
        distinct, of_image = np.unique(np.array(labels, dtype=object), return_inverse=True)
        if len(distinct) >= MIN_UNITS:
            return Units("scenes", of_image, len(distinct))
    return Units("images", np.arange(len(labels)), len(labels))


def mean_intervals(
    values: np.ndarray,
    units: Units,
    weights: np.ndarray | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Confidence intervals of the columns' (weighted) means.

    Args:
        values: (n, m), a row per image; the intervals are clipped to their range.
        units: what is drawn with replacement.
        weights: (n,) weights of the images in the mean, such as their valid pixels; uniform by default.
        confidence: nominal coverage of an interval.
        draws: number of bootstrap draws.
        seed: the same seed gives the same intervals.

    Returns:
        (m, 2) lower and upper bounds; NaN with fewer than `MIN_UNITS` units, or where a value is not finite.
    """
    intervals = np.full((values.shape[1], 2), np.nan)
    columns = np.isfinite(values).all(axis=0)
    if units.total < MIN_UNITS or not columns.any():
        return intervals
    values, weights = values[:, columns], np.ones(len(values)) if weights is None else weights
    sizes = _unit_sums(weights[:, None], units)  # (u, 1)
    mean = (values * weights[:, None]).sum(axis=0) / sizes.sum()
    deviations = _unit_sums((values - mean) * weights[:, None], units)  # (u, m)
    error = np.sqrt((deviations**2).sum(axis=0)) / sizes.sum()
    # The mean and standard error of each draw come from sums, all given by one product with its counts.
    terms = np.concatenate([sizes, sizes**2, deviations, deviations**2, deviations * sizes], axis=1)
    drawn = np.concatenate([counts @ terms for counts in _draws(units.total, draws, seed)])
    size, square_size = drawn[:, :1], drawn[:, 1:2]
    sums, squares, products = np.split(drawn[:, 2:], 3, axis=1)
    moved = sums / size
    errors = np.sqrt(np.maximum(squares - 2 * moved * products + moved**2 * square_size, 0)) / size
    # If few units differ from the rest, a draw may miss them and have no spread; a floor keeps it from dominating.
    studentised = moved / np.maximum(errors, 0.3 * error + np.finfo(float).tiny)
    tail = (1 - confidence) / 2
    low, high = np.quantile(studentised, [1 - tail, tail], axis=0)
    bounds = np.stack([mean - low * error, mean - high * error], axis=1)
    intervals[columns] = np.clip(bounds, values.min(axis=0)[:, None], values.max(axis=0)[:, None])
    return intervals


def _unit_sums(values: np.ndarray, units: Units) -> np.ndarray:
    sums = np.zeros((units.total, values.shape[1]))
    np.add.at(sums, units.of_image, values)
    return sums


def _draws(count: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is in each draw, (some, count) float64 at a time."""
    rng = np.random.default_rng(seed)
    some = max(1, _CHUNK_BYTES // (8 * count))
    for start in range(0, draws, some):
        size = min(some, draws - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(float)

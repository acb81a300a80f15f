"""Whether one run is better than another: tests on the differences between their errors on the same images.

The test flips signs (Fisher, 1935): if two runs are equally good, each image's difference (or its sum over a scene,
where scenes are known) could as well have the opposite sign. No distribution of the errors is assumed.
"""

from collections.abc import Iterator

import numpy as np

from depth_lightning.metrics.intervals import Units

FLIPS = 10_000
_CHUNK = 500


def sign_flip_test(differences: np.ndarray, units: Units, flips: int = FLIPS, seed: int = 0) -> np.ndarray:
    """(m,) two-sided p values for (n, m) differences having mean 0: `sign_flip_pairs` of each column and zero."""
    alone = [
        sign_flip_pairs(np.stack([column, 0 * column], axis=1), units, flips, seed)[0, 1] for column in differences.T
    ]
    return np.array(alone)


def sign_flip_pairs(values: np.ndarray, units: Units, flips: int = FLIPS, seed: int = 0) -> np.ndarray:
    """(r, r) two-sided p values for all pairs of r runs, from their (n, r) errors on n images.

    Uses every pattern of signs if there are at most `flips` of them, else `flips` patterns drawn with a fixed seed.
    """
    sums = np.zeros((units.total, values.shape[1]))
    np.add.at(sums, units.of_image, values)
    observed = sums.sum(axis=0)
    apart = np.abs(observed[:, None] - observed)
    reached, tried = np.zeros(apart.shape), 0
    for signs in _signs(units.total, flips, seed):
        flipped = signs @ sums  # linear, so the differences of flipped runs are the flipped differences
        tried += len(signs)
        for run in range(values.shape[1]):
            # Equal up to rounding counts as reached.
            least = apart[run] * (1 - 1e-9) - 1e-12
            reached[run] += (np.abs(flipped[:, run, None] - flipped) >= least).sum(axis=0)
    if 2**units.total <= flips:
        return reached / tried
    return (1 + reached) / (1 + tried)


def holm(p_values: np.ndarray) -> np.ndarray:
    """(k,) p values corrected for k tests (Holm, 1979): at 0.05, no false rejection among them in 95 % of cases."""
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values, dtype=float)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected


def _signs(units: int, flips: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of −1 and 1, (some, units) at a time."""
    if 2**units <= flips:
        yield 2.0 * (np.arange(2**units)[:, None] >> np.arange(units) & 1) - 1
        return
    rng = np.random.default_rng(seed)
    for start in range(0, flips, _CHUNK):
        yield rng.integers(0, 2, (min(_CHUNK, flips - start), units)) * 2.0 - 1

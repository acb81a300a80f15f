"""Whether predictions are wrong, or only wrongly scaled: a correction fitted on one half and tested on the other."""

from typing import Any

import numpy as np

from depth_lightning.metrics.intervals import Units

_MOST_POINTS = 200_000
_ROUNDS = 30


def corrections(prediction: np.ndarray, target: np.ndarray, units: Units, min_depth: float) -> list[dict[str, Any]]:
    """Errors without a correction, with one factor, and with one factor and offset for all images.

    Both corrections minimise abs_rel over one half of the units (scenes if known) and are tested on the other half, and
    vice versa, so that every image is scored with a correction fitted on other images.

    Args:
        prediction: (n, k) positive depth at k pixels of each image.
        target: (n, k).
        units: the images or scenes to split in half.
        min_depth: lower bound of corrected predictions.

    Returns:
        One row per correction: abs_rel, rmse and delta1 averaged over images, and the two fits. Empty with fewer than
        two units.
    """
    if units.total < 2:
        return []
    first = np.isin(units.of_image, np.random.default_rng(0).permutation(units.total)[: units.total // 2])
    rows = []
    for name, fit in {"none": _identity, "scale": fit_scale, "scale and offset": fit_scale_offset}.items():
        corrected, fits = np.empty(prediction.shape), []
        for half in (first, ~first):
            scale, offset = fit(*_thinned(prediction[half].ravel(), target[half].ravel()))
            corrected[~half] = np.maximum(scale * prediction[~half] + offset, min_depth)
            fits.append((scale, offset))
        ratio = corrected / target
        errors = {
            "abs_rel": np.abs(ratio - 1).mean(axis=1),
            "rmse": np.sqrt(np.square(corrected - target).mean(axis=1)),
            "delta1": (np.maximum(ratio, 1 / ratio) < 1.25).mean(axis=1),
        }
        rows.append(
            {
                "correction": name,
                **{error: float(values.mean()) for error, values in errors.items()},
                "scales": [scale for scale, _ in fits],
                "offsets": [offset for _, offset in fits],
            }
        )
    return rows


def fit_scale(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """The a that minimises Σ |a·p − t| / t, a weighted median of t / p, and the offset 0."""
    ratios = target / prediction
    order = np.argsort(ratios)
    weights = np.cumsum(1 / ratios[order])
    return float(ratios[order[np.searchsorted(weights, weights[-1] / 2)]]), 0.0


def fit_scale_offset(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """The a, b that approximately minimise Σ |a·p + b − t| / t, by reweighted least squares (Schlossmacher, 1973).

    Constant predictions do not determine an offset and get the result of `fit_scale`.
    """
    scale, offset = fit_scale(prediction, target)
    if np.ptp(prediction) <= 1e-5 * prediction.mean():
        return scale, offset
    terms, ones = np.stack([prediction, np.ones_like(prediction)]) / target, np.ones_like(target)
    for _ in range(_ROUNDS):
        residuals = np.abs(scale * terms[0] + offset * terms[1] - ones)
        weighted = terms / np.maximum(residuals, 1e-4)
        scale, offset = np.linalg.solve(weighted @ terms.T, weighted @ ones).tolist()
    return scale, offset


def _identity(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    return 1.0, 0.0


def _thinned(*points: np.ndarray) -> list[np.ndarray]:
    step = -(-len(points[0]) // _MOST_POINTS)
    return [values[::step] for values in points]

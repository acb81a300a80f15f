"""Bringing a network to the metres of a few labelled images: one factor, or scale and shift of its disparity.

Everything is measured in the logarithm of depth, where too near and too far count alike. A tenth of the truth may be
wrong: the factor is a mean over images of what is left when outliers are dropped; scale and shift start from the best
of many exact fits to two points each (least median of squares, Rousseeuw, 1984).
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from depth_lightning.evaluation.observations import Observations
from depth_lightning.metrics.intervals import MIN_UNITS, Units, mean_intervals, units_of

Kind = Literal["none", "factor", "affine_disparity"]
Fit = tuple[float, float]
"""The factor and 0, or scale and shift of disparity in 1/m."""

FOLDS = 5
CERTAINTY = 0.999
"""Confidence at which a factor's interval must exclude 1 for the factor to be applied."""
WORTH = 0.05
"""Share by which it must lower the error of held-out images."""
OUTLIER = 3 * 1.4826
"""A value is an outlier beyond so many median absolute deviations from the median: 3 standard deviations if normal."""
APART = 1.1
"""Groups of images disagree if their factors differ by this ratio, beyond their intervals."""
_PAIRS = 500
_MOST_POINTS = 20_000


class Group(NamedTuple):
    """Images of one scene or camera, and the factor that would serve them."""

    name: str
    factor: float
    interval: tuple[float, float]
    images: int


class Calibration(NamedTuple):
    """What was fitted, and whether it helps."""

    kind: Kind
    """"none": the network is better left as it is."""
    relative: bool
    """Whether scale and shift of disparity were fitted, not a factor."""
    fit: Fit
    """What was fitted, even if it does not help."""
    interval: tuple[float, float]
    """95 % of the factor; NaN for scale and shift, and with fewer than `MIN_UNITS` images."""
    before: dict[str, float]
    """Errors of the network as it is, averaged over images; of a relative network, those of a constant depth."""
    after: dict[str, float]
    """Errors of images that the fit did not see; those of `before` if a factor does not help."""
    units: Units
    """What was held out together."""
    outliers: tuple[str, ...]
    """Images, or points, whose own factor is far from the others', which then does not count."""
    apart: tuple[Group, ...]
    """The two cameras or scenes that disagree most about the factor; empty if none do."""


def calibrate(seen: Observations, relative: bool, max_depth: float) -> Calibration:
    """Fit a factor, or for a relative network scale and shift, and decide by cross-validation whether it helps.

    Args:
        seen: predictions and truth; with fewer than `MIN_UNITS` images every pixel counts as an image of its own.
        relative: whether predictions are disparity.
        max_depth: bound of the depth that is made from disparity, in metres.

    Raises:
        ValueError: there is too little truth, or disparity does not grow with nearness.
    """
    by_pixel = len(seen.scene) < MIN_UNITS
    seen = _pixel_by_pixel(seen) if by_pixel else seen
    count = len(seen.scene)
    if count < MIN_UNITS:
        raise ValueError(f"Calibration needs {MIN_UNITS} measured distances or more, found {count}.")
    fit_to, apply = (fit_disparity, _from_disparity) if relative else (fit_factor, _times)
    units = units_of(seen.scene)
    fit = fit_to(seen)
    plain = _errors(_held_out(seen, units, constant if relative else _identity, _times, max_depth), seen)
    corrected = _errors(_held_out(seen, units, fit_to, apply, max_depth), seen)
    gain = plain["log_error"] - corrected["log_error"]
    left = _per_image(np.log(seen.depth_m / apply(seen.prediction, fit, max_depth)), seen)
    if relative:
        interval, overall = (np.nan, np.nan), 1.0
        helps = bool(mean_intervals(gain[:, None], units)[0, 0] > 0)
    else:
        interval, overall = _interval(fit[0], left, seen.scene), fit[0]
        low, high = _interval(fit[0], left, seen.scene, CERTAINTY)
        helps = bool((low > 1 or high < 1) and gain.mean() > WORTH * plain["log_error"].mean())
    before, after = ({name: float(values.mean()) for name, values in errors.items()} for errors in (plain, corrected))
    kind: Kind = "none" if not helps else "affine_disparity" if relative else "factor"
    return Calibration(
        kind=kind,
        relative=relative,
        fit=fit,
        interval=(np.nan, np.nan) if by_pixel else interval,  # points of one image are alike
        before=before,
        after=after if helps or relative else before,
        units=units._replace(name="points") if by_pixel else units,
        outliers=tuple(seen.id[image] for image in np.flatnonzero(~inliers(left)).tolist()),
        apart=_apart(seen, overall, left),
    )


def fit_factor(seen: Observations) -> Fit:
    """The factor from prediction to truth: the geometric mean of the images' own, without outliers at either step."""
    per_image = _per_image(np.log(seen.depth_m / seen.prediction), seen)
    return float(np.exp(per_image[inliers(per_image)].mean())), 0.0


def fit_disparity(seen: Observations) -> Fit:
    """Scale and shift, 1 / (scale · disparity + shift) ≈ depth_m, over all images together.

    Raises:
        ValueError: no positive scale fits two of the points.
    """
    disparity, depth_m = _thinned(seen.prediction, seen.depth_m)
    inverse = 1 / depth_m
    one, other = np.random.default_rng(0).integers(len(inverse), size=(2, _PAIRS))
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (inverse[one] - inverse[other]) / (disparity[one] - disparity[other])
    shifts = inverse[one] - scales * disparity[one]
    usable = np.isfinite(scales) & (scales > 0)
    if not usable.any():
        raise ValueError(
            "The network's disparity does not grow with nearness in this data: no scale above 0 fits. Is the truth in "
            "metres, and of these images?"
        )
    floor = inverse.min() / 2  # a fit may be negative far away, which has no logarithm

    def residuals(scale: float, shift: float) -> np.ndarray:
        logarithms: np.ndarray = np.log(np.maximum(scale * disparity + shift, floor) * depth_m)
        return logarithms

    candidates = np.stack([scales, shifts], axis=1)[usable]
    scale, shift = min(candidates.tolist(), key=lambda fit: float(np.median(np.abs(residuals(*fit)))))
    for _ in range(10):
        left = residuals(scale, shift)
        kept = np.abs(left) <= OUTLIER * np.median(np.abs(left))
        # Least squares of relative errors: each point is divided by its own fitted value.
        weights = 1 / np.maximum(scale * disparity + shift, floor)[kept]
        terms = np.stack([disparity[kept], np.ones(kept.sum())]) * weights
        refined, *_ = np.linalg.lstsq(terms.T, inverse[kept] * weights, rcond=None)
        if not refined[0] > 0:
            break
        scale, shift = refined.tolist()
    return scale, shift


def constant(seen: Observations) -> Fit:
    """A fit that predicts the median truth everywhere: `_times` of it ignores the prediction."""
    return 0.0, float(np.exp(np.median(np.log(seen.depth_m))))


def inliers(values: np.ndarray) -> np.ndarray:
    """Which values are no outliers: within `OUTLIER` median absolute deviations of the median."""
    distance = np.abs(values - np.median(values))
    kept: np.ndarray = distance <= OUTLIER * np.median(distance)
    return kept


def _identity(seen: Observations) -> Fit:
    return 1.0, 0.0


def _times(prediction: np.ndarray, fit: Fit, max_depth: float) -> np.ndarray:
    return fit[0] * prediction + fit[1]


def _from_disparity(prediction: np.ndarray, fit: Fit, max_depth: float) -> np.ndarray:
    metres: np.ndarray = 1 / np.maximum(fit[0] * prediction + fit[1], 1 / max_depth)
    return metres


def _held_out(
    seen: Observations,
    units: Units,
    fit_to: Callable[[Observations], Fit],
    apply: Callable[[np.ndarray, Fit, float], np.ndarray],
    max_depth: float,
) -> np.ndarray:
    """(n,) metres: every unit's with a fit to the units of other folds."""
    fold = np.random.default_rng(0).permutation(units.total)[units.of_image] % FOLDS
    metres = np.empty(len(seen.prediction))
    for number in range(FOLDS):
        held = fold[seen.image] == number
        metres[held] = apply(seen.prediction[held], fit_to(seen.of_images(fold != number)), max_depth)
    return metres


def _errors(metres: np.ndarray, seen: Observations) -> dict[str, np.ndarray]:
    """Name → (images,) error. `log_error`, E[|ln p − ln t|], decides."""
    ratio = metres / seen.depth_m
    of_pixels = {
        "abs_rel": np.abs(ratio - 1),
        "rmse": np.square(metres - seen.depth_m),
        "delta1": (np.maximum(ratio, 1 / ratio) < 1.25).astype(float),
        "log_error": np.abs(np.log(ratio)),
    }
    pixels = np.bincount(seen.image)
    errors = {name: np.bincount(seen.image, values) / pixels for name, values in of_pixels.items()}
    return {**errors, "rmse": np.sqrt(errors["rmse"])}


def _per_image(values: np.ndarray, seen: Observations) -> np.ndarray:
    """The mean of each image's values that are no outliers, for the images that have a pixel here."""
    _, counts = np.unique(seen.image, return_counts=True)
    parts = np.split(values[np.argsort(seen.image, kind="stable")], np.cumsum(counts)[:-1])
    return np.array([part[inliers(part)].mean() for part in parts])


def _interval(factor: float, left: np.ndarray, scenes: Sequence[str], confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of a factor, from the (images,) logarithms of what is left of each image's own when it is applied."""
    kept = inliers(left)
    units = units_of([scene for scene, is_kept in zip(scenes, kept, strict=True) if is_kept])
    low, high = factor * np.exp(mean_intervals(left[kept, None], units, confidence=confidence)[0])
    return float(low), float(high)


def _apart(seen: Observations, overall: float, left: np.ndarray) -> tuple[Group, ...]:
    """The groups with the smallest and the largest factor, if they disagree; by camera, or else by scene."""
    cameras = ["" if np.isnan(fov) else f"a field of view of {fov:.0f}°" for fov in seen.fov_deg]
    for names in (cameras, seen.scene):
        groups = []
        for name in sorted({*names} - {""}):
            own = left[[other == name for other in names]]
            if len(own) >= MIN_UNITS:
                factor = overall * float(np.exp(own[inliers(own)].mean()))
                interval = _interval(overall, own, [""] * len(own))
                groups.append(Group(name, factor, interval, len(own)))
        if groups:
            first, last = (choose(groups, key=lambda group: group.factor) for choose in (min, max))
            if last.factor > APART * first.factor and last.interval[0] > first.interval[1]:
                return first, last
    return ()


def _pixel_by_pixel(seen: Observations) -> Observations:
    """The same with every pixel as an image of its own."""
    return seen._replace(
        image=np.arange(len(seen.image)),
        scene=[""] * len(seen.image),
        fov_deg=seen.fov_deg[seen.image],
        id=[f"{seen.id[image]} at {depth_m:.4g} m" for image, depth_m in zip(seen.image, seen.depth_m, strict=True)],
    )


def _thinned(*values: np.ndarray) -> list[np.ndarray]:
    step = -(-len(values[0]) // _MOST_POINTS)
    return [each[::step] for each in values]

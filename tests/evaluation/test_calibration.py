"""Factors, and scale and shift of disparity, from constructed predictions with a known error."""

import numpy as np
import pytest

from depth_lightning.evaluation.calibration import calibrate
from depth_lightning.evaluation.observations import Observations

SCALE, SHIFT = 0.3, 0.05


def observed(seed, images=20, pixels=200, factor=1.0, relative=False, outliers=0.0, scene="", of_image=0.05):
    """Truth of 0.8 to 9 m, predicted with an error of each image and of each pixel; outliers are 3 times as far."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), pixels)
    truth = np.exp(rng.uniform(np.log(0.8), np.log(9), len(image)))
    predicted = truth * np.exp(rng.normal(0, of_image, images)[image] + rng.normal(0, 0.05, len(image)))
    predicted = np.maximum((1 / predicted - SHIFT) / SCALE, 0) if relative else predicted / factor
    truth = np.where(rng.random(len(image)) < outliers, 3 * truth, truth)
    ids = [f"{number}.png" for number in range(images)]
    return Observations(predicted, truth, image, [scene] * images, np.full(images, np.nan), ids)


def joined(one, other):
    image = np.r_[one.image, other.image + len(one.scene)]
    pixels = (np.r_[ours, theirs] for ours, theirs in zip(one[:2], other[:2], strict=True))
    fov_deg = np.r_[one.fov_deg, other.fov_deg]
    return Observations(*pixels, image, [*one.scene, *other.scene], fov_deg, [*one.id, *other.id])


@pytest.mark.parametrize("outliers", [0, 0.1])
def test_a_factor_is_recovered(outliers):
    for seed in range(5):
        found = calibrate(observed(seed, factor=1.3, outliers=outliers, of_image=0.02), relative=False, max_depth=10)
        assert found.kind == "factor" and found.fit[0] == pytest.approx(1.3, rel=0.02)
        assert found.interval[0] < found.fit[0] < found.interval[1] < 1.35
        assert found.after["log_error"] < found.before["log_error"]


def test_nothing_is_changed_where_nothing_is_wrong():
    for seed in range(10):
        found = calibrate(observed(seed), relative=False, max_depth=10)
        assert found.kind == "none" and found.after == found.before


def test_few_images_count_point_by_point():
    found = calibrate(observed(0, images=3, pixels=10, factor=1.3, of_image=0), relative=False, max_depth=10)
    assert found.kind == "factor" and found.units.name == "points" and found.units.total == 30
    assert np.isnan(found.interval).all()  # points of one image do not show how much images differ
    assert found.fit[0] == pytest.approx(1.3, rel=0.03)
    with pytest.raises(ValueError, match=r"^Calibration needs 5 measured distances or more, found 4\.$"):
        calibrate(observed(0, images=1, pixels=4), relative=False, max_depth=10)


def test_wrong_images_do_not_count():
    other = observed(1, images=2, factor=5.0)._replace(id=["mirror.png", "window.png"])
    wrong = joined(observed(0, images=18, factor=1.3), other)
    found = calibrate(wrong, relative=False, max_depth=10)
    assert found.fit[0] == pytest.approx(1.3, rel=0.03) and {*found.outliers} >= {"mirror.png", "window.png"}


@pytest.mark.parametrize("outliers", [0, 0.1])
def test_scale_and_shift_are_recovered(outliers):
    found = calibrate(observed(0, relative=True, outliers=outliers), relative=True, max_depth=50)
    assert found.kind == "affine_disparity"
    assert found.fit == pytest.approx((SCALE, SHIFT), rel=0.05, abs=0.005)
    assert found.after["log_error"] < 0.4 * found.before["log_error"]


def test_disparity_that_says_nothing_is_refused_or_left():
    seen = observed(0, relative=True)
    shuffled = np.random.default_rng(0).permutation(seen.prediction)
    assert calibrate(seen._replace(prediction=shuffled), relative=True, max_depth=50).kind == "none"
    with pytest.raises(ValueError, match=r"^The network's disparity does not grow with nearness"):
        calibrate(seen._replace(prediction=1 / (seen.prediction + 1) + 5 * seen.depth_m), relative=True, max_depth=50)


def test_scenes_that_need_factors_of_their_own_are_named():
    one, other = observed(0, images=10, factor=0.81, scene="flat"), observed(1, images=10, factor=1.22, scene="hall")
    first, last = calibrate(joined(one, other), relative=False, max_depth=10).apart
    assert (first.name, last.name, first.images) == ("flat", "hall", 10)
    assert first.factor == pytest.approx(0.81, rel=0.05) and last.factor == pytest.approx(1.22, rel=0.05)
    alike = joined(one, observed(2, images=10, factor=0.81, scene="hall"))
    assert calibrate(alike, relative=False, max_depth=10).apart == ()


def test_cameras_are_asked_before_scenes():
    seen = joined(observed(0, images=10, factor=0.81, scene="a"), observed(1, images=10, factor=1.22, scene="b"))
    seen = seen._replace(fov_deg=np.repeat([75.2, 34.9], 10))
    names = [group.name for group in calibrate(seen, relative=False, max_depth=10).apart]
    assert names == ["a field of view of 75°", "a field of view of 35°"]

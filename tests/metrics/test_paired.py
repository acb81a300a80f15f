import numpy as np
import pytest
import scipy.stats

from depth_lightning.metrics.intervals import units_of
from depth_lightning.metrics.paired import holm, sign_flip_pairs, sign_flip_test


def test_few_images_are_tested_exactly():
    differences = np.random.default_rng(0).standard_normal((10, 3)) + np.array([0, 0.5, 2])
    expected = [
        scipy.stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        for column in differences.T
    ]
    assert sign_flip_test(differences, units_of([""] * 10)) == pytest.approx(np.array(expected))


def test_many_images_are_tested_as_scipy_does():
    differences = np.exp(np.random.default_rng(1).standard_normal((80, 2))) - [1.2, 1.5]
    expected = [
        scipy.stats.permutation_test((c,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0).pvalue
        for c in differences.T
    ]
    assert sign_flip_test(differences, units_of([""] * 80)) == pytest.approx(np.array(expected), abs=0.015)


def test_pairs_equal_the_test_of_their_difference():
    errors = np.random.default_rng(2).random((30, 4)) + np.array([0, 0, 0.1, 0.2])
    units = units_of([f"{image % 7}" for image in range(30)])
    pairs = sign_flip_pairs(errors, units)
    assert (pairs == pairs.T).all() and (np.diag(pairs) == 1).all()
    assert pairs[1, 3] == pytest.approx(sign_flip_test((errors[:, 1] - errors[:, 3])[:, None], units)[0])


@pytest.mark.parametrize("scenes", [False, True])
def test_equal_runs_are_told_apart_in_five_percent(scenes):
    """Frames of one scene share most of their difference: a test over frames would be fooled."""
    rng = np.random.default_rng(3)
    of_frame = np.repeat(np.arange(12), 5)
    units = units_of([str(scene) for scene in of_frame])
    found = []
    for _ in range(600):
        shared = rng.standard_normal(12)[of_frame] if scenes else 0
        found.append(sign_flip_test((shared + rng.standard_normal(60))[:, None], units)[0])
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_holm():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx(np.array([0.03, 0.06, 0.06, 0.02]))
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]

import doctest
from itertools import islice

import numpy as np
import pytest
import scipy.stats

from depth_lightning.metrics import intervals
from depth_lightning.metrics.intervals import mean_intervals, units_of


def _coverage(experiments, truth):
    """Share of (values, scenes, weights) whose interval holds the truth."""
    hits = 0
    for seed, (values, scenes, weights) in enumerate(experiments):
        low, high = mean_intervals(values[:, None], units_of(scenes), weights, draws=300, seed=seed)[0]
        hits += low <= truth <= high
    return hits / (seed + 1)


@pytest.mark.parametrize("images", [65, 150])
def test_intervals_of_skewed_errors_hold_the_truth_in_95_percent(images):
    rng = np.random.default_rng(1)
    errors = np.exp(0.6 * rng.standard_normal((1000, images)))
    found = _coverage(((row, [""] * images, None) for row in errors), np.exp(0.18))
    assert found == pytest.approx(0.95, abs=0.02)


def test_intervals_over_scenes_hold_the_truth_in_95_percent_and_those_over_their_frames_do_not():
    def experiments(known):
        rng = np.random.default_rng(2)
        for _ in range(1000):
            of_frame = np.repeat(np.arange(60), rng.integers(4, 12, 60))
            errors = np.exp(0.4 * rng.standard_normal(60))[of_frame] * (0.8 + 0.4 * rng.random(len(of_frame)))
            yield errors, [f"scene {scene}" if known else "" for scene in of_frame], None

    assert _coverage(experiments(known=True), np.exp(0.08)) == pytest.approx(0.95, abs=0.02)
    assert _coverage(islice(experiments(known=False), 100), np.exp(0.08)) < 0.7


def test_weighted_means_hold_the_truth():
    def experiments():
        rng = np.random.default_rng(3)
        for _ in range(1000):
            pixels = rng.integers(50, 1000, 100)
            yield np.exp(0.5 * rng.standard_normal(100)), [""] * 100, pixels

    assert _coverage(experiments(), np.exp(0.125)) == pytest.approx(0.95, abs=0.02)


def test_intervals_of_a_normal_sample_are_students():
    values = np.random.default_rng(0).standard_normal((400, 2)) + np.array([0, 5])
    found = mean_intervals(values, units_of([""] * 400))
    for column, (low, high) in zip(values.T, found, strict=True):
        expected = scipy.stats.t.interval(0.95, 399, column.mean(), scipy.stats.sem(column))
        assert (low, high) == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]) / 2)


def test_against_the_definition_draw_by_draw():
    rng = np.random.default_rng(4)
    values, weights = np.exp(rng.standard_normal(9)), rng.integers(1, 5, 9).astype(float)
    units = units_of(list("aabbcdeff"))
    mean = np.average(values, weights=weights)

    def error(chosen, centre):
        """Linearised standard error of a ratio of sums over units."""
        residuals = [((values - centre) * weights)[units.of_image == unit].sum() for unit in chosen]
        return np.sqrt(np.square(residuals).sum()) / sum(weights[units.of_image == unit].sum() for unit in chosen)

    studentised = []
    for counts in np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), size=300):
        chosen = np.repeat(np.arange(6), counts)
        images = np.concatenate([np.flatnonzero(units.of_image == unit) for unit in chosen])
        drawn = np.average(values[images], weights=weights[images])
        studentised.append((drawn - mean) / max(error(chosen, drawn), 0.3 * error(range(6), mean)))
    high, low = mean - np.quantile(studentised, [0.025, 0.975]) * error(range(6), mean)
    expected = np.clip([low, high], values.min(), values.max())
    assert mean_intervals(values[:, None], units, weights, draws=300, seed=7)[0] == pytest.approx(expected)


def test_the_seed_decides():
    values, units = np.random.default_rng(0).random((50, 3)), units_of([""] * 50)
    first = mean_intervals(values, units)
    assert (first == mean_intervals(values, units)).all()
    assert (first != mean_intervals(values, units, seed=1)).any()


def test_constant_values_and_shares_near_one():
    shares = np.ones((60, 2))
    shares[::20, 1] = 0.9
    constant, near = mean_intervals(shares, units_of([""] * 60))
    assert constant.tolist() == [1, 1]
    assert 0.97 < near[0] < shares[:, 1].mean() < near[1] <= 1


def test_too_few_units_and_values_that_are_no_numbers_have_none():
    assert np.isnan(mean_intervals(np.ones((4, 2)), units_of([""] * 4))).all()
    values = np.random.default_rng(0).random((8, 2))
    values[3, 0] = np.nan
    found = mean_intervals(values, units_of([""] * 8))
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


def test_units():
    assert units_of(["a"] * 20).name == "images"  # one scene cannot be drawn from
    scenes = units_of(["a", "b", "", "c", "a", "", "d"])
    assert scenes.name == "scenes" and scenes.total == 6
    assert scenes.of_image[0] == scenes.of_image[4] and scenes.of_image[2] != scenes.of_image[5]


def test_example():
    results = doctest.testmod(intervals)
    assert results.attempted and not results.failed

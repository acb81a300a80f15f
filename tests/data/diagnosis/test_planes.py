"""Planes made by plain geometry: n · (x, y, 1) · depth = 1."""

import numpy as np
import pytest

from depth_lightning.data.diagnosis.planes import USUAL_FOCAL, flat_windows

HEIGHT, WIDTH, FOCAL = 120, 160, 0.866
"""The focal length is Hypersim's: 886.81 pixels of 1024."""


def rays(focal):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - (WIDTH - 1) / 2) / (focal * WIDTH), (y - (HEIGHT - 1) / 2) / (focal * WIDTH)


def plane(normal, noise=0.0):
    x, y = rays(FOCAL)
    depth = 1 / (normal[0] * x + normal[1] * y + normal[2])
    return depth * (1 + noise * np.random.default_rng(0).standard_normal(depth.shape))


def stretch():
    """Distance along the ray by depth."""
    x, y = rays(FOCAL)
    return np.sqrt(1 + x**2 + y**2)


FLOOR, WALL, SIDE = (0.0, 0.5, 0.35), (0.0, 0.0, 0.4), (0.3, 0.05, 0.3)
EVERYWHERE = np.ones((HEIGHT, WIDTH), bool)


@pytest.mark.parametrize("normal", [FLOOR, WALL, SIDE])
@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize("power", [-1, 0, 1])
def test_bulge_counts_the_conversions(normal, noise, power):
    windows = flat_windows(plane(normal, noise) * stretch() ** power, EVERYWHERE, FOCAL)
    assert len(windows) >= 20
    bulges = np.array([window.bulge for window in windows])
    # Exact for depth; of the others, the first order.
    assert np.median(bulges) == pytest.approx(power, abs={0: 0.01, 1: 0.12, -1: 0.25}[power])
    if noise and not power:
        errors = np.array([window.bulge_error for window in windows])
        assert 0.5 < np.median(np.abs(bulges) / errors) / 0.67 < 2


def test_a_wrong_focal_length_scales_the_bulge():
    """By its square, about: a usual one is near enough for the verdict."""
    bulges = [window.bulge for window in flat_windows(plane(WALL) * stretch(), EVERYWHERE)]
    assert np.median(bulges) == pytest.approx((USUAL_FOCAL / FOCAL) ** 2, rel=0.1)


@pytest.mark.parametrize("normal", [FLOOR, SIDE])
def test_tilted_planes_tell_depth_from_disparity(normal):
    depth = plane(normal)
    for map_, sign in ((depth, 1), (1 / depth, -1), (0.2 + 3 / depth, -1)):
        tilted = [window for window in flat_windows(map_, EVERYWHERE, FOCAL) if window.tilt > 1.2]
        assert len(tilted) >= 5
        assert all(sign * window.depth_vote > 0.5 for window in tilted)
    assert max(window.tilt for window in flat_windows(plane(WALL), EVERYWHERE, FOCAL)) == pytest.approx(1)


def test_sparse_maps_and_outliers():
    rng = np.random.default_rng(1)
    depth = plane(FLOOR)
    depth[rng.random(depth.shape) < 0.03] *= 2
    windows = flat_windows(depth, rng.random(depth.shape) < 0.1, FOCAL)
    assert len(windows) == 25
    assert np.median([window.bulge for window in windows]) == pytest.approx(0, abs=0.01)


def test_what_is_not_flat_says_nothing():
    rng = np.random.default_rng(0)
    assert not flat_windows(2 + rng.random((HEIGHT, WIDTH)), EVERYWHERE)
    assert not flat_windows(plane(WALL), np.zeros((HEIGHT, WIDTH), bool))
    assert not flat_windows(plane(WALL)[:9, :9], EVERYWHERE[:9, :9])

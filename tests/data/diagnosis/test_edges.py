import cv2
import numpy as np
import pytest

from depth_lightning.data.diagnosis.edges import ORIENTATIONS, REACH, WIDTH, agreement


def scene(seed=0):
    """Rectangles at different depths, each of one colour."""
    rng = np.random.default_rng(seed)
    image, depth = np.full((240, 320, 3), 128, np.uint8), np.full((240, 320), 5, np.float32)
    for _ in range(12):
        (y, x), (h, w) = rng.integers(0, (200, 280)), rng.integers(20, 80, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
        depth[y : y + h, x : x + w] = rng.uniform(1, 4)
    return image, depth


def peak(image, depth, orientation):
    values = agreement(image, depth, depth > 0)[list(ORIENTATIONS).index(orientation)]
    y, x = np.unravel_index(values.argmax(), values.shape)
    return float(values.max()), (int(y) - REACH, int(x) - REACH)


@pytest.mark.parametrize("down, right", [(0, 0), (-12, 20), (16, -30)])
def test_the_shift_that_brings_depth_back_is_found(down, right):
    image, depth = scene()
    moved = np.roll(depth, (-down, -right), (0, 1))
    value, at = peak(image, moved, "as it is")
    assert value > 0.3
    assert at == pytest.approx((down / 2, right / 2), abs=1)  # the small maps are half the size


TURNS = {
    "mirrored left to right": lambda d: d[:, ::-1],
    "upside down": lambda d: d[::-1],
    "turned by 180°": lambda d: d[::-1, ::-1],
    "transposed": lambda d: d.T,
    "turned by 90° clockwise": lambda d: np.rot90(d, -1),
    "turned by 90° counterclockwise": np.rot90,
}


@pytest.mark.parametrize("turn", TURNS)
def test_the_turn_that_brings_depth_back_is_found(turn):
    image, depth = scene()
    turned = np.ascontiguousarray(TURNS[turn](depth))
    value, at = peak(image, turned, turn)
    assert value > 0.3
    assert at == pytest.approx((0, 0), abs=1)
    others = [peak(image, turned, other)[0] for other in ORIENTATIONS if other != turn]
    assert max(others) < value / 1.5


def test_holes_smaller_maps_and_nothing():
    image, depth = scene()
    depth[np.random.default_rng(0).random(depth.shape) < 0.9] = 0
    assert peak(image, depth, "as it is")[1] == (0, 0)
    image, depth = scene()
    assert peak(image, cv2.resize(depth, (80, 60), interpolation=cv2.INTER_NEAREST), "as it is")[1] == pytest.approx(
        (0, 0), abs=1
    )
    assert not agreement(image, depth, np.zeros_like(depth, bool)).any()
    assert not agreement(np.full_like(image, 9), depth, depth > 0).any()
    tall = np.ascontiguousarray(image.transpose(1, 0, 2)), np.ascontiguousarray(depth.T)
    assert peak(*tall, "as it is")[1] == (0, 0)
    assert WIDTH == 160

"""Chamfer distance and F-score against brute force in NumPy, and closed forms."""

import numpy as np
import pytest
import torch

from depth_lightning.metrics import directions, points
from depth_lightning.metrics.points import points_chamfer, points_f1, points_f1_25cm, unprojected

CAMERA = torch.tensor([[60.0, 55.0, 30.5, 22.0]])
SIZE = (24, 32)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    target = 2 + rng.random(SIZE)
    prediction = target * np.exp(rng.normal(0, 0.03, SIZE))
    mask = rng.random(SIZE) < 0.8
    return [torch.from_numpy(each)[None] for each in (prediction.astype(np.float32), target.astype(np.float32), mask)]


def cloud(depth, mask):
    y, x = np.nonzero(mask)
    fx, fy, cx, cy = CAMERA[0].double().tolist()
    z = depth[y, x].astype(float)
    return np.stack([(x - cx) / fx * z, (y - cy) / fy * z, z], axis=1)


def brute(prediction, target, mask):
    """Distances from every point to the other cloud, both ways, of all pairs."""
    ours, theirs = (cloud(depth[0].numpy(), mask[0].numpy()) for depth in (prediction, target))
    apart = np.linalg.norm(ours[:, None] - theirs, axis=2)
    return apart.min(axis=1), apart.min(axis=0)


def test_equals_all_pairs(maps, monkeypatch):
    to_truth, to_prediction = brute(*maps)
    monkeypatch.setattr(points, "STEP", 1)
    assert points_chamfer(*maps, CAMERA).item() == pytest.approx((to_truth.mean() + to_prediction.mean()) / 2, rel=1e-5)
    for function, limit in ((points_f1, 0.05), (points_f1_25cm, 0.25)):
        precision, recall = (to_truth <= limit).mean(), (to_prediction <= limit).mean()
        expected = 2 * precision * recall / (precision + recall)
        assert 0.5 < expected <= 1
        assert function(*maps, CAMERA).item() == pytest.approx(expected, rel=1e-5)


def test_a_share_of_the_points_is_enough(maps):
    to_truth, to_prediction = brute(*maps)
    sampled = (to_truth[:: points.STEP].mean() + to_prediction[:: points.STEP].mean()) / 2
    assert points_chamfer(*maps, CAMERA).item() == pytest.approx(sampled, rel=1e-5)


def test_a_wall_that_is_too_far_is_off_by_the_distance():
    wall = torch.full((1, *SIZE), 2.0)
    camera = torch.tensor([[1e4, 1e4, 15.5, 11.5]])
    everywhere = torch.ones_like(wall, dtype=torch.bool)
    assert points_chamfer(wall + 0.1, wall, everywhere, camera).item() == pytest.approx(0.1, rel=1e-3)
    assert points_f1(wall + 0.1, wall, everywhere, camera).item() == 0
    assert points_f1_25cm(wall + 0.1, wall, everywhere, camera).item() == 1
    assert points_chamfer(wall, wall, everywhere, camera).item() == 0


def test_every_image_is_its_own_and_one_without_a_pixel_has_none(maps):
    prediction, target, mask = maps
    alone = points_f1(prediction, target, mask, CAMERA).item()
    batch = (torch.cat([prediction, target, target]), torch.cat([target] * 3), torch.cat([mask, mask, mask & False]))
    values = points_f1(*batch, CAMERA.expand(3, 4))
    assert values[:2].tolist() == pytest.approx([alone, 1]) and values[2].isnan()
    assert points_chamfer(*batch, CAMERA.expand(3, 4))[2].isnan()


def test_points_lie_on_their_rays(maps):
    _, target, mask = maps
    found = unprojected(target, CAMERA)[0][mask[0]].numpy()
    np.testing.assert_allclose(found, cloud(target[0].numpy(), mask[0].numpy()), rtol=1e-5)


def test_directions():
    assert directions({"f1": points_f1, "open": points_f1_25cm, "chamfer": points_chamfer}) == {
        "f1": True,
        "open": True,
        "chamfer": False,
    }

"""Angles between normals against closed forms (planes, a sphere) and an independent cross product in NumPy."""

import numpy as np
import pytest
import torch

from depth_lightning.metrics import directions
from depth_lightning.metrics.normals import (
    angles_deg,
    normals_below_11,
    normals_below_22,
    normals_below_30,
    normals_mean,
    normals_median,
)

CAMERA = torch.tensor([[60.0, 55.0, 30.5, 22.0]])
SIZE = (48, 64)


def rays():
    """(h, w, 3) points at depth 1."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    fx, fy, cx, cy = CAMERA[0].tolist()
    return np.stack([(x - cx) / fx, (y - cy) / fy, np.ones(SIZE)], axis=-1)


def plane(*normal, distance=3.0):
    """(1, h, w) depth of the plane with n · p = distance."""
    return torch.from_numpy(distance / (rays() @ np.array(normal)))[None].float()


def sphere(radius, centre):
    """(1, h, w) depth of the near side of a sphere around (0, 0, centre), and where it is seen."""
    directions = rays()
    a, b, c = (directions**2).sum(-1), -2 * directions[..., 2] * centre, centre**2 - radius**2
    inside = b**2 - 4 * a * c
    depth = (-b - np.sqrt(np.maximum(inside, 0))) / (2 * a)
    return torch.from_numpy(depth)[None].float(), torch.from_numpy(inside > 0)[None]


def everywhere(depth):
    return torch.ones_like(depth, dtype=torch.bool)


@pytest.mark.parametrize("degrees", [0.0, 5.0, 20.0, 40.0])
def test_a_plane_has_its_normal(degrees):
    angle = np.radians(degrees)
    front, turned = plane(0, 0, 1), plane(np.sin(angle), 0, np.cos(angle))
    angles, valid = angles_deg(turned, front, everywhere(front), CAMERA)
    assert valid.all() and angles.shape == (1, 46, 62)
    torch.testing.assert_close(angles, torch.full_like(angles, degrees), atol=0.02, rtol=0)
    upwards = plane(0, np.sin(angle), np.cos(angle))
    assert normals_mean(upwards, front, everywhere(front), CAMERA).item() == pytest.approx(degrees, abs=0.02)
    assert normals_median(upwards, front, everywhere(front), CAMERA).item() == pytest.approx(degrees, abs=0.02)
    functions = {11.25: normals_below_11, 22.5: normals_below_22, 30.0: normals_below_30}
    for limit, function in functions.items():
        assert function(upwards, front, everywhere(front), CAMERA).item() == float(degrees < limit)


def test_a_sphere_has_the_normals_of_its_points():
    depth, seen = sphere(1.0, 3.0)
    points = rays() * depth[0].numpy()[..., None]
    outwards = (points - [0, 0, 3.0])[1:-1, 1:-1]
    expected = np.degrees(np.arccos(-outwards[..., 2]))  # against a plane that faces the camera
    angles, valid = angles_deg(depth, torch.full_like(depth, 2.0), seen, CAMERA)
    steep = expected > 40  # near the rim, neighbours are far apart
    within = valid[0].numpy() & ~steep
    assert within.sum() > 300
    np.testing.assert_allclose(angles[0].numpy()[within], expected[within], atol=1.0)
    assert np.abs(angles[0].numpy()[within] - expected[within]).mean() < 0.2


def test_equals_a_cross_product_in_numpy():
    rng = np.random.default_rng(0)
    maps = [1 + 3 * rng.random(SIZE) for _ in range(2)]

    def normals(depth):
        points = rays() * depth[..., None]
        along_x, along_y = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        crossed = np.cross(along_x, along_y)
        return crossed / np.linalg.norm(crossed, axis=-1, keepdims=True)

    expected = np.degrees(np.arccos(np.clip((normals(maps[0]) * normals(maps[1])).sum(-1), -1, 1)))
    prediction, target = (torch.from_numpy(depth)[None].float() for depth in maps)
    angles, _ = angles_deg(prediction, target, everywhere(target), CAMERA)
    np.testing.assert_allclose(angles[0].numpy(), expected, atol=0.05)
    assert normals_mean(prediction, target, everywhere(target), CAMERA).item() == pytest.approx(
        expected.mean(), abs=1e-3
    )


def test_a_pixel_counts_where_its_neighbours_are_valid_and_the_scale_does_not():
    target, prediction = plane(0, 0, 1), plane(0.3, 0, 0.9)
    mask = everywhere(target)
    mask[0, 10, 10] = False
    spoilt = target.clone()
    spoilt[0, 10, 10] = 0
    assert angles_deg(prediction, target, mask, CAMERA)[1].sum() == 46 * 62 - 5
    alone = normals_mean(prediction, target, mask, CAMERA)
    torch.testing.assert_close(normals_mean(7 * prediction, spoilt, mask, CAMERA), alone)
    batch = (torch.cat(maps) for maps in ([prediction, target], [target, target], [mask, mask], [CAMERA, CAMERA]))
    torch.testing.assert_close(normals_mean(*batch), torch.tensor([alone.item(), 0.0]))


def test_an_image_without_a_normal_has_none():
    depth = torch.ones(1, 8, 8)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:4, 2:4] = True
    for function in (normals_mean, normals_median, normals_below_30):
        assert function(depth, depth, mask, CAMERA).isnan().all()


def test_shares_are_higher_where_they_are_better():
    shares = {"11": normals_below_11, "22": normals_below_22, "30": normals_below_30}
    assert all(directions(shares).values())
    assert not any(directions({"mean": normals_mean, "median": normals_median}).values())

"""Cameras: points in space appear at the same place of the picture, whatever is done to the picture."""

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from depth_lightning import camera
from depth_lightning.data.canonical import Canonical
from depth_lightning.data.rotation import rotated
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.sample import DepthKind, DepthSample, collate

HEIGHT, WIDTH = 120, 170
CAMERA = np.float32([150, 155, 80.25, 63.5])


def places(height=HEIGHT, width=WIDTH):
    """A sample whose image and target say where each pixel was: red is its column, green its row."""
    row, column = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([column, row, np.zeros_like(row)], -1)
    depth = 1 + column + 1000 * row
    return DepthSample(image, depth, depth > 0, DepthKind.METRES, "a", intrinsics=CAMERA)


def projected(points, intrinsics):
    """Column and row (n, 2) of points (n, 3), by the textbook's formula."""
    fx, fy, cx, cy = np.float64(intrinsics)
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    x, y, z = matrix @ points.T
    return np.stack([x / z, y / z], -1)


def seen_at(image, places):
    """The values of an image (h, w, 2) between its pixels, bilinear; NaN at less than 8 pixels from its edges."""
    height, width = image.shape[:2]
    values = np.full(places.shape, np.nan)
    for index, (u, v) in enumerate(places):
        if 8 <= u < width - 9 and 8 <= v < height - 9:
            left, top = int(u), int(v)
            a, b = u - left, v - top
            values[index] = (
                (1 - b) * ((1 - a) * image[top, left] + a * image[top, left + 1])
                + b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])
            )  # fmt: skip
    return values


def assert_same_picture(before, after, scale=1.0, mirrored=False, turned_deg=0.0):
    """Where points in space appear after the transform, the picture shows what it showed there before.

    OpenCV's bicubic interpolation reproduces a ramp to 0.05 pixels; another convention would be off by 0.2.
    """
    points = np.random.default_rng(0).uniform((-2, -1.5, 2), (2, 1.5, 4), (2000, 3))
    cos, sin = np.cos(np.radians(turned_deg)), np.sin(np.radians(turned_deg))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    world = points * (-1, 1, 1) if mirrored else points @ turn.T
    seen = seen_at(after.image[..., :2] * scale, projected(world, after.intrinsics))
    inside = np.isfinite(seen[:, 0])
    assert inside.sum() > 40
    error = seen[inside] - projected(points, before.intrinsics)[inside]
    assert np.abs(error).max() < 0.06


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crop", [None, "square", [56, 70]])
@pytest.mark.parametrize("flip", [0, 1])
def test_training_resizes_crops_and_mirrors_the_camera(seed, crop, flip):
    before = places()
    after = TrainTransform(84, crop, flip_probability=flip)(before, seed)
    assert after.intrinsics.dtype == np.float32
    assert_same_picture(before, after, mirrored=flip == 1)


def test_evaluation_resizes_the_camera_with_the_image():
    before = places()
    after = EvaluationTransform(84)(before)
    assert after.image.shape == (84, 112, 3)
    assert_same_picture(before, after, scale=255)
    back = camera.resized(after.intrinsics, WIDTH / 112, HEIGHT / 84)  # of the target, which keeps its size
    np.testing.assert_allclose(back, CAMERA, rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crop", [None, [56, 70]])
def test_a_zoom_multiplies_the_focal_length(seed, crop):
    before = places()
    after = TrainTransform(84, crop, flip_probability=0, zoom=(1.4, 1.6))(before, seed)
    plain = TrainTransform(84, crop, flip_probability=0)(before, seed)
    zoom = after.intrinsics[0] / plain.intrinsics[0]
    assert 1.4 <= zoom <= 1.6
    assert after.image.shape == plain.image.shape
    assert_same_picture(before, after)
    column, row = after.image[20, 30, :2]
    depth = 1 + np.rint(column) + 1000 * np.rint(row)  # of the pixel that is seen there
    assert after.target[20, 30] * zoom == pytest.approx(depth, rel=1e-3, abs=2000)


def test_metres_are_divided_by_the_zoom_or_left_to_the_canonical_camera():
    """A wall at 3 m: twice as large, it looks as if at 1.5 m; for twice the focal length it is at 3 m."""
    wall = places()._replace(target=np.full((HEIGHT, WIDTH), 3, np.float32))
    (zoom,) = {TrainTransform(84, zoom=(2, 2))(wall, seed).target.max() for seed in range(4)}
    assert zoom == 1.5
    after = TrainTransform(84, zoom=(2, 2), canonical=Canonical(500))(wall, 0)
    focal = np.sqrt(after.intrinsics[0] * after.intrinsics[1])
    assert focal == pytest.approx(2 * np.sqrt(150 * 112 / WIDTH * 155 * 84 / HEIGHT))
    np.testing.assert_allclose(after.target, 3 * 500 / focal, rtol=1e-5)
    relative = wall._replace(kind=DepthKind.DISPARITY)
    assert (TrainTransform(84, zoom=(2, 2))(relative, 0).target == 3).all()


@pytest.mark.parametrize("angle_deg", [-20, 7, 90])
def test_a_rotation_is_about_the_optical_axis(angle_deg):
    before = places()
    after = rotated(before, angle_deg)
    np.testing.assert_array_equal(after.intrinsics, before.intrinsics)
    row, column = np.nonzero(after.mask)
    inner = cv2.erode(after.mask.astype(np.uint8), np.ones((13, 13))).astype(bool)
    kept = after._replace(image=np.where(inner[..., None], after.image, np.nan))
    assert_same_picture(before, kept, turned_deg=angle_deg)
    seen = after.image[row, column]
    depth = 1 + seen[:, 0] + 1000 * seen[:, 1]
    middle = (np.abs(row - 60) < 30) & (np.abs(column - 80) < 30)
    assert np.abs(after.target[row, column] - depth)[middle].max() < 600  # half a row, and half a column


def test_sparse_points_turn_one_by_one():
    before = places()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[::10, ::10] = True
    sparse = before._replace(target=np.where(mask, before.target, 0).astype(np.float32), mask=mask)
    after = rotated(sparse, 7)
    for y, x in zip(*np.nonzero(after.mask), strict=True):
        column, row = (after.target[y, x] - 1) % 1000, (after.target[y, x] - 1) // 1000
        cos, sin = np.cos(np.radians(7)), np.sin(np.radians(7))
        ray = np.array([(column - CAMERA[2]) / CAMERA[0], (row - CAMERA[3]) / CAMERA[1]])
        there = np.array([cos * ray[0] - sin * ray[1], sin * ray[0] + cos * ray[1]]) * CAMERA[:2] + CAMERA[2:]
        assert np.abs(there - [x, y]).max() <= 0.501
    assert 0.8 * mask.sum() < after.mask.sum() <= mask.sum()


def test_closed_forms():
    np.testing.assert_allclose(camera.resized(CAMERA, 2, 3), [300, 465, 161, 191.5])
    np.testing.assert_allclose(camera.cropped(CAMERA, 10, 20), [150, 155, 70.25, 43.5])
    np.testing.assert_allclose(camera.mirrored(CAMERA, WIDTH), [150, 155, 169 - 80.25, 63.5])
    assert CAMERA.tolist() == [150, 155, 80.25, 63.5]  # none of them changes its argument
    assert camera.focal_from_fov(90, 640) == pytest.approx(320)
    assert camera.fov_from_focal(320, 640) == pytest.approx(90)
    batch = torch.tensor(CAMERA).expand(2, 4)
    assert torch.equal(camera.resized(batch, 2, 3), torch.tensor([[300, 465, 161, 191.5]]).expand(2, 4))


def test_an_unknown_camera_stays_unknown():
    before = places()._replace(intrinsics=DepthSample._field_defaults["intrinsics"])
    for after in (TrainTransform(84, flip_probability=1)(before, 0), EvaluationTransform(84)(before)):
        assert np.isnan(after.intrinsics).all()


def test_the_camera_survives_changes_of_colour_and_no_unknown_movement():
    before = places()
    before = before._replace(image=before.image.astype(np.uint8))
    for transform, known in (
        (A.GaussianBlur(p=1), True),
        (A.OneOf([A.GaussianBlur(), A.ToGray()]), True),
        (A.Rotate(5, p=1), False),
        (A.OneOf([A.GaussianBlur(), A.HorizontalFlip()]), False),
    ):
        plain = TrainTransform(84, flip_probability=0)(before, 0)
        after = TrainTransform(84, flip_probability=0, transforms=[transform])(before, 0)
        expected = plain.intrinsics if known else np.full(4, np.nan)
        np.testing.assert_array_equal(after.intrinsics, expected)


def test_batches_carry_one_camera_per_image():
    other = places()._replace(intrinsics=camera.UNKNOWN)
    batch = collate([places(), other])
    assert batch.intrinsics.shape == (2, 4)
    assert batch.intrinsics.dtype == torch.float32
    np.testing.assert_array_equal(batch.intrinsics[0], CAMERA)
    assert batch.intrinsics[1].isnan().all()
    assert collate([]).intrinsics.shape == (0, 4)

"""Cameras: points in space appear at the same place of the picture, whatever is done to the picture."""

import albumentations as A
import numpy as np
import pytest
import torch

from depth_lightning import camera
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
    """The values of an image (h, w, 2) between its pixels, bilinear; NaN at less than 3 pixels from its edges."""
    height, width = image.shape[:2]
    values = np.full(places.shape, np.nan)
    for index, (u, v) in enumerate(places):
        if 3 <= u < width - 4 and 3 <= v < height - 4:
            left, top = int(u), int(v)
            a, b = u - left, v - top
            values[index] = (
                (1 - b) * ((1 - a) * image[top, left] + a * image[top, left + 1])
                + b * ((1 - a) * image[top + 1, left] + a * image[top + 1, left + 1])
            )  # fmt: skip
    return values


def assert_same_picture(before, after, scale=1.0, mirrored=False):
    """Where points in space appear after the transform, the picture shows what it showed there before.

    OpenCV's bicubic interpolation reproduces a ramp to 0.05 pixels, without a bias.
    """
    points = np.random.default_rng(0).uniform((-2, -1.5, 2), (2, 1.5, 4), (400, 3))
    world = points * (-1, 1, 1) if mirrored else points
    seen = seen_at(after.image[..., :2] * scale, projected(world, after.intrinsics))
    inside = np.isfinite(seen[:, 0])
    assert inside.sum() > 40
    error = seen[inside] - projected(points, before.intrinsics)[inside]
    assert np.abs(error).max() < 0.06
    assert np.abs(error.mean(0)).max() < 0.01


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

import json
import pickle
import re

import albumentations as A
import cv2
import numpy as np
import pytest

from depth_lightning.data.photometric import ColourNoise
from depth_lightning.data.transforms import (
    MAX_TOKENS,
    EvaluationTransform,
    TrainTransform,
    check_cost,
    network_image,
    network_size,
)
from depth_lightning.sample import DepthKind, DepthSample, collate


def sample(height, width, seed=0):
    """Smooth colours, and a target that is 1 + the column + 1000 × the row, with holes."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1)
    target = 1 + np.arange(width, dtype=np.float32) + 1000 * np.arange(height, dtype=np.float32)[:, None]
    mask = rng.random((height, width)) < 0.8
    return DepthSample(image, np.where(mask, target, 0).astype(np.float32), mask, DepthKind.METRES, "a/b.h5", "a")


def equal(a, b):
    return all(np.array_equal(x, y, equal_nan=isinstance(x, np.ndarray)) for x, y in zip(a, b, strict=True))


def test_network_sizes_equal_the_reference(golden):
    for name, expected in json.loads((golden / "network_sizes_518.json").read_text()).items():
        height, width = map(int, name.split("x"))
        assert network_size(height, width, 518) == tuple(expected), name


@pytest.mark.parametrize("size", [84, 252, 300, 513, 518])
def test_network_size_is_a_lower_bound_near_the_aspect(size):
    for height, width in np.random.default_rng(size).integers(20, 2000, (300, 2)):
        h, w = network_size(height, width, size)
        assert h % 14 == w % 14 == 0
        assert size <= min(h, w) < size + 14
        scale = size / min(height, width)
        assert abs(h - scale * height) < 14
        assert abs(w - scale * width) < 14


def test_evaluation_input_equals_the_reference(golden):
    reference = np.load(golden / "preprocess_240x320_to_252.npz")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network_input = ((network_image(reference["image"], 252) - mean) / std).transpose(2, 0, 1)
    stride = reference["stride"]
    np.testing.assert_allclose(network_input[:, ::stride, ::stride], reference["network_input"], atol=1e-4)


def test_evaluation_leaves_the_truth_alone():
    before = sample(60, 100)
    after = EvaluationTransform(84)(before)
    assert after.image.shape == (84, 140, 3)
    assert after.image.dtype == np.float32
    assert equal(after._replace(image=before.image), before)


def test_whole_image_is_a_plain_resize():
    before = sample(60, 100)
    after = TrainTransform(84, crop=None, flip_probability=0)(before, seed=0)
    assert np.array_equal(after.image, cv2.resize(before.image, (140, 84), interpolation=cv2.INTER_CUBIC))
    assert np.array_equal(after.target, cv2.resize(before.target, (140, 84), interpolation=cv2.INTER_NEAREST_EXACT))
    assert np.array_equal(after.mask, after.target > 0)


@pytest.mark.parametrize(("height", "width"), [(97, 161), (161, 97), (400, 650)])
def test_crop_equals_a_crop_of_the_resized_image(height, width):
    size, crop = 140, (112, 126)
    before = sample(height, width)
    position = before._replace(target=1 + np.arange(height * width, dtype=np.float32).reshape(height, width))
    full_h, full_w = network_size(height, width, size)
    scale_y, scale_x = full_h / height, full_w / width
    corners = set()
    for seed in range(20):
        after = TrainTransform(size, crop, flip_probability=0)(position, seed)
        assert after.image.shape == (*crop, 3)
        assert after.target.shape == after.mask.shape == crop
        # Where the crop begins is told by its first depth; from there on both follow the resize of the whole image.
        top, left = divmod(int(after.target[0, 0]) - 1, width)
        top, left = top - int(0.5 / scale_y), left - int(0.5 / scale_x)
        corners.add((top, left))
        whole_to_crop = np.array(
            [[1 / scale_x, 0, 0.5 / scale_x - 0.5 + left], [0, 1 / scale_y, 0.5 / scale_y - 0.5 + top]]
        )
        expected = cv2.warpAffine(
            before.image,
            whole_to_crop,
            crop[::-1],
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        difference = np.abs(after.image.astype(int) - expected)
        assert difference.mean() < 0.2
        assert difference[4:-4, 4:-4].max() <= 2
        rows = (np.arange(crop[0]) + 0.5) / scale_y + top
        columns = (np.arange(crop[1]) + 0.5) / scale_x + left
        assert np.array_equal(after.target, 1 + rows.astype(int)[:, None] * width + columns.astype(int))
    assert len(corners) > 15


def test_crops_reach_every_border():
    columns = np.tile(1 + np.arange(100, dtype=np.float32), (60, 1))
    transform = TrainTransform(84, (84, 84), flip_probability=0)
    targets = [transform(sample(60, 100)._replace(target=columns), seed).target for seed in range(300)]
    assert {target[0, 0] for target in targets} == set(range(1, 42))
    assert max(target.max() for target in targets) == 100


@pytest.mark.parametrize("transforms", [[], [A.HorizontalFlip(p=0.5), A.GaussNoise(p=0.5)]])
def test_same_seed_same_sample_whatever_came_before(transforms):
    transform = TrainTransform(84, (70, 84), transforms=transforms)
    forward = [transform(sample(60, 100), seed) for seed in range(16)]
    another = pickle.loads(pickle.dumps(transform))
    for seed in reversed(range(16)):
        assert equal(another(sample(60, 100), seed), forward[seed])
    assert len({result.image.tobytes() for result in forward}) > 10


def test_image_depth_and_mask_flip_together():
    for seed in range(8):
        plain = TrainTransform(84, None, flip_probability=0)(sample(60, 100), seed)
        result = TrainTransform(84, None, 0, [A.HorizontalFlip(p=1)])(sample(60, 100), seed)
        assert equal(
            result,
            plain._replace(image=plain.image[:, ::-1], target=plain.target[:, ::-1], mask=plain.mask[:, ::-1]),
        )


def test_transforms_of_your_own_come_after_the_flip():
    """Two mirrorings are none, and OpenCV's transforms are given arrays that they can read."""
    plain = TrainTransform(84, None, 0)(sample(60, 100), 0)
    twice = TrainTransform(84, None, 1, [A.HorizontalFlip(p=1)])(sample(60, 100), 0)
    assert equal(twice, plain)
    blur = A.GaussianBlur(blur_limit=(5, 5), p=1)
    blurred, mirrored = (TrainTransform(84, None, flip, [blur])(sample(60, 100), 0) for flip in (0, 1))
    assert np.array_equal(mirrored.image[:, ::-1], blurred.image) and not np.array_equal(blurred.image, plain.image)
    assert np.array_equal(mirrored.target[:, ::-1], plain.target)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_a_share_of_the_samples_is_mirrored(probability):
    plain = TrainTransform(28, None, 0)(sample(28, 56), 0)
    flip = TrainTransform(28, None, probability)
    mirrored = sum(not np.array_equal(flip(sample(28, 56), seed).target, plain.target) for seed in range(400))
    assert abs(mirrored / 400 - probability) < 4 * (probability * (1 - probability) / 400) ** 0.5


def test_flips_jitter_and_noise_are_independent():
    """Each with p = 0.5 on its own, from one seed: all eight combinations come up about equally often."""
    grey = sample(28, 56)._replace(image=np.full((28, 56, 3), 100, np.uint8))
    transform, plain = TrainTransform(28, None), TrainTransform(28, None, flip_probability=0)(grey, 0)
    counts = np.zeros((2, 2, 2), int)
    for seed in range(400):
        batch = collate([transform(grey, seed)])
        changed = ColourNoise()(batch.image, batch.seed) * 255 - 100
        flipped = not np.array_equal(batch.target[0], plain.target)
        noisy = float(changed.std((2, 3)).amax()) > 1e-3
        jittered = float(changed.mean((2, 3)).abs().amax()) > 0.5
        assert np.array_equal(batch.mask[0], batch.target[0] > 0)
        counts[int(flipped), int(noisy), int(jittered)] += 1
    assert (counts > 25).all(), counts
    assert (counts < 75).all(), counts


def test_flip_only_flips():
    results = [TrainTransform(84, None)(sample(60, 100), seed) for seed in range(40)]
    plain = TrainTransform(84, None, flip_probability=0)(sample(60, 100), 0)
    flips = [np.array_equal(result.image, plain.image[:, ::-1]) for result in results]
    assert all(
        flip or equal(result, plain._replace(seed=result.seed)) for flip, result in zip(flips, results, strict=True)
    )
    assert 10 < sum(flips) < 30


@pytest.mark.parametrize("crop", [(518, 500), (518,), (0, 14)])
def test_crop_in_patches(crop):
    with pytest.raises(ValueError, match=r"^crop is \[height, width\] in multiples of 14, .* found \("):
        TrainTransform(518, crop)


@pytest.mark.parametrize(("size", "side"), [(518, 518), (126, 126), (100, 112), (600, 602)])
def test_the_square_of_a_size_fits_into_every_image(size, side):
    for height, width in ((60, 100), (100, 60), (90, 90)):
        assert TrainTransform(size)(sample(height, width), 0).image.shape == (side, side, 3)


def test_what_a_crop_may_be():
    message = "crop is [height, width] in multiples of 14, square for the size's own, or null for the whole image, "
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}found 'whole'\.$"):
        TrainTransform(518, "whole")


@pytest.mark.parametrize("crop", [None, (84, 98)])
def test_smaller_depth_shows_the_same_region(crop):
    """Image and depth are one ramp, 120×160 and 30×40: wherever the crop lies, they agree to a depth pixel."""
    ramps = [np.linspace(0, 250, n, endpoint=False) + 125 / n for n in (120, 160, 30, 40)]
    image = np.dstack([*np.meshgrid(ramps[1], ramps[0]), np.zeros((120, 160))]).astype(np.uint8)
    for channel, ramp in ((0, np.meshgrid(ramps[3], ramps[2])[0]), (1, np.meshgrid(ramps[3], ramps[2])[1])):
        target = 1 + ramp.astype(np.float32)
        before = DepthSample(image, target, target > 0, DepthKind.METRES, "a", "")
        for seed in range(10):
            after = TrainTransform(112, crop, flip_probability=0)(before, seed)
            assert after.image.shape[:2] == after.target.shape == after.mask.shape
            assert np.abs(after.target - 1 - after.image[..., channel]).max() < 250 / 30 / 2 + 3
            assert after.mask.all()


def sparse(height, width, share=0.02, kind=DepthKind.METRES):
    """A point here and there, each with a depth of its own."""
    rng = np.random.default_rng(0)
    mask = rng.random((height, width)) < share
    target = np.where(mask, rng.permutation(height * width).reshape(height, width) + 1, 0).astype(np.float32)
    return DepthSample(np.zeros((height, width, 3), np.uint8), target, mask, kind, "a", "")


@pytest.mark.parametrize("kind", [DepthKind.METRES, DepthKind.DISPARITY])
@pytest.mark.parametrize("size", [84, 196, 280])
def test_sparse_points_are_neither_lost_nor_doubled(size, kind):
    """At 0.42, 0.98 and 1.4 times the size; only one that falls into the pixel of a nearer one goes."""
    before = sparse(200, 300, kind=kind)
    after = TrainTransform(size, None, flip_probability=0)(before, 0)
    height, width = after.target.shape
    expected = {}
    for y, x in np.argwhere(before.mask):
        pixel = int((y + 0.5) * height / 200), int((x + 0.5) * width / 300)
        nearer = max if kind == DepthKind.DISPARITY else min
        expected[pixel] = nearer(expected.get(pixel, before.target[y, x]), before.target[y, x])
    assert {(y, x): after.target[y, x] for y, x in np.argwhere(after.mask)} == expected
    assert (after.target[~after.mask] == 0).all()
    assert len(expected) > 0.9 * before.mask.sum()


def test_sparse_points_of_a_crop_stay_where_the_image_shows_them():
    before = sparse(200, 300)
    whole = TrainTransform(84, None, flip_probability=0)(before, 0)
    seen = np.zeros(before.target.size + 1, bool)
    for seed in range(40):
        after = TrainTransform(84, (56, 70), flip_probability=0)(before._replace(image=_position(200, 300)), seed)
        (y, x), (image_y, image_x) = np.nonzero(after.mask), after.image[after.mask][:, :2].T.astype(int)
        true_y, true_x = np.divmod([np.flatnonzero(before.target == v)[0] for v in after.target[y, x]], 300)
        assert np.abs(image_y - true_y).max() <= 3
        assert np.abs(image_x - true_x / 2).max() <= 3
        seen[after.target[after.mask].astype(int)] = True
    assert seen[whole.target[whole.mask].astype(int)].mean() > 0.9  # a corner is in few crops


def _position(height, width):
    """Each pixel's row, and half its column, as colours."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([y, x // 2, 0 * x]).astype(np.uint8)


def test_another_crop_is_drawn_where_the_first_has_no_point():
    before = sparse(84, 840, share=0)
    before.mask[40, 700:], before.target[40, 700:] = True, 5
    found = [TrainTransform(84, (84, 84), flip_probability=0)(before, seed).mask.any() for seed in range(100)]
    assert np.mean(found) > 0.75  # a single draw finds one in a quarter
    empty = sparse(84, 840, share=0)
    assert not TrainTransform(84, (84, 84), flip_probability=0)(empty, 0).mask.any()


def test_crop_larger_than_the_image():
    with pytest.raises(ValueError, match=r"a/b\.h5: a crop of 98×84 does not fit into 84×140.*size=84.*60×100"):
        TrainTransform(84, (98, 84))(sample(60, 100), 0)


@pytest.mark.parametrize(
    ("height", "width", "size", "message"),
    [
        (
            60,
            6000,
            518,
            "at most 16,384 tokens, found 136,900: data.size=518 resizes 60×6000 to 518×51800 (h×w). Choose ",
        ),
        (
            6000,
            60,
            518,
            "found 136,900: data.size=518 resizes 6000×60 to 51800×518 (h×w). Choose data.size=168 or less, o",
        ),
        (
            500,
            1,
            518,
            "found 684,500: data.size=518 resizes 500×1 to 259000×518 (h×w). Choose data.size=70 or less, or c",
        ),
        (100_000, 1, 518, "resizes 100000×1 to 51800000×518 (h×w). Leave it out, or cut it into pieces."),
        (300, 3000, 1792, "at most 65,536 tokens, found 163,840: data.size=1792 resizes 300×3000 to 1792×17920"),
    ],
)
def test_what_a_narrow_image_costs_is_bounded(height, width, size, message):
    with pytest.raises(ValueError, match=f"expected an image that takes the network .*{re.escape(message)}"):
        check_cost(height, width, size)


def test_usual_images_cost_what_they_did():
    """Photographs, panoramas and KITTI at the usual size; and four squares at any size that a person chose."""
    for height, width in ((480, 640), (375, 1242), (1000, 8000), (640, 7000), (4000, 3000)):
        check_cost(height, width, 518)
        check_cost(height, width, 252)
    for size in (14, 518, 1036, 2072, 4004):
        check_cost(100, 400, size)
    check_cost(60, 6000, 168)


def test_the_size_that_the_message_offers_is_taken():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 20), rng.integers(1, 20_000)
        try:
            check_cost(int(height), int(width), 518)
        except ValueError as error:
            offered = re.search(r"Choose data\.size=(\d+)", str(error))
            if offered:
                check_cost(int(height), int(width), int(offered[1]))


def test_a_transform_names_the_image_that_costs_too_much():
    image, target = np.zeros((20, 2000, 3), np.uint8), np.ones((20, 2000), np.float32)
    strip = DepthSample(image, target, target > 0, DepthKind.METRES, "a/strip.png")
    for transform in (EvaluationTransform(518), lambda sample: TrainTransform(518, None)(sample, 0)):
        with pytest.raises(
            ValueError, match=rf"^a/strip\.png: expected an image that takes .* at most {MAX_TOKENS:,} tok"
        ):
            transform(strip)


def test_the_share_of_mirrored_samples_is_one():
    with pytest.raises(ValueError, match=r"^flip_probability is a number from 0 to 1, found 1\.5\.$"):
        TrainTransform(flip_probability=1.5)


@pytest.mark.parametrize(
    "transform, found",
    [
        (A.Normalize(p=1), r"\(42, 56, 3\) float32 after Normalize"),
        (A.ToFloat(p=1), r"\(42, 56, 3\) float32 after ToFloat"),
        (A.ToTensorV2(p=1), r"\(3, 42, 56\) torch\.uint8 after ToTensorV2"),
        (A.ToGray(num_output_channels=1, p=1), r"\(42, 56\) uint8 after ToGray"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_augmentation_that_returns_another_image_is_refused(transform, found):
    train = TrainTransform(42, (42, 56), transforms=[transform])
    with pytest.raises(
        ValueError, match=rf"^data\.augmentation needs transforms that return .* uint8, found {found}\. Leave out those"
    ):
        train(sample(42, 56), 0)


def test_transforms_that_move_the_image_alone_are_refused():
    class Cut(A.ImageOnlyTransform):
        def apply(self, img, **params):
            return np.ascontiguousarray(img[:, :28])

    with pytest.raises(ValueError, match=r"change image, target and mask alike, found sizes of \(42, 28\), \(42, 56\)"):
        TrainTransform(42, (42, 56), transforms=[Cut(p=1)])(sample(42, 56), 0)

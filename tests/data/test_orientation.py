"""Whether the EXIF orientation applies is decided once for a data set, by the shapes or the edges of its depth maps."""

import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from depth_lightning.data import DepthEncoding, DepthPairs
from depth_lightning.settings import SettingError

METRES = DepthEncoding(depth_scale=1000)
TURN = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""EXIF orientation → how the upright image was turned when it was stored."""


def scene(seed, height=90, width=120):
    """An image of rectangles (h, w, 3) with their depth in millimetres."""
    rng = np.random.default_rng(seed)
    image, depth = np.full((height, width, 3), 128, np.uint8), np.full((height, width), 5000, np.uint16)
    for _ in range(14):
        (y, x), (h, w) = rng.integers(0, (height - 20, width - 20)), rng.integers(10, 40, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
        depth[y : y + h, x : x + w] = rng.integers(1000, 4000)
    return image, depth


@pytest.fixture
def folder(tmp_path):
    """folder(turns, stored): images with these EXIF orientations, and depth maps that are upright, or as stored."""

    def write(turns, stored=False, size=(90, 120), depth_turn=1, flat=False):
        for name in ("rgb", "depth"):
            (tmp_path / name).mkdir()
        for number, turn in enumerate(turns):
            image, depth = scene(number, *size)
            exif = Image.Exif()
            exif[0x0112] = turn
            photo, truth = Image.fromarray(image), Image.fromarray(depth.astype(np.float32))
            if turn > 1:
                photo = photo.transpose(TURN[turn])
                truth = truth.transpose(TURN[turn]) if stored else truth
            photo.save(tmp_path / f"rgb/{number}.jpg", quality=97, exif=exif)
            values = np.full_like(np.asarray(truth), 2000) if flat else np.asarray(truth)
            Image.fromarray(values).save(tmp_path / f"depth/{number}.tif", tiffinfo={274: depth_turn})
        return tmp_path

    return write


def pairs(root, **options):
    return DepthPairs("train", root, "rgb/*.jpg", "depth/*.tif", val_share=0.01, encoding=METRES, **options)


@pytest.mark.parametrize("stored, exif", [(False, "apply"), (True, "ignore")])
@pytest.mark.parametrize(
    "turns, size", [([6] * 4, (90, 120)), ([8, 1, 6, 1, 3], (90, 120)), ([3] * 12, (90, 120)), ([6] * 12, (90, 90))]
)
def test_decided_by_what_fits(turns, size, stored, exif, folder, caplog):
    with caplog.at_level(logging.INFO):
        data = pairs(folder(turns, stored, size))
    assert data.settled["exif"] == exif
    done = {"apply": "applied", "ignore": "ignored"}[exif]
    assert f"data.exif=auto: the EXIF orientation of images and depth maps is {done}: " in caplog.text
    for index in range(len(data)):
        number = int(data.pairs[index].id[4:-4])
        image, depth = scene(number, *size)
        if stored:
            image, depth = (np.rot90(array, {1: 0, 3: 2, 6: 1, 8: -1}[turns[number]]) for array in (image, depth))
        sample = data[index]
        assert np.array_equal(sample.target, (depth / 1000).astype(np.float32))
        assert np.abs(sample.image.astype(int) - image).mean() < 8


def test_what_was_typed_counts(folder):
    root = folder([6] * 3, stored=False, size=(90, 90))
    assert pairs(root, exif="apply")[0].target.shape == (90, 90)
    ignored = pairs(root, exif="ignore")
    assert ignored.settled["exif"] == "ignore"
    upright = pairs(root, exif="apply")[0].image
    assert np.array_equal(np.rot90(upright), ignored[0].image)
    with pytest.raises(SettingError, match=r"^exif is one of auto, apply, ignore, found 'yes'"):
        pairs(root, exif="yes")


def test_what_cannot_be_decided_is_an_error_with_what_to_type(folder):
    root = folder([3] * 4, flat=True)
    with pytest.raises(
        ValueError,
        match=r"^data\.exif=auto cannot decide: 4 images or depth maps have an EXIF orientation \(such as rgb/0\.jpg: "
        r"image 3, depth map 1\), and neither the shapes nor the edges .*Type data\.exif=apply if .*data\.exif=ignore",
    ):
        pairs(root)
    assert pairs(root, exif="ignore")[0].mask.all()


def test_shapes_that_contradict_each_other(folder):
    root = folder([6, 6])
    _, depth = scene(1)
    Image.fromarray(np.rot90(depth).astype(np.float32)).save(root / "depth/1.tif")
    with pytest.raises(ValueError, match=r"1 depth maps fit their image only with it applied, and 1 only without"):
        pairs(root)


def test_depth_has_an_orientation_too(folder):
    """Stored as the image is, both with the same orientation: both are turned upright."""
    root = folder([6] * 2, stored=True, depth_turn=6)
    data = pairs(root)
    assert data.settled["exif"] == "apply"
    image, depth = scene(int(data[0].id[4:-4]))
    assert np.array_equal(data[0].target, (depth / 1000).astype(np.float32))
    assert data[0].image.shape == image.shape
    assert pairs(root, exif="ignore")[0].image.shape == (120, 90, 3)


def test_masks_are_turned_like_depth(folder):
    root = folder([6] * 2, stored=True, depth_turn=6)
    (root / "mask").mkdir()
    for number in range(2):
        mask = np.zeros((90, 120), np.uint8)
        mask[:20, :30] = 1
        Image.fromarray(np.rot90(mask)).save(root / f"mask/{number}.tif", tiffinfo={274: 6})
    mask = pairs(root, mask="mask/*.tif")[0].mask
    assert mask[:20, :30].all() and mask.sum() == 600


def test_without_orientations_nothing_is_decided_and_a_later_one_is_refused(folder):
    root = folder([1] * 3)
    data = pairs(root)
    assert data.settled == {"exif": "auto", "image_range": None}
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.open(root / "rgb/1.jpg").convert("RGB")
    image.save(root / "rgb/1.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"rgb/1\.jpg: expected no EXIF orientation.*Type data\.exif=apply"):
        [data[index] for index in range(len(data))]


def test_an_aspect_that_does_not_fit_names_exif(folder):
    root = folder([6] * 2)
    with pytest.raises(
        ValueError, match=r"register them first\. Their EXIF orientation is ignored \(data\.exif=ignore\)"
    ):
        pairs(root, exif="ignore")[0]


def test_both_splits_are_read_alike(tmp_path):
    """The range of values comes from all images, whatever split they are in."""
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    for number, top in enumerate((900, 1000, 3900, 4000)):
        cv2.imwrite(str(tmp_path / f"rgb/{number}.png"), np.linspace(0, top, 4800).reshape(60, 80).astype(np.uint16))
        cv2.imwrite(str(tmp_path / f"depth/{number}.png"), np.full((60, 80), 2000, np.uint16))
    splits = [
        DepthPairs(split, tmp_path, "rgb/*.png", "depth/*.png", split_list=["rgb/3.png"], encoding=METRES)
        for split in ("train", "val")
    ]
    assert [data.settled["image_range"] for data in splits] == [[0, 4095]] * 2
    own = DepthPairs("train", tmp_path, "rgb/*.png", "depth/*.png", image_range=[0, 1000], encoding=METRES)
    assert own.settled["image_range"] == [0, 1000]

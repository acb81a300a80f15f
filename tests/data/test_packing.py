"""Depth packed into colours or bits, against values packed here by the formulas of the data sets."""

import re
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from depth_lightning.data import DepthEncoding, DepthPairs
from depth_lightning.data.files import read_map
from depth_lightning.data.packing import looks_rotated
from depth_lightning.settings import SettingError

RNG = np.random.default_rng(0)
METRES = RNG.uniform(0.1, 900, (12, 16)).astype(np.float32)
MILLIMETRES = RNG.integers(0, 65536, (12, 16)).astype(np.uint16)


def saved(path, array):
    Image.fromarray(array).save(path)
    return path


def test_carla(tmp_path):
    number = np.round(METRES.astype(np.float64) / 1000 * (2**24 - 1)).astype(int)
    channels = [number % 256, number // 256 % 256, number // 65536]  # R is the lowest byte
    for name, extra in (("rgb.png", []), ("rgba.png", [np.full_like(number, 255)])):
        path = saved(tmp_path / name, np.stack([*channels, *extra], -1).astype(np.uint8))
        read = read_map(path, packing="carla_rgb24")
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, METRES, atol=1000 / 2**24, rtol=1e-6)
    sky = saved(tmp_path / "sky.png", np.full((2, 2, 3), 255, np.uint8))
    assert (read_map(sky, packing="carla_rgb24") == 1000).all()


def test_tartanair(tmp_path):
    """As its own code does: cv2.imread(…, IMREAD_UNCHANGED).view("<f4")."""
    packed = np.frombuffer(b"".join(struct.pack("<f", value) for value in METRES.ravel()), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), packed.reshape(12, 16, 4))
    assert np.array_equal(read_map(tmp_path / "a.png", packing="tartanair_rgba"), METRES)


def test_split16(tmp_path):
    rgb = np.stack([MILLIMETRES >> 8, MILLIMETRES & 255, np.zeros_like(MILLIMETRES)], -1).astype(np.uint8)
    read = read_map(saved(tmp_path / "a.png", rgb), packing="split16")
    assert read.dtype == np.uint16 and np.array_equal(read, MILLIMETRES)


def test_sun_rgbd(tmp_path):
    """Its toolbox reads bitor(bitshift(d, -3), bitshift(d, 16 - 3))."""
    rotated = ((MILLIMETRES.astype(int) << 3) | (MILLIMETRES >> 13)) & 65535
    cv2.imwrite(str(tmp_path / "a.png"), rotated.astype(np.uint16))
    assert np.array_equal(read_map(tmp_path / "a.png", packing="sunrgbd"), MILLIMETRES)


def test_grey_in_several_channels_is_read_as_one(tmp_path):
    cv2.imwrite(str(tmp_path / "rgb.png"), np.dstack([MILLIMETRES] * 3))
    cv2.imwrite(str(tmp_path / "rgba.png"), np.dstack([*[MILLIMETRES] * 3, np.full_like(MILLIMETRES, 65535)]))
    grey = MILLIMETRES.astype(np.uint8)
    saved(tmp_path / "mask.png", np.dstack([grey] * 3))
    saved(tmp_path / "la.png", np.dstack([grey, 255 - grey]))
    for name, expected in {"rgb": MILLIMETRES, "rgba": MILLIMETRES, "mask": grey, "la": grey}.items():
        assert np.array_equal(read_map(tmp_path / f"{name}.png"), expected), name


def test_other_channels_are_refused_by_name(tmp_path):
    rgb = saved(tmp_path / "rgb.png", RNG.integers(0, 256, (12, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"rgb\.png: expected one value per pixel.*declare how: data\.packing=…"):
        read_map(rgb)
    for packing, expected, found in (
        ("tartanair_rgba", "four channels of 8 bits", "3 of uint8"),
        ("sunrgbd", "one channel of 16 bits", "3 of uint8"),
    ):
        with pytest.raises(ValueError, match=rf"rgb\.png: expected {expected}, as data\.packing={packing}.*{found}\."):
            read_map(rgb, packing=packing)
    cv2.imwrite(str(tmp_path / "deep.png"), MILLIMETRES)
    for packing in ("carla_rgb24", "split16"):
        with pytest.raises(ValueError, match=r"deep\.png: expected three or four channels .* found 1 of uint16"):
            read_map(tmp_path / "deep.png", packing=packing)
    np.save(tmp_path / "a.npy", METRES)
    with pytest.raises(ValueError, match=r"a\.npy: expected one of \.png, \.tif, \.tiff, which data\.packing=sunrgbd"):
        read_map(tmp_path / "a.npy", packing="sunrgbd")


@pytest.fixture
def folder(tmp_path):
    for name in ("rgb", "depth", "conf"):
        (tmp_path / name).mkdir()
    for number in range(2):
        saved(tmp_path / f"rgb/{number}.png", RNG.integers(0, 256, (24, 32, 3), np.uint8))
        saved(tmp_path / f"depth/{number}.png", np.full((24, 32), 16001, np.uint16))  # 2000 mm, rotated by three bits
        saved(tmp_path / f"conf/{number}.png", np.repeat(np.arange(3, dtype=np.uint8), 8)[:, None].repeat(32, 1))
    return tmp_path


def pairs(root, **options):
    return DepthPairs("train", root, "rgb/*.png", "depth/*.png", val_share=0.1, **options)


def test_a_data_set_declares_its_packing(folder):
    sample = pairs(folder, packing="sunrgbd", encoding=DepthEncoding(depth_scale=1000))[0]
    assert np.unique(sample.target).tolist() == [np.float32(((16001 >> 3) | (16001 << 13) & 65535) / 1000)]
    with pytest.raises(SettingError, match=r"^packing is one of carla_rgb24, tartanair_rgba, split16, sunrgbd, found"):
        pairs(folder, packing="rgb24")


@pytest.mark.parametrize("least, holes", [(None, 8), (1, 8), (2, 16), (1.5, 16), (0, 0)])
def test_what_is_less_than_confident_is_a_hole(least, holes, folder):
    sample = pairs(folder, mask="conf/*.png", min_confidence=least, encoding=DepthEncoding(depth_scale=8000))[0]
    assert not sample.mask[:holes].any() and sample.mask[holes:].all()
    assert not sample.target[:holes].any()


def test_confidence_needs_a_mask(folder):
    with pytest.raises(SettingError, match=r"^min_confidence is about masks.*set data\.mask=… as well"):
        pairs(folder, min_confidence=2)
    with pytest.raises(SettingError, match=r"^min_confidence is a number, found 'high'"):
        pairs(folder, mask="conf/*.png", min_confidence="high")


@pytest.mark.parametrize("most", [8000, 12000])
def test_rotated_bits_that_are_not_declared_are_warned_of(most, folder, caplog):
    millimetres = np.linspace(1000, most, 24 * 32).reshape(24, 32).astype(np.uint16)
    for number in range(2):
        rotated = (millimetres << 3) | (millimetres >> 13)
        cv2.imwrite(str(folder / f"depth/{number}.png"), rotated)
    warned = "its values are multiples of 8, as in SUN RGB-D.*type data.packing=sunrgbd data.depth_scale=1000"
    for options, found in (
        ({}, True),
        ({"packing": "sunrgbd"}, False),
        ({"encoding": DepthEncoding(kind="disparity")}, False),
    ):
        caplog.clear()
        pairs(folder, **options)
        assert bool(re.search(warned, caplog.text)) == found
    far = np.where(millimetres > 2000, 4 * (millimetres // 4), 1000)
    assert looks_rotated((far << 3) | (far >> 13)) == (most > 8191)
    for steps in (10, 16, 5):  # other whole units
        values = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * steps + 100 * steps
        assert not looks_rotated(values)


def test_real_maps_do_not_look_rotated(realdata):
    for path in sorted(realdata.glob("pairs/*/*.depth.png")):
        assert not looks_rotated(read_map(path)), path

"""How image files become uint8 RGB, against Pillow and NumPy."""

import io
import logging
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from depth_lightning.data import images
from depth_lightning.data.files import read_image, read_map
from depth_lightning.data.image_header import has_8_bits, orientation
from depth_lightning.data.images import check_range, derive_range, orientation_of
from depth_lightning.settings import SettingError

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
GREY = cv2.GaussianBlur(RGB[..., 0], (0, 0), 2)


@pytest.fixture(autouse=True)
def nothing_warned(monkeypatch):
    monkeypatch.setattr(images, "_warned", set())


def tagged(path, array, turn, **options):
    image = Image.fromarray(array)
    exif = Image.Exif()
    exif[0x0112] = turn
    if path.suffix == ".tif":
        image.save(path, tiffinfo={274: turn}, **options)
    else:
        image.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(
    "name, options",
    [
        ("a.jpg", {"quality": 95}),
        ("a.png", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_orientations_are_those_of_pillow(name, options, turn, tmp_path):
    path = tagged(tmp_path / name, RGB, turn, **options)
    stored = np.asarray(Image.open(path).convert("RGB"))
    if name == "a.tif" and turn > 1:
        stored = RGB  # Pillow turns a TIFF when it is loaded
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    assert orientation_of(path) == turn
    most = 8 if name == "a.jpg" else 0  # decoders of JPEG differ
    assert np.abs(read_image(path).astype(int) - stored).max() <= most
    assert np.abs(read_image(path, upright=True).astype(int) - upright).max() <= most


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_maps_are_turned_in_the_same_way(dtype, turn, tmp_path):
    depth = np.arange(24, dtype=dtype).reshape(4, 6)
    floating = tagged(tmp_path / "b.tif", depth.astype(np.float32), turn)  # Pillow errs with 16 bits
    turned = np.asarray(ImageOps.exif_transpose(Image.open(floating)))
    tagged(tmp_path / "a.tif", depth, turn)
    assert np.array_equal(read_map(tmp_path / "a.tif"), depth)
    assert np.array_equal(read_map(tmp_path / "a.tif", upright=True), turned)
    if dtype == np.uint16:
        assert np.array_equal(read_map(tagged(tmp_path / "a.png", depth, turn), upright=True), turned)


def test_an_orientation_that_was_not_expected_is_refused(tmp_path):
    for name in ("a.jpg", "a.png", "a.tif"):
        path = tagged(tmp_path / name, RGB, 6)
        for read in (read_image, *([read_map] if name != "a.jpg" else [])):
            with pytest.raises(ValueError, match=rf"{name}: expected no EXIF orientation.* found 6\. Type data\.exif="):
                read(path, upright=None)


def test_odd_headers_have_no_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    packed = io.BytesIO()
    Image.fromarray(RGB).save(packed, "JPEG", exif=exif, icc_profile=bytes(1000))
    whole = packed.getvalue()
    assert orientation(memoryview(whole)) == 6
    at = whole.index(b"\x01\x12\x00\x03") if b"\x01\x12\x00\x03" in whole else whole.index(b"\x12\x01\x03\x00")
    nine = bytearray(whole)
    nine[at + 8 : at + 10] = b"\0\x09" if whole[at] == 1 else b"\x09\0"
    assert orientation(memoryview(bytes(nine))) == 1
    rng = np.random.default_rng(0)
    for _ in range(300):  # any damage at all
        torn = np.frombuffer(whole, np.uint8)[: rng.integers(0, 400)].copy()
        torn[rng.integers(0, max(1, torn.size), 3)[: torn.size]] = rng.integers(0, 256)
        assert 1 <= orientation(memoryview(torn.tobytes())) <= 8
    assert orientation_of(tmp_path / "gone.jpg") == 1
    os.mkfifo(tmp_path / "fifo.jpg")
    assert orientation_of(tmp_path / "fifo.jpg") == 1


def written(folder, name, *arrays):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}_{name}" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        assert cv2.imwrite(str(path), array)
    return paths


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_camera_of_more_than_8_bits(bits, tmp_path):
    top = 2**bits - 1
    exact = np.linspace(0, top, 2400).reshape(40, 60)
    paths = written(tmp_path, "a.png", exact.astype(np.uint16), (exact / 2).astype(np.uint16))
    assert derive_range(paths) == (0, top)
    read = read_image(paths[0], image_range=derive_range(paths))
    assert (read == np.round(exact.astype(np.uint16) / top * 255)[..., None]).all()


def test_all_of_16_bits_stays_what_it_was(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    paths = written(tmp_path, "a.png", values, np.dstack([values] * 3))
    for path in paths:
        for image_range in (None, derive_range(paths)):
            assert (read_image(path, image_range=image_range) == np.round(values / 257)[..., None]).all()


@pytest.mark.parametrize(
    "low, high, dtype",
    [
        (7000, 8600, np.uint16),  # counts of a microbolometer
        (29315, 31315, np.uint16),  # centikelvin
        (20.5, 37.25, np.float32),  # °C
        (-15, 25, np.float32),
        (-1500, 2500, np.int16),
        (290.0, 310.0, np.float64),
        (3e5, 4e5, np.float32),
    ],
)
def test_a_thermal_camera(low, high, dtype, tmp_path):
    frames = [(low + (high - low) * (frame / 255)).astype(dtype) for frame in (GREY, 255 - GREY)]
    kept = frames[0].astype(np.float64)
    paths = written(tmp_path, "a.png" if dtype == np.uint16 else "a.tif", *frames)
    darkest, brightest = derive_range(paths)
    both = np.concatenate([frame.ravel().astype(np.float64) for frame in frames])
    assert (darkest, brightest) == pytest.approx(tuple(np.quantile(both, (0.001, 0.999))), rel=1e-5)
    expected = np.clip(np.round((kept - darkest) / (brightest - darkest) * 255), 0, 255)
    assert (read_image(paths[0], image_range=(darkest, brightest)) == expected[..., None]).all()


@pytest.mark.parametrize("top", [1, 255])
def test_floating_point_as_pillow_and_others_save_it(top, tmp_path):
    Image.fromarray((GREY / 255 * top).astype(np.float32)).save(tmp_path / "a.tif")
    frame = np.linspace(0, top, 2400, dtype=np.float32).reshape(40, 60)
    paths = [tmp_path / "a.tif", *written(tmp_path, "b.tif", frame, np.dstack([frame] * 3))]
    assert derive_range(paths) == (0, top)
    assert np.abs(read_image(paths[0], image_range=(0, top)).astype(int) - GREY[..., None]).max() <= 1
    frame[0, 0] = np.nan
    assert (read_image(*written(tmp_path, "c.tif", frame), image_range=(0, top))[0, 0] == 0).all()


def test_a_dead_pixel_does_not_decide(tmp_path):
    frame = np.linspace(7000, 8600, 2400).reshape(40, 60).astype(np.uint16)
    frame[3, 4] = 65535
    low, high = derive_range(written(tmp_path, "a.png", frame))
    assert low == pytest.approx(7000, abs=5) and high == pytest.approx(8600, abs=5)


def test_8_bits_stay_and_have_no_range(tmp_path):
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.tif", "d.bmp", "e.webp", "f.gif")]
    for path in paths:
        Image.fromarray(GREY).save(path)
        assert has_8_bits(memoryview(path.read_bytes()))
    (tmp_path / "damaged.png").write_bytes(paths[1].read_bytes()[:60])
    assert derive_range([*paths, tmp_path / "damaged.png", tmp_path / "gone.png"]) is None
    assert np.array_equal(read_image(paths[1], image_range=(100, 120)), np.dstack([GREY] * 3))


def test_an_image_that_uses_little_of_its_type_is_warned_of_once(tmp_path, caplog):
    narrow = written(tmp_path, "a.png", *[np.uint16(16) * GREY] * 3)
    with caplog.at_level(logging.WARNING):
        for path in narrow:
            assert read_image(path).max() <= 16
    (record,) = caplog.records
    assert f"{narrow[0]}: its values, " in record.message
    assert "less than a sixteenth of the range from dark to bright, 0 to 65535" in record.message
    assert "data.image_range=[darkest,brightest]" in record.message
    caplog.clear()
    assert read_image(narrow[0], image_range=derive_range(narrow)).max() > 100
    assert not caplog.records


def test_other_types_need_a_range(tmp_path):
    (path,) = written(tmp_path, "a.tif", np.linspace(20, 37, 2400, dtype=np.float32).reshape(40, 60))
    with pytest.raises(
        ValueError,
        match=r"a\.tif: expected an image of 8 or 16 bits, found float32 from 20 to 37\. Declare which values are dark "
        r"and bright: data\.image_range=\[20,37\]\.",
    ):
        read_image(path)


@pytest.mark.parametrize("value", [5, [1], [2, 1], [0, 0], [0, "a"], "auto", [0, float("nan")]])
def test_ranges_that_are_none(value):
    with pytest.raises(SettingError, match=r"^image_range is \[darkest, brightest\] stored value"):
        check_range("image_range", value)

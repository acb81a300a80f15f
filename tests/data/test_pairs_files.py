import re
import struct
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from depth_lightning.data.files import read_image, read_map, split_key

DEPTH = np.array([[0.5, 1.25, np.inf], [3.0, 0.0, 7.75]], np.float32)


def test_pfm_of_both_byte_orders_runs_bottom_up(tmp_path):
    for sign, order in (("-1.0", "<"), ("1", ">")):
        rows = b"".join(struct.pack(f"{order}3f", *row) for row in DEPTH[::-1])
        (tmp_path / "a.pfm").write_bytes(f"Pf\n3 2\n{sign}\n".encode() + rows)
        assert np.array_equal(read_map(tmp_path / "a.pfm"), DEPTH)
    cv2.imwrite(str(tmp_path / "b.pfm"), DEPTH)
    assert np.array_equal(read_map(tmp_path / "b.pfm"), DEPTH)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pf\n3 2\n-1\n" + bytes(20), "expected 24 bytes for 3×2, found 20"),
        (b"PF\n3 2\n-1\n" + bytes(72), "one channel"),
        (b"P5\n3 2\n255\n" + bytes(6), "begins with b'P5"),
    ],
)
def test_pfm_that_is_none(content, message, tmp_path):
    (tmp_path / "a.pfm").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.pfm.*{re.escape(message)}"):
        read_map(tmp_path / "a.pfm")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiff_and_png_keep_their_values(dtype, tmp_path):
    stored = np.array([[1, 300, 65535], [0, 5, 7]], dtype)
    for name in ["a.tif", "a.TIFF", *(["a.png"] if dtype == np.uint16 else [])]:
        assert cv2.imwrite(str(tmp_path / name), stored)
        read = read_map(tmp_path / name)
        assert read.dtype == dtype
        assert np.array_equal(read, stored)


def test_arrays_and_their_keys(tmp_path):
    np.save(tmp_path / "a.npy", DEPTH[..., None])  # as DIODE has it
    np.savez(tmp_path / "one.npz", DEPTH)
    np.savez(tmp_path / "two.npz", depth=DEPTH, other=DEPTH + 1)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["rgb"], file["group/depth"] = np.zeros((3, 2, 3)), DEPTH
    with h5py.File(tmp_path / "one.hdf5", "w") as file:
        file["dataset"] = DEPTH.astype(np.float16)
    assert np.array_equal(read_map(tmp_path / "a.npy"), DEPTH)
    assert np.array_equal(read_map(tmp_path / "one.npz"), DEPTH)
    assert np.array_equal(read_map(tmp_path / "one.hdf5"), DEPTH)
    assert np.array_equal(read_map(*split_key(str(tmp_path / "two.npz:other"))), DEPTH + 1)
    assert np.array_equal(read_map(*split_key(str(tmp_path / "two.h5:group/depth"))), DEPTH)
    with pytest.raises(ValueError, match=r"two\.npz: expected one array.*found \['depth', 'other'\].*data\.depth_key"):
        read_map(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"two\.h5: expected an array named 'depth', found \['group/depth', 'rgb'\]"):
        read_map(tmp_path / "two.h5", "depth")


def test_only_files_of_several_arrays_have_keys():
    assert split_key("a/b.h5:depth") == (Path("a/b.h5"), "depth")
    assert split_key("a:b/c.png") == (Path("a:b/c.png"), None)
    assert split_key("a/b.npz") == (Path("a/b.npz"), None)


def test_exr_channels(tmp_path):
    openexr = pytest.importorskip("OpenEXR", reason="needs the optional package OpenEXR")

    def write(**channels):
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        with openexr.File(header, channels) as file:
            file.write(str(tmp_path / "a.exr"))
        return tmp_path / "a.exr"

    other = DEPTH[::-1].copy()
    assert np.array_equal(read_map(write(Z=DEPTH)), DEPTH)
    assert np.array_equal(read_map(write(V=DEPTH.astype(np.float16))), DEPTH)
    assert np.array_equal(read_map(write(R=DEPTH, G=DEPTH, B=DEPTH)), DEPTH)
    assert np.array_equal(read_map(write(R=DEPTH, G=other, B=DEPTH, Z=other), "Z"), other)
    with pytest.raises(ValueError, match=r"expected one array.*found \['B', 'G', 'R'\]"):
        read_map(write(R=DEPTH, G=other, B=DEPTH))
    (tmp_path / "a.exr").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.exr: expected an EXR file"):
        read_map(tmp_path / "a.exr")


def test_exr_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "a.exr").write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match=r"a\.exr needs .*pip install 'depth-lightning\[exr\]'"):
        read_map(tmp_path / "a.exr")


def test_wrong_files_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((4, 6, 3), np.uint16))
    for name in ("a.png", "a.npy", "a.npz", "a.h5", "a.jpg"):
        (tmp_path / name).write_bytes(b"nothing")
    expected = {
        "colour.png": r"one value per pixel.*\(4, 6, 3\).*coloured picture",
        "a.png": "cannot decode",
        "a.npy": "NumPy",
        "a.npz": "NumPy",
        "a.h5": "HDF5",
        "a.jpg": r"expected one of \.png.*found '\.jpg'",
    }
    for name, message in expected.items():
        with pytest.raises(ValueError, match=rf"{name}.*{message}"):
            read_map(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"b\.npy"):
        read_map(tmp_path / "b.npy")


def test_images_become_rgb_of_8_bits(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    rgba = np.dstack([rgb, np.full((4, 6), 30, np.uint8)])
    images = {"rgb": rgb, "rgba": rgba, "grey": rgb[..., 0]}
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        expected = np.dstack([image] * 3) if image.ndim == 2 else rgb
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), expected)
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / "deep.png"), rgb)
    cv2.imwrite(str(tmp_path / "float.tif"), rgb.astype(np.float32))
    with pytest.raises(ValueError, match=r"float\.tif: expected an image of 8 or 16 bits, found float32"):
        read_image(tmp_path / "float.tif")


def test_orientation_is_left_to_the_depth(tmp_path):
    image = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (10, 20, 3)

"""Files that claim what memory does not hold, or hold no depth map: refused by name, before it costs anything."""

import io
import re
import struct
import zipfile
import zlib

import cv2
import h5py
import numpy as np
import pytest

from depth_lightning.data import DepthEncoding, DepthPairs
from depth_lightning.data.files import read_image, read_map
from depth_lightning.data.nyu import read_h5

H, W = 28, 42
DEPTH = np.full((H, W), 2, np.float32)


@pytest.fixture(autouse=True)
def without_large_arrays(monkeypatch):
    """No decoder is asked for more than a few megabytes."""

    def small(function):
        def checked(*args, **kwargs):
            found = function(*args, **kwargs)
            assert found is None or found.nbytes < 2**24
            return found

        return checked

    for module, name in ((cv2, "imdecode"), (np, "empty"), (np.lib.format, "read_array")):
        monkeypatch.setattr(module, name, small(getattr(module, name)))


def png(width, height, depth=8, colour=2):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg(width, height):
    whole = cv2.imencode(".jpg", np.zeros((H, W, 3), np.uint8))[1].tobytes()
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def npy(shape, descr="<f4", data=bytes(64)):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def npz(content, name="depth.npy", method=zipfile.ZIP_STORED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def changed(content, at, by):
    return content[:at] + by + content[at + len(by) :]


def encrypted(content):
    directory = content.index(b"PK\1\2")
    return changed(changed(content, 6, b"\1"), directory + 8, b"\1")


def whole_npy():
    packed = io.BytesIO()
    np.save(packed, np.random.default_rng(0).random((H, W), np.float32))
    return packed.getvalue()


DEFLATED = npz(whole_npy(), method=zipfile.ZIP_DEFLATED)
PIECES = r"expected sides of at most 16384 pixels, found {} \(h×w\)\. Make it smaller, or cut it into pieces\."
CUT = r"expected an array written by NumPy, found one that is cut short or damaged \({}"
SHAPE = r"expected one value per pixel, \(h, w\), found an array of {}"
KIND = r"expected whole or floating-point numbers, found {}"
FILES = [
    ("a.png", png(50_000, 50_000), PIECES.format("50000×50000")),
    ("a.png", png(40_000, 30_000, 1, 0), PIECES.format("30000×40000")),
    ("a.png", png(20_000, 20_000), PIECES.format("20000×20000")),
    ("a.png", png(2**31 - 1, 1), PIECES.format("1×2147483647")),
    ("a.png", png(0, 0), "expected an image, found one that OpenCV cannot decode"),
    ("a.jpg", jpeg(65_535, 65_535), PIECES.format("65535×65535")),
    (
        "a.tif",
        b"MM\0*" + struct.pack(">IHHHIIHHII", 8, 2, 256, 4, 1, 10**6, 257, 4, 1, 10**6),
        PIECES.format("1000000×1000000"),
    ),
    ("a.jpg", b"GIF89a" + struct.pack("<HH", 28_458, 33_052) + bytes(99), PIECES.format("33052×28458")),
    (
        "a.png",
        b"P6\n100000 100000\n255\n" + bytes(99),
        "expected an image, found one that does not fit into memory .*CV_IO_MAX_IMAGE_PIXELS",
    ),
    ("a.pfm", b"Pf\n100000000 100000000\n-1\n" + bytes(64), PIECES.format("100000000×100000000")),
    ("a.pfm", b"Pf\n4 4\nabc\n" + bytes(64), r"expected a PFM file, found one that begins with b'Pf\\n4 4\\nabc"),
    ("a.pfm", b"Pf\n4 4\nnan\n" + bytes(64), "expected a PFM file, found one that begins with"),
    ("a.pfm", b"Pf\n4 4\n-.e.\n" + bytes(64), "expected a PFM file, found one that is cut short or damaged"),
    ("a.pfm", b"Pf\n" + b"9" * 5000 + b" 4\n-1\n", "expected a PFM file, found one that begins with"),
    ("a.pfm", b"Pf\n0 0\n-1\n", SHAPE.format(r"\(0, 0\)")),
    ("a.npy", npy((10**6, 10**6)), PIECES.format("1000000×1000000")),
    ("a.npy", npy((2**62, 2**62)), PIECES.format(f"{2**62}×{2**62}")),
    ("a.npy", npy((10**7, 480, 640)), SHAPE.format(r"\(10000000, 480, 640\)")),
    ("a.npy", npy((-1, 5)), SHAPE.format(r"\(-1, 5\)")),
    ("a.npy", npy((0, 10**9)), SHAPE.format(r"\(0, 1000000000\)")),
    ("a.npy", npy((100, 100)), r"expected 40000 bytes for an array of \(100, 100\) float32, found 64\."),
    ("a.npy", npy((2, 2), "<U500000000"), KIND.format("<U500000000")),
    ("a.npy", npy((2, 2), "|O"), KIND.format("object")),
    ("a.npy", npy((4, 4), "<c8"), KIND.format("complex64")),
    ("a.npy", npy((4, 4), "<M8[s]"), KIND.format("datetime64")),
    ("a.npy", npy("(True, 16)"), CUT.format("an integer is required")),
    ("a.npy", npy("(" * 5000), CUT.format("")),
    ("a.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 2**31 - 1) + b"{" * 999, CUT.format("EOF: reading array header")),
    ("a.npz", npz(npy((40_000, 40_000))), PIECES.format("40000×40000")),
    ("a.npz", npz(b"hello, world", "depth.txt"), CUT.format("the magic string is not correct")),
    ("a.npz", npz(b"", "depth/"), CUT.format("EOF")),
    ("a.npz", encrypted(npz(whole_npy())), CUT.format("File 'depth.npy' is encrypted")),
    ("a.npz", changed(DEFLATED, 90, b"\xff" * 60), CUT.format("Error -3 while decompressing data")),
    ("a.npz", changed(npz(whole_npy()), 900, bytes(8)), CUT.format("Bad CRC-32")),
    ("a.npz", changed(npz(whole_npy(), method=zipfile.ZIP_LZMA), 60, bytes(8)), CUT.format("Corrupt input data")),
    ("a.npz", changed(npz(whole_npy(), method=zipfile.ZIP_BZIP2), 60, bytes(8)), CUT.format("Invalid data stream")),
    ("a.npz", DEFLATED[: len(DEFLATED) // 2], CUT.format("File is not a zip file")),
    ("a.npz", npz(npz(whole_npy())), CUT.format("the magic string is not correct")),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), FILES, ids=[f"{number}-{file[0]}" for number, file in enumerate(FILES)]
)
def test_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    pattern = re.compile(rf"{re.escape(str(tmp_path / name))}: {message}")
    images, maps = name.endswith(("png", "tif", "jpg")), not name.endswith("jpg")
    for read in [*([read_image] if images else []), *([read_map] if maps else [])]:
        with pytest.raises(ValueError) as caught:
            read(tmp_path / name)
        assert pattern.match(str(caught.value)), str(caught.value)


def h5(path, **made):
    """A frame of the h5 release, but for what `made` has in its place: an array, or arguments for `create_dataset`."""
    with h5py.File(path, "w") as file:
        for name, content in {"rgb": np.zeros((3, H, W), np.uint8), "depth": DEPTH, **made}.items():
            if isinstance(content, dict):
                file.create_dataset(name, **content)
            elif content is not None:
                file[name] = content
    return path


H5 = [
    ({"depth": {"shape": (10**7, 480, 640), "dtype": "f4", "chunks": (1, 480, 640)}}, SHAPE.format(r"\(10000000, 480")),
    ({"depth": {"shape": (10**6, 10**6), "dtype": "f4", "chunks": (64, 64)}}, PIECES.format("1000000×1000000")),
    ({"depth": np.float32(1)}, SHAPE.format(r"\(\)")),
    ({"depth": h5py.Empty("f4")}, SHAPE.format("None")),
    ({"depth": np.ones((H, W), "c8")}, KIND.format("complex64")),
    ({"depth": np.ones((H, W), [("a", "f4")])}, KIND.format(r"\[\('a', '<f4'\)\]")),
    ({"depth": {"shape": (H, W), "dtype": h5py.string_dtype()}}, KIND.format("object")),
    ({"depth": np.ones((0, W), "f4")}, SHAPE.format(r"\(0, 42\)")),
    (
        {"depth": {"shape": (H, W), "dtype": "f4", "chunks": (30_000, 30_000), "maxshape": (None, None)}},
        r"expected chunks of at most 268435456 values, found \(30000, 30000\)\. Repack it\.",
    ),
]


@pytest.mark.parametrize(("made", "message"), H5, ids=lambda value: str(value)[:60])
def test_h5(made, message, tmp_path):
    path = h5(tmp_path / "a.h5", **made)
    with pytest.raises(ValueError, match=rf"^\S*a\.h5: {message}"):
        read_map(path, "depth")
    with pytest.raises(ValueError, match=r"^\S*a\.h5: expected ('depth' as|chunks of|image and depth of one size)"):
        read_h5(path)


def test_h5_claims_of_the_image(tmp_path):
    path = h5(tmp_path / "a.h5", rgb={"shape": (10**12, 480, 640), "dtype": "u1", "chunks": (1, 480, 640)})
    with pytest.raises(
        ValueError, match=r"a\.h5: expected 'rgb' as \(3, h, w\) uint8, found \(1000000000000, 480, 640\)"
    ):
        read_h5(path)
    huge = {"chunks": (64, 64), "shape": (20_000, 20_000), "dtype": "f4"}
    path = h5(tmp_path / "b.h5", rgb={"shape": (3, 20_000, 20_000), "dtype": "u1", "chunks": (3, 64, 64)}, depth=huge)
    with pytest.raises(ValueError, match=rf"b\.h5: {PIECES.format('20000×20000')}"):
        read_h5(path)


def test_exr_claims(tmp_path):
    openexr = pytest.importorskip("OpenEXR", reason="needs the optional package OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(header, {"Z": DEPTH}) as file:
        file.write(str(tmp_path / "a.exr"))
    whole = (tmp_path / "a.exr").read_bytes()
    at = whole.index(b"dataWindow\0box2i\0") + 21
    for corner, message in (
        ((999_999, 999_999), PIECES.format("1000000×1000000")),
        ((29_999, 29_999), PIECES.format("30000×30000")),
    ):
        (tmp_path / "b.exr").write_bytes(changed(whole, at, struct.pack("<4i", 0, 0, *corner)))
        with pytest.raises(ValueError, match=rf"b\.exr: {message}"):
            read_map(tmp_path / "b.exr")
    (tmp_path / "b.exr").write_bytes(changed(whole, whole.index(b"channels") + 16, b"\xac\xa2\xf2"))
    with pytest.raises(ValueError, match=r"b\.exr: expected an EXR file, found one that is cut short or damaged"):
        read_map(tmp_path / "b.exr")


@pytest.fixture
def samples():
    """A small whole file of every format."""
    depth = np.random.default_rng(0).uniform(1, 9, (H, W)).astype(np.float32)
    millimetres = (1000 * depth).astype(np.uint16)
    yield {
        "a.png": lambda path: cv2.imwrite(str(path), millimetres),
        "a.tif": lambda path: cv2.imwrite(str(path), millimetres),
        "a.pfm": lambda path: cv2.imwrite(str(path), depth),
        "a.npy": lambda path: np.save(path, depth),
        "a.npz": lambda path: np.savez_compressed(path, depth),
        "a.h5": lambda path: h5(path),
        "a.jpg": lambda path: cv2.imwrite(str(path), np.dstack([millimetres // 64] * 3)),
    }


def test_random_damage_is_read_or_named(samples, tmp_path):
    """Two hundred files that are cut, or of which some bytes are others: none ends in anything but these two errors."""
    rng = np.random.default_rng(16)
    readers = {
        "a.jpg": [read_image],
        "a.png": [read_map, read_image],
        "a.h5": [read_h5, lambda p: read_map(p, "depth")],
    }
    for number in range(200):
        name = list(samples)[number % len(samples)]
        path = tmp_path / name
        samples[name](path)
        content = bytearray(path.read_bytes())
        if rng.random() < 0.3:
            del content[rng.integers(len(content)) :]
        else:
            at = rng.integers(0, min(len(content), int(rng.choice([64, 512, 10**6]))), rng.integers(1, 12))
            for one in at:
                content[one] = rng.integers(256)
        path.write_bytes(content)
        for read in readers.get(name, [read_map]):
            try:
                read(path)
            except (ValueError, OSError) as error:
                assert str(path) in str(error)


def test_a_pair_names_the_file_that_is_to_blame(tmp_path):
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((H, W, 3), np.uint8))
        np.save(tmp_path / f"{name}.npy", DEPTH)
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), np.ones((H, W), np.uint8))
    (tmp_path / "m.csv").write_text(
        "image,depth,mask,split\na.png,a.npy,a_mask.png,train\nb.png,b.npy,b_mask.png,val\n"
    )
    pairs = DepthPairs("train", manifest=tmp_path / "m.csv", encoding=DepthEncoding())
    np.save(tmp_path / "a.npy", np.ones((H, W), bool))
    with pytest.raises(ValueError, match=r"^\S*a\.npy: expected whole or floating-point numbers, found bool\.$"):
        pairs[0]
    np.save(tmp_path / "a.npy", DEPTH)
    (tmp_path / "a_mask.png").write_bytes(png(50_000, 50_000))
    with pytest.raises(ValueError, match=rf"^\S*a_mask\.png: {PIECES.format('50000×50000')}$"):
        pairs[0]

"""The size that a picture's header claims, against what Pillow writes and reads."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from depth_lightning.data.image_header import claimed_size


def encoded(size, kind, **options):
    packed = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(packed, kind, **options)
    return packed.getvalue()


def with_thumbnail(size):
    """An EXIF segment that holds another JPEG, as cameras write it."""
    return {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0" + bytes(20) + encoded(size, "JPEG")}


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (480, 640), (5000, 2)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", with_thumbnail((60, 80))),
        ("JPEG", {"comment": b"\xff\xc0" * 500}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
    ],
)
def test_size_of_what_pillow_writes(size, kind, options):
    assert claimed_size(memoryview(encoded(size, kind, **options))) == size


def test_rarer_headers():
    jpeg = encoded((30, 40), "JPEG")
    assert claimed_size(memoryview(jpeg[:2] + b"\xff" * 9 + jpeg[2:])) == (30, 40)  # fill bytes before a marker
    bmp = bytearray(encoded((30, 40), "BMP"))
    struct.pack_into("<ii", bmp, 18, 40, -30)  # rows from the top down
    assert claimed_size(memoryview(bmp)) == (30, 40)
    tags = struct.pack(">HHIHHHHIHH", 256, 3, 1, 40, 0, 257, 3, 1, 30, 0)
    assert claimed_size(memoryview(b"MM\0*" + struct.pack(">IH", 8, 2) + tags)) == (30, 40)


@pytest.mark.parametrize("suffix", [".jp2", ".avif"])
def test_boxes(suffix):
    for size in ((40, 60), (480, 640)):
        try:
            done, packed = cv2.imencode(suffix, np.zeros((*size, 3), np.uint8))
        except cv2.error:
            pytest.skip(f"this OpenCV writes no {suffix}")
        assert done and claimed_size(packed.data) == size
    # The largest counts: a thumbnail has a size of its own.
    sizes = b"".join(
        b"ispe\0\0\0\0" + struct.pack(">II", width, height) for width, height in ((60, 40), (640, 480), (9, 9))
    )
    assert claimed_size(memoryview(b"\0\0\0\x1cftypavif" + bytes(16) + sizes)) == (480, 640)
    assert claimed_size(memoryview(b"\xff\x4f\xff\x51" + struct.pack(">HHII", 47, 0, 640, 480))) == (480, 640)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF"])
def test_damaged_headers_claim_nothing_and_end(kind):
    whole = encoded((30, 40), kind)
    rng = np.random.default_rng(0)
    for length in range(min(len(whole), 200)):
        assert claimed_size(memoryview(whole[:length])) in (None, (30, 40))
    for _ in range(200):
        changed = bytearray(whole)
        for at in rng.integers(2, len(whole), 5):
            changed[at] = rng.integers(256)
        claimed_size(memoryview(changed))
    for content in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8" + b"\xff" * 999,
        b"\xff\xd8" + b"\xff\xe0\0\0" * 99,
        b"RIFF\0\0\0\0WEBP",
        b"\0\0\0\x1cftypavif" + bytes(99),
    ):
        assert claimed_size(memoryview(content)) is None

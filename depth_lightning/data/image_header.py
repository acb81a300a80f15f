"""What an image's header says, read before a decoder allocates memory: the claimed size, orientation, bits per value.

OpenCV refuses more than 2³⁰ pixels, which take 3 to 6 GB of memory; a PNG of one colour takes a thousandth on disk.
"""

import math
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

BOXES = 2**14
"""Bytes at the start of a file that are searched for boxes."""
CHUNKS = 2**16
"""Most chunks of a PNG or WebP that are searched for an orientation."""
SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the JPEG segments that hold the image size."""
APP1 = 0xE1
"""Marker of the JPEG segments that hold EXIF."""
WIDTH, HEIGHT, BITS, ORIENTATION, SAMPLE_FORMAT = 256, 257, 258, 274, 339
"""Tags of a TIFF, and of EXIF, which is one."""
EXIF_IFD, FOCAL, PIXEL_X, PIXEL_Y = 34665, 37386, 40962, 40963
FOCAL_PLANE_X, FOCAL_PLANE_UNIT, EQUIVALENT_FOCAL = 41486, 41488, 41989
"""Tags of EXIF: the first is the offset of the others."""
TIFF = (b"II*\0", b"MM\0*")
_ERRORS = (struct.error, IndexError, KeyError, ValueError)


def claimed_size(content: memoryview) -> tuple[int, int] | None:
    """(h, w) of a PNG, JPEG, BMP, TIFF, GIF, JPEG 2000 or AVIF; None for anything else or a damaged header.

    Of the other formats that OpenCV decodes, WebP has sides of at most 16,383, and the rest compress little.
    """
    start = bytes(content[:8])
    try:
        if start.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", content, 16)
        elif start.startswith(b"BM"):
            width, height = map(abs, struct.unpack_from("<ii", content, 18))
        elif start.startswith(b"\xff\xd8"):
            height, width = struct.unpack_from(">HH", content, _frame(content) + 5)
        elif start.startswith(TIFF):
            tags = _tiff(content)
            width, height = tags[WIDTH], tags[HEIGHT]
        elif start.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", content, 6)
        elif start.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000 without a container
            width, height = struct.unpack_from(">II", content, 8)
        elif start.endswith(b"jP  "):
            height, width = _boxes(content, b"ihdr", 0)
        elif start.endswith(b"ftyp"):
            width, height = _boxes(content, b"ispe", 4)
        else:
            return None
    except _ERRORS:
        return None
    return height, width


def orientation(content: memoryview) -> int:
    """The EXIF orientation of a JPEG, PNG or WebP, or a TIFF's own, from 1 to 8; 1, as stored, where there is none."""
    try:
        number = _tiff(_exif(content)).get(ORIENTATION, 1)
    except _ERRORS:
        return 1
    return number if 1 <= number <= 8 else 1


class Lens(NamedTuple):
    """What EXIF says about the camera; 0 where it says nothing."""

    equivalent_mm: float
    """FocalLengthIn35mmFilm: the focal length with the same diagonal field of view on 35 mm film."""
    focal_mm: float
    """FocalLength."""
    pixels_per_mm: float
    """FocalPlaneXResolution, on the sensor."""
    longer_side: int
    """Of PixelXDimension and PixelYDimension: the image as it was taken, in pixels."""


def lens(content: memoryview) -> Lens | None:
    """What the EXIF of a JPEG, PNG, WebP or TIFF says about the camera; None if it has none, or damaged.

    Of a HEIC, `content` is its block of EXIF.
    """
    try:
        block = _exif(content)
        tags = _tiff(block, _tiff(block)[EXIF_IFD])
        unit_mm = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}.get(tags.get(FOCAL_PLANE_UNIT, 2), 0.0)  # inches by default
        return Lens(
            float(tags.get(EQUIVALENT_FOCAL, 0)),
            _rational(block, tags.get(FOCAL, 0)),
            _rational(block, tags.get(FOCAL_PLANE_X, 0)) / unit_mm if unit_mm else 0.0,
            max(tags.get(PIXEL_X, 0), tags.get(PIXEL_Y, 0)),
        )
    except _ERRORS:
        return None


def has_8_bits(content: memoryview) -> bool:
    """Whether the header shows that no value has more than 8 bits; False if it must be decoded to find out."""
    start = bytes(content[:26])
    try:
        if start.startswith(b"\x89PNG"):
            return start[24] <= 8
        if start.startswith(TIFF):
            return _tiff(content).get(BITS, 1) <= 8
    except _ERRORS:
        return False
    return start.startswith((b"\xff\xd8", b"BM", b"GIF8")) or start[8:12] == b"WEBP"


def is_plain_tiff(content: memoryview) -> bool:
    """Whether a TIFF holds unsigned values of at most 16 bits, or its header is damaged."""
    try:
        tags = _tiff(content)
    except _ERRORS:
        return True
    return tags.get(BITS, 1) <= 16 and tags.get(SAMPLE_FORMAT, 1) == 1


def _boxes(content: memoryview, kind: bytes, skipped: int) -> tuple[int, int]:
    """The two numbers in the largest box of a kind: thumbnails have boxes of their own."""
    start = bytes(content[:BOXES])
    sizes = [struct.unpack_from(">II", start, box.end() + skipped) for box in re.finditer(kind, start)]
    first, second = max(sizes, key=math.prod)
    return first, second


def _segments(content: memoryview) -> Iterator[tuple[int, int]]:
    """Marker and offset of a JPEG's segments, up to the one that holds the image size."""
    at = 2
    while content[at] == 0xFF:
        marker = content[at + 1]
        if marker != 0xFF:  # any number of these may come before a marker
            yield marker, at
        if marker in SOF:
            return
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", content, at + 2)[0]
    raise IndexError


def _frame(content: memoryview) -> int:
    """Offset of the JPEG segment that holds the image size."""
    *_, (_, at) = _segments(content)
    return at


def _chunks(content: memoryview, at: int, png: bool) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and data of the chunks of a PNG, or of a RIFF file such as WebP."""
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at) if png else struct.unpack_from("<4sI", content, at)[::-1]
        yield kind, content[at + 8 : at + 8 + size]
        at += size + 12 if png else size + size % 2 + 8


def _exif(content: memoryview) -> memoryview:
    """The EXIF of an image, which is a TIFF.

    Raises:
        KeyError: it has none.
    """
    start, blocks = bytes(content[:12]), iter((content,))
    if start.startswith(b"\xff\xd8"):
        blocks = (content[at + 4 :] for marker, at in _segments(content) if marker == APP1)
    elif start.startswith(b"\x89PNG"):
        blocks = (data for kind, data in islice(_chunks(content, 8, png=True), CHUNKS) if kind == b"eXIf")
    elif start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        blocks = (data for kind, data in islice(_chunks(content, 12, png=False), CHUNKS) if kind == b"EXIF")
    for block in blocks:
        if bytes(block[:6]) == b"Exif\0\0":
            block = block[6:]
        if bytes(block[:4]) in TIFF:
            return block
    raise KeyError("EXIF")


def _rational(block: memoryview, at: int) -> float:
    """The rational number at an offset of a TIFF; 0 without an offset, or if it is undefined."""
    order = "<" if bytes(block[:1]) == b"I" else ">"
    numerator, denominator = struct.unpack_from(f"{order}II", block, at) if at else (0, 0)
    return numerator / denominator if denominator else 0.0


def _tiff(content: memoryview, at: int | None = None) -> dict[int, int]:
    """The tags of a TIFF's first image, each with the first of its values, or of a rational its offset.

    Those of the directory at the offset `at` instead, if given.
    """
    order = "<" if bytes(content[:1]) == b"I" else ">"
    if at is None:
        (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    tags = {}
    for number in range(count):
        place = at + 2 + 12 * number
        tag, kind, values = struct.unpack_from(f"{order}HHI", content, place)
        place += 8
        if kind == 3 and values > 2:  # more than fit into the entry
            (place,) = struct.unpack_from(f"{order}I", content, place)
        try:
            tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, place)[0]
        except struct.error:  # a tag that nothing here reads may be damaged
            continue
    return tags

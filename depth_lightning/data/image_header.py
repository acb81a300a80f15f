"""The size that an image header claims, read before a decoder allocates memory for it.

OpenCV refuses more than 2³⁰ pixels, which take 3 to 6 GB of memory; a PNG of one colour takes a thousandth on disk.
"""

import math
import re
import struct

BOXES = 2**14
"""Bytes at the start of a file that are searched for boxes."""
SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the JPEG segments that hold the image size."""


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
        elif start.startswith((b"II*\0", b"MM\0*")):
            width, height = _tiff(content, "<" if start.startswith(b"I") else ">")
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
    except (struct.error, IndexError, KeyError, ValueError):
        return None
    return height, width


def _boxes(content: memoryview, kind: bytes, skipped: int) -> tuple[int, int]:
    """The two numbers in the largest box of a kind: thumbnails have boxes of their own."""
    start = bytes(content[:BOXES])
    sizes = [struct.unpack_from(">II", start, box.end() + skipped) for box in re.finditer(kind, start)]
    first, second = max(sizes, key=math.prod)
    return first, second


def _frame(content: memoryview) -> int:
    """Offset of the JPEG segment that holds the image size."""
    at = 2
    while content[at] == 0xFF and content[at + 1] not in SOF:
        filled = content[at + 1] == 0xFF  # any number of these may come before a marker
        at += 1 if filled else 2 + struct.unpack_from(">H", content, at + 2)[0]
    if content[at] != 0xFF:
        raise IndexError
    return at


def _tiff(content: memoryview, order: str) -> tuple[int, int]:
    """Width and height of a TIFF's first image."""
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    tags = {}
    for number in range(count):
        place = at + 2 + 12 * number
        tag, kind = struct.unpack_from(f"{order}HH", content, place)
        tags[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, place + 8)[0]
    return tags[256], tags[257]

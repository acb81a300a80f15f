"""The size that an image header claims, read before a decoder allocates memory for it.

OpenCV refuses more than 2³⁰ pixels, which take 3 to 6 GB of memory; a PNG of one colour takes a thousandth on disk.
"""

import struct

SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the JPEG segments that hold the image size."""


def claimed_size(content: memoryview) -> tuple[int, int] | None:
    """(h, w) of a PNG, JPEG, BMP or TIFF; None for anything else or a damaged header."""
    start = bytes(content[:4])
    try:
        if start == b"\x89PNG":
            width, height = struct.unpack_from(">II", content, 16)
        elif start[:2] == b"BM":
            width, height = map(abs, struct.unpack_from("<ii", content, 18))
        elif start[:2] == b"\xff\xd8":
            height, width = struct.unpack_from(">HH", content, _frame(content) + 5)
        elif start in (b"II*\0", b"MM\0*"):
            width, height = _tiff(content, "<" if start[:1] == b"I" else ">")
        else:
            return None
    except (struct.error, IndexError, KeyError):
        return None
    return height, width


def _frame(content: memoryview) -> int:
    """Offset of the JPEG segment that holds the image size."""
    at = 2
    while content[at + 1] not in SOF:
        filled = content[at + 1] == 0xFF  # any number of these may come before a marker
        at += 1 if filled else 2 + struct.unpack_from(">H", content, at + 2)[0]
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

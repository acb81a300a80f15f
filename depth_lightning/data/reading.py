"""Errors and limits of reading files: a context that adds the file's name to every library's error.

Every library fails in its own way (`cv2.error`, `zlib.error`, `MemoryError`, `RecursionError`, …). Within `reading`,
all errors become one of two: the file is not what was expected, or it cannot be read on this machine.
"""

import codecs
import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

MAX_SIDE = 16_384
"""Longest side of an image or a map, in pixels. Larger ones do not fit into the memory of several workers."""
MAX_BYTES = 8 * MAX_SIDE**2
"""Largest file that is read at once: 2 GiB, the largest map in float64."""


class BrokenError(ValueError):
    """What is wrong with some content. `naming` turns it into a ValueError that begins with the content's name."""


@contextmanager
def reading(path: Path, expected: str, advice: str = "Copy it again.") -> Iterator[None]:
    """Read a file inside this context: `naming` with its path. Anything but a regular file, which may block forever, is
    refused first.

    Raises:
        OSError: as `naming`, and if the path does not exist or is a folder or a device.
    """
    with naming(path, expected, advice):
        check_file(path)
        yield


@contextmanager
def naming(where: Path | str, expected: str, advice: str = "Copy it again.") -> Iterator[None]:
    """Prefix every error raised inside with the name of the content; an error that already has the name passes.

    Args:
        where: a file, or another origin of the content.
        expected: what the content should be; follows "expected" in the message.
        advice: what to do if it is damaged.

    Raises:
        OSError: the content cannot be read on this machine: no permission, locked, too many open files.
        ValueError: it is not what was expected.
        ModuleNotFoundError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a decoder may raise anything, and no run should end without the name of the file
        named = str(error).startswith((f"{where}:", f"{where},", f"No file at {where}"))
        if named and isinstance(error, ValueError | OSError) and not getattr(error, "errno", None):
            raise
        if isinstance(error, BrokenError):
            raise ValueError(f"{where}: {error}") from error
        if isinstance(error, OSError) and (elsewhere := _unreadable_here(where, error)):
            raise elsewhere from error
        if isinstance(error, MemoryError) or _TOO_LARGE.search(str(error)):
            problem = f"one that does not fit into memory ({_detail(error)}). Make it smaller"
            raise ValueError(f"{where}: expected {expected}, found {problem}, or lower data.num_workers.") from error
        problem = f"one that is cut short or damaged ({_detail(error)}). {advice}"
        raise ValueError(f"{where}: expected {expected}, found {problem}") from error


_TOO_LARGE = re.compile("Insufficient memory|CV_IO_MAX_IMAGE")
"""Matches OpenCV's messages about an image larger than its limit or the memory allows."""


def _detail(error: Exception) -> str:
    """A library's own message, on one line."""
    text = " ".join(str(getattr(error, "err", None) or error or type(error).__name__).split()).rstrip(".")
    return text if len(text) <= 200 else f"{text[:200]}…"


_UNLOCKED = "set the environment variable HDF5_USE_FILE_LOCKING=FALSE"
_HERE = {
    errno.EACCES: "no permission. Try chmod +r on it.",
    errno.EPERM: "no permission. Try chmod +r on it.",
    errno.EAGAIN: "one that another process has locked, such as a program that writes it. Wait until that is done; "
    f"if nothing writes it, {_UNLOCKED}.",
    errno.ENOLCK: f"a file system that cannot lock it, such as NFS. If nothing writes it, {_UNLOCKED}.",
    errno.EOPNOTSUPP: f"a file system that cannot lock it, such as NFS. If nothing writes it, {_UNLOCKED}.",
    errno.EMFILE: "too many files open in this process. Raise the limit (ulimit -n 4096), or lower data.num_workers.",
    errno.ENFILE: "too many files open on this machine. Close other programs, or lower data.num_workers.",
    errno.ESTALE: "that the network file system has lost it (stale file handle). Try again; if that does not help, "
    "mount it again.",
    errno.EIO: "that the disk or the network fails (input/output error). See dmesg; the file may be intact elsewhere.",
}
"""What prevents reading a file that may be intact, by the system's error number."""
_WRITING = re.compile("already open for write|SWMR")
_FILTER = re.compile("plugin|required filter|filter .*not (registered|available)")


def _unreadable_here(where: Path | str, error: OSError) -> OSError | None:
    """The error of a file that may be intact; None if its content is to blame."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileNotFoundError(f"No file at {where}. Was it moved, or does data.root=… name another folder?")
    expected = f"{where}: expected a file that can be read, found"
    if error.errno:
        return type(error)(f"{expected} {_HERE.get(error.errno) or f'{os.strerror(error.errno).lower()}.'}")
    if _WRITING.search(str(error)):
        return OSError(
            f"{expected} one that another program is writing, or that was being written when its program was killed. "
            f"Wait, or if nothing writes it: h5clear -s {where}"
        )
    if _FILTER.search(str(error)):
        return OSError(
            f"{expected} data compressed with a filter that HDF5 does not have here ({_detail(error)}). Set "
            "HDF5_PLUGIN_PATH to the filters' folder (pip install hdf5plugin brings common ones), or where they are "
            "installed: h5repack -f NONE old.h5 new.h5"
        )
    return None


def check_file(path: Path) -> None:
    """Refuse anything but a regular file: opening a FIFO or a device may block forever.

    Raises:
        FileNotFoundError: the path does not exist.
        IsADirectoryError: it is a folder.
        OSError: it is a FIFO, a socket or a device, or may not be accessed.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path}: expected a file, found a folder of that name. Put the file in its place.")
    if not stat.S_ISREG(mode):
        kind = "FIFO" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise OSError(f"{path}: expected a file, found a {kind} of that name. Put the file in its place.")


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuse an array (h, w, …) with a side longer than `MAX_SIDE`.

    Raises:
        BrokenError: a side is too long.
    """
    if max(shape[:2], default=0) > MAX_SIDE:
        raise BrokenError(
            f"expected sides of at most {MAX_SIDE} pixels, found {shape[0]}×{shape[1]} (h×w). "
            "Make it smaller, or cut it into pieces."
        )


def check_map(shape: tuple[int, ...] | None, dtype: np.dtype) -> tuple[int, int]:
    """Check that a stored array can be a map, before memory is allocated for it, and return its size (h, w).

    Args:
        shape: as stored; None if there is no array.
        dtype: as stored.

    Raises:
        BrokenError: it does not have one number per pixel, or has a side longer than `MAX_SIDE`.
    """
    plane = shape or ()
    if len(plane) == 3 and 1 in (plane[0], plane[-1]):
        plane = plane[:-1] if plane[-1] == 1 else plane[1:]
    if len(plane) != 2 or min(plane) < 1:
        picture = (
            " This looks like a coloured picture of it. If its colours pack the depth, declare how: data.packing=…"
            if len(plane) == 3 and plane[-1] in (3, 4)
            else ""
        )
        raise BrokenError(f"expected one value per pixel, (h, w), found an array of {shape}.{picture}")
    if dtype.kind not in "buif":
        raise BrokenError(f"expected whole or floating-point numbers, found {dtype}.")
    check_shape(plane)
    return plane[0], plane[1]


def check_whole(path: Path) -> None:
    """Refuse a file that is too large to be read at once.

    Raises:
        BrokenError: it is larger than `MAX_BYTES`.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BrokenError(
            f"expected at most {MAX_BYTES / 2**30:g} GiB, found {size / 2**30:.3g} GiB. Cut it into pieces."
        )


_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is a prefix of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """Read a text as UTF-8, or as the UTF-8, UTF-16 or UTF-32 that its byte order mark declares.

    Raises:
        OSError, ValueError: see `reading`; the file is in another encoding or not text.
    """
    with reading(path, "a text file"):
        check_whole(path)
        return decode_text(path.read_bytes())


def decode_text(content: bytes) -> str:
    """Decode a file's content as `read_text` does.

    Raises:
        BrokenError: it is in another encoding or not text.
    """
    encoding = next((name for mark, name in _BOMS.items() if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise BrokenError(
            f"expected text in UTF-8, found a NUL character in line {line}: UTF-16 without a byte order mark, or not "
            "text. Save it as UTF-8."
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        encoding = encoding.removesuffix("-sig").upper()
        raise BrokenError(
            f"expected text in {encoding}, found the byte 0x{content[error.start]:02x} in line {line}, which is not "
            f"{encoding}. Save it as UTF-8, such as with iconv -f latin1 -t utf-8."
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, ended by LF, CRLF or CR; see `read_text`.

    `str.splitlines` would also split at characters that may occur in a file name.
    """
    return re.split(r"\r\n|\r|\n", read_text(path))

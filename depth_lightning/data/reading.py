"""What can be wrong with a file: one context that gives every library's error its file's name, and the limits.

A decoder fails in as many ways as there are libraries (`cv2.error`, `zlib.error`, `MemoryError`, `RecursionError`, …).
Within `reading` they all become one of two errors: the file is not what it should be, or cannot be read here.
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
"""Of an image or a map, in pixels. What is larger does not fit into the memory of several workers."""
MAX_BYTES = 8 * MAX_SIDE**2
"""Of a file that is read whole: 2 GiB, the largest map in float64."""


class BrokenError(ValueError):
    """What is wrong with some content, to be read after its name: `naming` makes it a ValueError that begins so."""


@contextmanager
def reading(path: Path, expected: str, advice: str = "Copy it again.") -> Iterator[None]:
    """Inside, a file is read: `naming` under its path. What is no file is refused first, since it may block for ever.

    Raises:
        OSError: also where nothing is there, or a folder or a device is.
    """
    with naming(path, expected, advice):
        check_file(path)
        yield


@contextmanager
def naming(where: Path | str, expected: str, advice: str = "Copy it again.") -> Iterator[None]:
    """Inside, whatever is raised over some content is raised under its name; an error that has the name stays.

    Args:
        where: a file, or where else the content is from.
        expected: what it should be, after "expected".
        advice: what to do where it is damaged.

    Raises:
        OSError: the content cannot be read here: no permission, locked, too many open files.
        ValueError: it is not what was expected.
        ModuleNotFoundError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a decoder may raise anything, and nothing of it is to end a run without a name
        named = str(error).startswith((f"{where}:", f"{where},", f"No file at {where}"))
        if named and isinstance(error, ValueError | OSError) and not getattr(error, "errno", None):
            raise
        if isinstance(error, BrokenError):
            raise ValueError(f"{where}: {error}") from error
        if isinstance(error, OSError) and (elsewhere := _unreadable_here(where, error)):
            raise elsewhere from error
        if isinstance(error, MemoryError) or _TOO_LARGE.search(str(error)):
            found = f"one that does not fit into the memory that is free ({_detail(error)}). Make it smaller"
            raise ValueError(f"{where}: expected {expected}, found {found}, or lower data.num_workers.") from error
        found = f"one that is cut short or damaged ({_detail(error)}). {advice}"
        raise ValueError(f"{where}: expected {expected}, found {found}") from error


_TOO_LARGE = re.compile("Insufficient memory|CV_IO_MAX_IMAGE")
"""In what OpenCV says of an image that is larger than it, or the memory, allows."""


def _detail(error: Exception) -> str:
    """A library's own words, in one line."""
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
    errno.ESTALE: "that the network file system has lost it (stale file handle). Start again; if that does not help, "
    "mount it again.",
    errno.EIO: "that the disk or the network fails (input/output error). See dmesg; the file may be whole elsewhere.",
}
"""What is the matter with a file that may be whole, by the system's error number."""
_WRITING = re.compile("already open for write|SWMR")
_FILTER = re.compile("plugin|required filter|filter .*not (registered|available)")


def _unreadable_here(where: Path | str, error: OSError) -> OSError | None:
    """The error of a file that may be whole; None where its content is to blame."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return FileNotFoundError(f"No file at {where}. Was it moved, or does data.root=… name another folder?")
    expected = f"{where}: expected a file that can be read, found"
    if error.errno:
        return type(error)(f"{expected} {_HERE.get(error.errno) or f'{os.strerror(error.errno).lower()}.'}")
    if _WRITING.search(str(error)):
        return OSError(
            f"{expected} one that another program writes, or that was being written when its program was killed. Wait, "
            f"or if nothing writes it: h5clear -s {where}"
        )
    if _FILTER.search(str(error)):
        return OSError(
            f"{expected} data that a filter compressed which HDF5 does not have here ({_detail(error)}). Set "
            "HDF5_PLUGIN_PATH to the filters' folder (pip install hdf5plugin brings common ones), or where they are "
            "installed: h5repack -f NONE old.h5 new.h5"
        )
    return None


def check_file(path: Path) -> None:
    """Refuse what is no regular file: opening a FIFO or a device may wait for ever.

    Raises:
        FileNotFoundError: nothing is there.
        IsADirectoryError: a folder is.
        OSError: a FIFO, a socket or a device is, or it may not be looked at.
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
        BrokenError: it is.
    """
    if max(shape[:2], default=0) > MAX_SIDE:
        raise BrokenError(
            f"expected sides of at most {MAX_SIDE} pixels, found {shape[0]}×{shape[1]} (h×w). "
            "Make it smaller, or cut it into pieces."
        )


def check_map(shape: tuple[int, ...] | None, dtype: np.dtype) -> tuple[int, int]:
    """The size (h, w) of what may be a map, before memory is taken for it.

    Args:
        shape: as stored; None where there is no array.
        dtype: as stored.

    Raises:
        BrokenError: it has not one number per pixel, or a side longer than `MAX_SIDE`.
    """
    plane = shape or ()
    if len(plane) == 3 and 1 in (plane[0], plane[-1]):
        plane = plane[:-1] if plane[-1] == 1 else plane[1:]
    if len(plane) != 2 or min(plane) < 1:
        picture = " This looks like a coloured picture of it." if len(plane) == 3 and plane[-1] in (3, 4) else ""
        raise BrokenError(f"expected one value per pixel, (h, w), found an array of {shape}.{picture}")
    if dtype.kind not in "buif":
        raise BrokenError(f"expected whole or floating-point numbers, found {dtype}.")
    check_shape(plane)
    return plane[0], plane[1]


def check_whole(path: Path) -> None:
    """Refuse a file that is too large to be read whole.

    Raises:
        BrokenError: it has more than `MAX_BYTES`.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BrokenError(
            f"expected at most {MAX_BYTES / 2**30:g} GiB, found {size / 2**30:.3g} GiB. Cut it into pieces."
        )


_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """Read a text as UTF-8, or as the UTF-8, UTF-16 or UTF-32 that its byte order mark declares.

    Raises:
        OSError, ValueError: see `reading`; it is in another encoding, or no text.
    """
    with reading(path, "a text file"):
        check_whole(path)
        return decode_text(path.read_bytes())


def decode_text(content: bytes) -> str:
    """What `read_text` makes of a file's content.

    Raises:
        BrokenError: it is in another encoding, or no text.
    """
    encoding = next((name for mark, name in _BOMS.items() if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise BrokenError(
            f"expected text in UTF-8, found a NUL character in line {line}: UTF-16 without a byte order mark, or no "
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
    """The lines of a text, which end with LF, CRLF or CR; see `read_text`.

    `str.splitlines` would also split at characters that the name of a file may have.
    """
    return re.split(r"\r\n|\r|\n", read_text(path))

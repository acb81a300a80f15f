"""Atomic writes of files and folders: written under a temporary name beside the target, then renamed.

After an error, Ctrl-C, a full disk or a concurrent writer, no file is truncated, and the previous content is kept.
Leftovers of a killed process, `.partial-…`, are removed by the next process that writes into the same folder.
"""

import errno
import hashlib
import itertools
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

PARTIAL: Final = ".partial-"
"""Prefix of unfinished files and folders, followed by the machine, the process and a number."""
SILENCE_S: Final = 24 * 3600
"""An unfinished file of another machine counts as abandoned if it has not been modified for this long."""

_NAME: Final = re.compile(re.escape(PARTIAL) + r"(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,9})-(?P<start>[0-9a-f]{6})-")
_START: Final = secrets.token_hex(3)
"""Distinguishes this process from an earlier one with the same number, as in a restarted container."""
_NUMBERS: Final = itertools.count()
_UNWRITTEN: Final = " could not be written. "
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomically(path: Path, *, durable: bool = False, needed_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder, which is renamed to `path` on success and removed otherwise.

    A file replaces an existing file, a folder only an empty one. Of concurrent writers, the last one's file is kept,
    but the first one's folder.

    Args:
        path: the target; its folder is created if missing.
        durable: wait until everything is on the disk, so that a power cut leaves either the complete old or new state.
        needed_bytes: size of what will be written, for the message.

    Raises:
        OSError: it cannot be written; see `explained`. Other errors from inside pass unchanged.
        FileExistsError: a folder was written, and another process has created `path` meanwhile.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent.resolve())
    # Keep the end of the name, since libraries check its suffix; not all of it, since names have at most 255 bytes.
    owner = f"{_machine()}-{os.getpid()}-{_START}-{next(_NUMBERS)}"
    aside = path.with_name(f"{PARTIAL}{owner}-{path.name[-40:]}")
    with explained(path, aside, needed_bytes):
        try:
            yield aside
            if durable:
                for written in [aside, *aside.rglob("*")]:
                    flush(written)
            _rename(aside, path)
            if durable:
                flush(path.parent)
        finally:
            _remove(aside)


def write_bytes(path: Path, content: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file `atomically`."""
    with atomically(path, durable=durable, needed_bytes=len(content)) as aside:
        aside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a file `atomically`, in UTF-8 and with unchanged line endings; names that are not UTF-8 are escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


@contextmanager
def explained(path: Path, aside: Path | None = None, needed_bytes: int | None = None) -> Iterator[None]:
    """Re-raise an OSError from writing `path` with that path and, if the disk is full, the free space.

    Args:
        path: the file or folder being written.
        aside: its temporary path. Errors that do not name it then pass, except unexplained ones about a full disk.
        needed_bytes: size of what will be written.
    """
    try:
        yield
    except OSError as error:
        names = f"{error.strerror or error} {error.filename} {error.filename2}"
        if aside is None or str(aside) in names or (error.errno in _FULL and _UNWRITTEN not in names):
            text = _explanation(error, path, aside or path, needed_bytes)
            raise OSError(text) if error.errno is None else OSError(error.errno, text) from error
        raise


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    windows = os.name == "nt"  # cannot sync folders, and files only if they are open for writing
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explanation(error: OSError, path: Path, aside: Path, needed_bytes: int | None) -> str:
    reason = error.strerror or str(error)
    if aside != path and str(aside) in reason:  # from a library, or already explained for a file in this folder
        return reason.replace(str(aside), str(path))
    if error.filename is not None and not str(error.filename).startswith((str(aside), str(path))):
        reason += f": {error.filename}"
    facts = []
    if error.errno in _FULL and needed_bytes is not None:
        facts.append(f"it takes {_size(needed_bytes)}")
    if error.errno == errno.ENOSPC:
        there = next(folder for folder in path.absolute().parents if folder.exists())
        facts.append(f"{_size(shutil.disk_usage(there).free)} are free")
    return f"{path}{_UNWRITTEN}{reason}{': ' if facts else ''}{', and '.join(facts)}."


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _rename(aside: Path, path: Path) -> None:
    try:
        if aside.is_dir():
            with suppress(OSError):
                path.rmdir()
        aside.replace(path)
    except OSError:
        if aside.is_dir() and path.exists():
            raise FileExistsError(errno.EEXIST, f"{path} exists: another process has written it meanwhile") from None
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove what dead processes left in a folder; once per process, since listing a large folder is slow."""
    with suppress(OSError):
        for path in folder.glob(f"{PARTIAL}*"):
            with suppress(OSError):
                if _is_abandoned(path):
                    _remove(path)


def _is_abandoned(path: Path) -> bool:
    """Whether its writer is certainly dead."""
    owner = _NAME.match(path.name)
    if owner is None:
        return False
    if owner["machine"] != _machine() or os.name == "nt":
        touched = max(part.lstat().st_mtime for part in (path, *path.rglob("*")))
        return time.time() - touched > SILENCE_S
    process = int(owner["process"])
    if process == os.getpid():
        return owner["start"] != _START
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


@cache
def _machine() -> str:
    """Identifies the scope in which process numbers are unique: this boot of this computer, and the container on it."""
    name = platform.node()
    with suppress(OSError):  # not on Linux
        boot, numbers = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
        name += f"{boot.read_text()}{numbers.stat().st_ino}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]

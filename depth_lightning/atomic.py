"""Files and folders that are whole under their names: written beside, then renamed.

An error, Ctrl-C, a full disk or a second writer leaves nothing cut short, and what was there before stays. What a
killed process leaves beside, `.partial-…`, is removed by the next process that writes into the same folder.
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
"""What the names of unfinished files and folders begin with; then come the machine, the process and a number."""
SILENCE_S: Final = 24 * 3600
"""An unfinished file of another machine is abandoned when it has not been touched for this long."""

_NAME: Final = re.compile(re.escape(PARTIAL) + r"(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,9})-(?P<start>[0-9a-f]{6})-")
_START: Final = secrets.token_hex(3)
"""Tells this process from an earlier one of the same number, which a container that starts again has."""
_NUMBERS: Final = itertools.count()
_SAID: Final = " could not be written. "
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomically(path: Path, *, durable: bool = False, needed_bytes: int | None = None) -> Iterator[Path]:
    """A path to write a file or a folder to, which becomes `path` if all went well and is removed otherwise.

    A file takes the place of another, a folder that of an empty one. Of several writers at once, the last one's file
    stays, and the first one's folder.

    Args:
        path: its folder is made where it is missing.
        durable: wait until the disk has every byte, so that a power cut leaves the whole of the old or of the new.
        needed_bytes: how much will be written, for the message.

    Raises:
        OSError: it cannot be written; see `explained`. Other errors from inside pass unchanged.
        FileExistsError: a folder was written, and another process had put one there meanwhile.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent.resolve())
    # The end of the name, since libraries go by its suffix, and not all of it, since a name has at most 255 bytes.
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
    """Write a file `atomically`, in UTF-8 and with the line ends as they are."""
    write_bytes(path, text.encode())


@contextmanager
def explained(path: Path, aside: Path | None = None, needed_bytes: int | None = None) -> Iterator[None]:
    """Inside, an OSError of writing `path` is raised again with its path, and where the disk is full, what is free.

    Args:
        path: what is written.
        aside: what it is written as; errors that do not name it then pass, unless a disk is full that nobody named.
        needed_bytes: how much will be written.
    """
    try:
        yield
    except OSError as error:
        names = f"{error.strerror or error} {error.filename} {error.filename2}"
        if aside is None or str(aside) in names or (error.errno in _FULL and _SAID not in names):
            text = _explanation(error, path, aside or path, needed_bytes)
            raise OSError(text) if error.errno is None else OSError(error.errno, text) from error
        raise


def flush(path: Path) -> None:
    """Wait until the disk has all of a file, or the names in a folder."""
    windows = os.name == "nt"  # knows no such thing for folders, and for files only where they may be written
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explanation(error: OSError, path: Path, aside: Path, needed_bytes: int | None) -> str:
    reason = error.strerror or str(error)
    if aside != path and str(aside) in reason:  # by a library; or of a file in this folder, explained already
        return reason.replace(str(aside), str(path))
    if error.filename is not None and not str(error.filename).startswith((str(aside), str(path))):
        reason += f": {error.filename}"
    facts = []
    if error.errno in _FULL and needed_bytes is not None:
        facts.append(f"it takes {_size(needed_bytes)}")
    if error.errno == errno.ENOSPC:
        there = next(folder for folder in path.absolute().parents if folder.exists())
        facts.append(f"{_size(shutil.disk_usage(there).free)} are free")
    return f"{path}{_SAID}{reason}{': ' if facts else ''}{', and '.join(facts)}."


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
    """Remove what dead processes left in a folder: once in this process, since to list a large one takes long."""
    with suppress(OSError):
        for path in folder.glob(f"{PARTIAL}*"):
            with suppress(OSError):
                if _is_abandoned(path):
                    _remove(path)


def _is_abandoned(path: Path) -> bool:
    """Whether its writer is dead for sure."""
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
    """Where a process's number means that process: this computer since it was started, and this container on it."""
    name = platform.node()
    with suppress(OSError):  # no Linux
        boot, numbers = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
        name += f"{boot.read_text()}{numbers.stat().st_ino}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]

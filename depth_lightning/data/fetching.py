"""Downloads of single files: resumed where they broke off, and verified before they get their name."""

import hashlib
import logging
import os
import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import rich.progress
from huggingface_hub.file_download import http_get

from depth_lightning.atomic import explained
from depth_lightning.settings import SettingError, optional, text, whole_number
from depth_lightning.wording import file_size

for client in ("httpx", "httpx2"):
    logging.getLogger(client).setLevel(logging.WARNING)  # at INFO, each request is a line

PART = ".part"
"""Suffix of a file that is not complete yet."""
HEADERS = {
    "User-Agent": "depth-lightning",
    "Accept-Encoding": "identity",  # else some servers declare a .gz as compressed, and it arrives unpacked
}
ALGORITHMS = ("sha256", "sha512", "md5")
GONE = (404, 410)


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address.

    Raises:
        SettingError: a value is invalid.
    """

    url: str
    file: str | None = None
    """Its name on the disk; None for the last part of the address."""
    bytes: int | None = None
    """Its length, if it is known."""
    hash: str | None = None
    """Its checksum, such as "sha256:<hexadecimal>", if it is known; see `ALGORITHMS`."""

    def __post_init__(self) -> None:
        if urlsplit(text("url", self.url, "an address, https://…")).scheme not in ("http", "https"):
            raise SettingError("url", f"is an address, https://…, found {self.url!r}.")
        optional("file", self.file, partial(text, what="the name of a file"))
        if not self.name or self.name in (".", "..") or set(self.name) & set('/\\:*?"<>|\0'):
            raise SettingError("file", f"is the name of a file, found {self.name!r} for {self.url}.")
        optional("bytes", self.bytes, partial(whole_number, least=0))
        lengths = {name: 2 * hashlib.new(name).digest_size for name in ALGORITHMS}
        algorithm, _, digest = str(self.hash).partition(":")
        if self.hash is not None and lengths.get(algorithm) != len(digest):
            raise SettingError("hash", f"is {', '.join(ALGORITHMS)}, a colon and a checksum, found {self.hash!r}.")

    @property
    def name(self) -> str:
        """Its name on the disk."""
        return self.file or urlsplit(self.url).path.rpartition("/")[2]


def ask_length(file: RemoteFile) -> RemoteFile:
    """The file with its length, if its server states it.

    Raises:
        FileNotFoundError: the server has no such file.
        OSError: the server cannot be reached.
        ValueError: the file has another length than declared.
    """
    try:
        with urlopen(Request(file.url, method="HEAD", headers=HEADERS), timeout=30) as response:
            length = response.headers.get("Content-Length") or ""
    except HTTPError as error:
        if error.code in GONE:
            raise FileNotFoundError(_missing(file, error.code)) from error
        return file  # some servers answer only to GET
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(f"{file.url} cannot be reached: {reason}. Check the network and the address.") from error
    found = int(length) if length.isdigit() else file.bytes
    if file.bytes is not None and found != file.bytes:
        raise ValueError(
            f"{file.url}: expected {file.bytes:,} bytes, the server has {found:,}. The file at this address has "
            "changed. If it is right, correct its bytes and its hash in conf/download."
        )
    return replace(file, bytes=found)


def received(file: RemoteFile, folder: Path) -> int:
    """How many of its bytes are in the folder already."""
    paths = (folder / file.name, _part(file, folder))
    return next((path.stat().st_size for path in paths if path.exists()), 0)


def fetch(file: RemoteFile, folder: Path) -> Path:
    """Download a file into a folder, verify it and return its path; a complete one is not downloaded again.

    What arrives before an interruption is kept, under a name that ends in `PART`, and the next call continues there.

    Raises:
        OSError: the server does not deliver the file, or it cannot be written.
        ValueError: it has another length or checksum than declared; it is deleted.
    """
    path, part = folder / file.name, _part(file, folder)
    if not path.exists():
        if file.bytes is not None and received(file, folder) > file.bytes:  # of another version of the file
            part.unlink()
        if not part.exists() or received(file, folder) != file.bytes:
            _receive(file, part)
        _verify(file, part)
        part.replace(path)
    else:
        _verify(file, path)
    return path


def check_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that the disk of a folder, which need not exist yet, has room.

    Args:
        folder: path of the folder.
        needed_bytes: size of what will be written.
        what: what takes the space, for the message.

    Raises:
        OSError: less is free.
    """
    free = free_bytes(folder)
    if free < needed_bytes:
        raise OSError(
            f"{folder.absolute()}: {what} takes {file_size(needed_bytes)}, and {file_size(free)} are free. Make "
            "room, or choose another output=…"
        )


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def opened(path: Path, description: str) -> AbstractContextManager[BinaryIO]:
    """Open a file for reading, with a progress bar where there is a terminal."""
    quiet = not sys.stdout.isatty()
    return rich.progress.open(path, "rb", description=description, transient=True, disable=quiet)


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.name}{PART}"


def _receive(file: RemoteFile, part: Path) -> None:
    """Append what is missing to `part`, with a progress bar. Lost connections are taken up again a few times."""
    with explained(part, part), part.open("ab") as target:
        try:
            http_get(file.url, target, resume_size=target.tell(), headers=dict(HEADERS), displayed_filename=file.name)
        except Exception as error:  # each version of huggingface_hub has another HTTP client, with errors of its own
            if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError | TimeoutError):
                raise  # of this machine's disk
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in GONE:
                raise FileNotFoundError(_missing(file, status)) from error
            there = target.seek(0, os.SEEK_END)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConnectionError(
                f"{file.url}: the download ended after {file_size(there)}: {reason:.300}. Type the same command again: "
                "it continues there."
            ) from error


def _missing(file: RemoteFile, status: int) -> str:
    return (
        f"{file.url}: the server has no such file (status {status}). Look for its new address on the data set's page."
    )


def _verify(file: RemoteFile, path: Path) -> None:
    """Delete the file and raise a ValueError if it has another length or checksum than declared."""
    found = path.stat().st_size
    if file.bytes is not None and found != file.bytes:
        raise _damaged(file, path, f"{file.bytes:,} bytes", f"{found:,}")
    if file.hash is not None:
        algorithm, _, digest = file.hash.partition(":")
        with opened(path, f"Verifying {file.name}") as content:
            actual = hashlib.file_digest(content, algorithm).hexdigest()  # type: ignore[arg-type]
        if actual != digest.lower():
            raise _damaged(file, path, f"the checksum {file.hash}", actual)


def _damaged(file: RemoteFile, path: Path, expected: str, actual: str) -> ValueError:
    path.unlink()
    return ValueError(
        f"{file.url}: expected {expected}, received {actual}. It was damaged on the way and is deleted: type the same "
        "command again. If that does not help, the file at this address has changed."
    )

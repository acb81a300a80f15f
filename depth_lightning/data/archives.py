"""Unpacking archives of unknown origin: regular files below one folder, and nothing else."""

import importlib
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from rich.progress import track

from depth_lightning.atomic import explained
from depth_lightning.data.fetching import check_space, opened
from depth_lightning.data.reading import BrokenError, reading

ASIDE = ".unpacking"
"""Folder in which an archive is unpacked, before its files are moved to their places."""
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ZIP = (".zip", ".whl")
SEVEN_ZIP = (".7z",)
CHUNK = 2**20

Content = Iterator[PurePosixPath | bytes]
"""A path for each file of an archive, followed by the file's bytes in pieces."""


def is_archive(name: str) -> bool:
    """Whether `unpack` reads files of this name."""
    return name.lower().endswith((*TAR, *ZIP, *SEVEN_ZIP))


def unpack(archive: Path, folder: Path, only: Sequence[str] = ()) -> int:
    """Unpack a tar, zip or 7z file below a folder, completely or not at all, with a progress bar.

    Args:
        archive: path of the archive.
        folder: an existing folder; files of the same names are replaced.
        only: patterns of the files to unpack, whose * may stand for several folders; empty for all.

    Returns:
        The number of files.

    Raises:
        OSError: the archive cannot be read, or a file cannot be written.
        ValueError: the archive is damaged, holds a link, a device or a path outside of `folder`, or no file that
            matches `only`.
        ModuleNotFoundError: it is a 7z file, and py7zr is not installed.
    """
    aside, name = folder / ASIDE, archive.name.lower()
    shutil.rmtree(aside, ignore_errors=True)  # of a killed process
    try:
        aside.mkdir()
        if name.endswith(SEVEN_ZIP):
            _unpack_7z(archive, aside, only)
        else:
            _write(_zip(archive, aside, only) if name.endswith(ZIP) else _tar(archive, only), aside)
        files = [path.relative_to(aside) for path in aside.rglob("*") if not path.is_dir()]
        if not files:
            raise ValueError(f"{archive}: expected {' or '.join(only) or 'files'}, found none.")
        for file in files:
            with explained(folder / file):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (aside / file).replace(folder / file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(files)


def _tar(archive: Path, only: Sequence[str]) -> Content:
    with ExitStack() as stack:
        stack.enter_context(reading(archive, "a tar file", "Delete it and download it again."))
        file = stack.enter_context(opened(archive, f"Unpacking {archive.name}"))
        tar = stack.enter_context(tarfile.open(fileobj=file))
        for member in tar:
            path = _checked(member.name, member.isfile() or member.isdir())
            if member.isfile() and _is_wanted(path, only):
                content = tar.extractfile(member)
                assert content is not None
                yield from _pieces(path, content)


def _zip(archive: Path, folder: Path, only: Sequence[str]) -> Content:
    with reading(archive, "a zip file", "Delete it and download it again."), zipfile.ZipFile(archive) as packed:
        wanted = []
        for member in packed.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 from systems without file modes
            path = _checked(member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if not member.is_dir() and _is_wanted(path, only):
                wanted.append((path, member))
    check_space(folder, sum(member.file_size for _, member in wanted), f"unpacking {archive.name}")
    with reading(archive, "a zip file", "Delete it and download it again."), zipfile.ZipFile(archive) as packed:
        quiet = not sys.stdout.isatty()
        for path, member in track(wanted, f"Unpacking {archive.name}", transient=True, disable=quiet):
            with packed.open(member) as file:
                yield from _pieces(path, file)


def _unpack_7z(archive: Path, folder: Path, only: Sequence[str]) -> None:
    try:
        py7zr = importlib.import_module("py7zr")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{archive} needs py7zr: pip install 'depth-lightning[download]'") from error
    with reading(archive, "a 7z file", "Delete it and download it again."), py7zr.SevenZipFile(archive) as packed:
        members = packed.list()
        for member in members:
            _checked(member.filename, member.is_file or member.is_directory)
        wanted = [each for each in members if each.is_file and _is_wanted(PurePosixPath(each.filename), only)]
    check_space(folder, sum(member.uncompressed for member in wanted), f"unpacking {archive.name}")
    with reading(archive, "a 7z file", "Delete it and download it again."), py7zr.SevenZipFile(archive) as packed:
        packed.extract(folder, targets=[member.filename for member in wanted])


def _checked(name: str, is_plain: bool) -> PurePosixPath:
    """The path of a member below the folder.

    Raises:
        BrokenError: it is a link or a device, or lies elsewhere.
    """
    path = PureWindowsPath(name)  # which knows both kinds of separators, and drives
    if not is_plain:
        raise BrokenError(f"expected nothing but files, found {name!r}, which is a link or a device. Do not trust it.")
    if path.anchor or ".." in path.parts or "\0" in name:
        raise BrokenError(f"expected files below its own folder, found {name!r}. Do not trust it.")
    return PurePosixPath(*path.parts)


def _is_wanted(path: PurePosixPath, only: Sequence[str]) -> bool:
    return not only or any(fnmatchcase(str(path), pattern) for pattern in only)


def _pieces(path: PurePosixPath, file: IO[bytes]) -> Content:
    yield path
    yield from iter(partial(file.read, CHUNK), b"")


def _write(content: Content, folder: Path) -> None:
    """Write files below a folder. Reading them is apart, so that errors of the two are not confused."""
    path, target = folder, None
    with ExitStack() as stack:
        for item in content:
            if isinstance(item, bytes):
                assert target is not None
                with explained(path):
                    target.write(item)
                continue
            stack.close()
            path = folder / item
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                target = stack.enter_context(path.open("wb"))

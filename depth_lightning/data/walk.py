"""The files below a folder whose paths match a pattern: `glob.glob`'s rules at the speed of listing folders.

glob.glob and Path.rglob stat every file; here each folder is read once, so that 200,000 files take a second.
"""

import os
import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path


def find(root: Path, pattern: str) -> list[str]:
    """Sorted paths below `root` that match `pattern` part by part: *, ?, and ** for any number of folders.

    As in glob.glob, links are followed, and names with a leading dot match only where the pattern has that dot.
    """
    # An absolute pattern is searched from the file system's root.
    return sorted(_below("" if pattern.startswith("/") else str(root), "", pattern.split("/")))


def _below(root: str, folder: str, parts: list[str]) -> Iterator[str]:
    """Paths that match `parts`; `folder` is "" or ends with a slash."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            yield from _below(root, folder, rest)
        for name, is_folder in _entries(root, folder):
            if not name.startswith("."):
                if not rest:
                    yield folder + name
                if is_folder:
                    yield from _below(root, f"{folder}{name}/", parts)
        return
    if not re.search(r"[*?]", part):
        if rest:
            yield from _below(root, f"{folder}{part}/", rest)
        elif os.path.lexists(f"{root}/{folder}{part}"):
            yield folder + part
        return
    # Only * and ? are special: braces mark names in our patterns, and brackets occur in file names.
    matches = re.compile(translate(part.replace("[", "[[]"))).match
    if rest:
        for name, is_folder in _entries(root, folder):
            if is_folder and matches(name) and not (name.startswith(".") and part[0] != "."):
                yield from _below(root, f"{folder}{name}/", rest)
    else:
        for name in _names(root, folder):
            if matches(name) and not (name.startswith(".") and part[0] != "."):
                yield folder + name


def _entries(root: str, folder: str) -> list[tuple[str, bool]]:
    """Names in a folder and whether each is a folder itself; empty if it cannot be read."""
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            return [(entry.name, entry.is_dir()) for entry in entries]
    except OSError:
        return []


def _names(root: str, folder: str) -> list[str]:
    try:
        return os.listdir(f"{root}/{folder}")  # noqa: PTH208 — names only, twice as fast
    except OSError:
        return []

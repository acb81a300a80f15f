"""Pairs of image and depth map, from patterns or from a manifest."""

import gc
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

from depth_lightning.data.files import split_key
from depth_lightning.data.pair_table import PER_ROW, Pair
from depth_lightning.data.rows import read_rows
from depth_lightning.data.walk import find
from depth_lightning.wording import counted

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test", "all"]
COLUMNS = ("image", "depth", "mask", "scene", "split", "kind")


class _Found(NamedTuple):
    """The files that match a pattern."""

    paths: list[str]
    values: list[tuple[str, ...]]
    """For each file: what each * and {name} matched, in the pattern's order."""
    wildcards: list[int]
    """Indices of the values that *, ** or ? matched."""
    names: dict[str, int]
    """Name → index of the value that its {name} matched."""


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Disable garbage collection: there are no cycles, and scanning all pairs repeatedly is half the work."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_garbage()
def match_patterns(
    root: Path, image: str, depth: str, mask: str | None = None, unmatched: Literal["error", "skip"] = "error"
) -> list[Pair]:
    """Pair the files below `root` whose paths agree in the parts that the patterns leave open.

    `*`, `**` and `?` are matched in order, `{name}` with the same `{name}` in the other pattern; a name that occurs in
    only one of them is free. `{scene}` and `{split}` also set the scene and the split.

    Args:
        root: a folder.
        image: pattern of the images, such as "{scene}/rgb/*.jpg".
        depth: pattern of the depth maps.
        mask: pattern of the masks.
        unmatched: whether a file without a partner is an error, or is left out and counted in the log.

    Raises:
        FileNotFoundError: the folder does not exist, or nothing matches a pattern.
        ValueError: the patterns cannot be matched with each other, or files have no partner or several.
    """
    images, depths = _find(root, image, "image"), _find(root, depth, "depth")
    partners, lone_depths = _partners(images, depths, image, depth, "depth")
    without_depth = [path for path, partner in zip(images.paths, partners, strict=True) if partner is None]
    if without_depth or lone_depths:
        lacking = f"{len(without_depth)} of {counted(len(images.paths), 'image')} without depth{_some(without_depth)}"
        alone = f"{counted(len(lone_depths), 'depth map')} without image{_some(lone_depths)}"
        message = f"{root}: {lacking}, and {alone}"
        if unmatched == "error" or len(without_depth) == len(images.paths):
            raise ValueError(
                f"{message}. Files are paired where data.image={image!r} and data.depth={depth!r} match the same text. "
                "Correct the patterns, or leave these files out with data.unmatched=skip."
            )
        log.info(f"{message}. They are left out.")
    masks: list[str] | None = None
    of_images: list[int | None] = []
    if mask is not None:
        mask_files = _find(root, mask, "mask")
        masks, (of_images, _) = mask_files.paths, _partners(images, mask_files, image, mask, "mask")
        without_mask = [
            path
            for path, depth_of, mask_of in zip(images.paths, partners, of_images, strict=True)
            if depth_of is not None and mask_of is None
        ]
        if without_mask:
            raise ValueError(
                f"{root}: {counted(len(without_mask), 'image')} without a mask {mask!r}{_some(without_mask)}."
            )
    pairs, folder = [], str(root)
    scenes, splits = (_values(name, images, depths, partners) for name in ("scene", "split"))
    for number, (path, partner) in enumerate(zip(images.paths, partners, strict=True)):
        if partner is None:
            continue
        mask_of = of_images[number] if masks is not None else None
        mask_path = _joined(folder, masks[mask_of]) if masks is not None and mask_of is not None else ""
        paths = (_joined(folder, path), _joined(folder, depths.paths[partner]), mask_path)
        pairs.append(Pair(path, *paths, scenes[number], splits[number]))
    return pairs


def _values(name: str, images: _Found, depths: _Found, partners: Sequence[int | None]) -> list[str]:
    """What {name} matched in the path of every image, or else of its depth map."""
    if name in images.names:
        return [values[images.names[name]] for values in images.values]
    if name in depths.names:
        return ["" if partner is None else depths.values[partner][depths.names[name]] for partner in partners]
    return [""] * len(partners)


def _find(root: Path, pattern: str, key: str) -> _Found:
    if not root.is_dir():
        raise FileNotFoundError(f"No folder at data.root={root.absolute()}.")
    pattern = pattern.removeprefix("./")
    expression, names = "", list[str]()
    for text, special in re.findall(r"([^*?{]*)(\*\*/|\*\*|\*|\?|\{\w+\}|$)", pattern):
        expression += re.escape(text)
        if special.startswith("{"):
            name = special[1:-1]
            expression += f"(?P={name})" if name in names else f"(?P<{name}>[^/]+)"
            names.append(name)
        else:
            expression += {"**/": "(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])", "": ""}[special]
    regex = re.compile(expression)
    matches = [match for path in find(root, re.sub(r"\{\w+\}", "*", pattern)) if (match := regex.fullmatch(path))]
    if not matches:
        present = sorted(path.name for path in root.iterdir())
        raise FileNotFoundError(
            f"No file matches data.{key}={pattern!r} below {root.absolute()}, which holds {present[:8] or 'nothing'}."
        )
    named = {name: index - 1 for name, index in regex.groupindex.items()}
    wildcards = [index for index in range(regex.groups) if index not in named.values()]
    return _Found([match.string for match in matches], [match.groups("") for match in matches], wildcards, named)


def _partners(images: _Found, others: _Found, image: str, other: str, what: str) -> tuple[list[int | None], list[str]]:
    """The index of each image's partner among the other files, and the paths of those without an image."""
    if len(images.wildcards) != len(others.wildcards):
        raise ValueError(
            f"data.image={image!r} has {len(images.wildcards)} wildcards and data.{what}={other!r} has "
            f"{len(others.wildcards)}. Name those that occur in only one of them, {{like_this}}."
        )
    shared = sorted(images.names.keys() & others.names.keys())
    if not shared and not images.wildcards:
        raise ValueError(
            f"data.image={image!r} and data.{what}={other!r} have nothing in common to match them by: write * or a "
            "{name} in place of a file's own name."
        )
    wanted, keys = (
        list(map(itemgetter(*files.wildcards, *(files.names[name] for name in shared)), files.values))
        for files in (images, others)
    )
    by_key = {key: number for number, key in enumerate(keys)}
    if len(by_key) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        paths = [path for key, path in zip(keys, others.paths, strict=True) if key == twice]
        raise ValueError(f"data.{what}={other!r} finds several files for one image: {', '.join(paths[:4])}.")
    lone = [others.paths[by_key[key]] for key in by_key.keys() - set(wanted)]
    return [by_key.get(key) for key in wanted], sorted(lone)


def _some(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


@_no_garbage()
def read_manifest(manifest: Path, root: Path | None = None) -> list[Pair]:
    """Read a table of pairs: CSV with a header, or JSON lines.

    Required columns: image and depth. Optional columns: mask, scene, split, kind and those of `PER_ROW`. Others are
    ignored and named in the log.

    Args:
        manifest: path of the table, see `read_rows`.
        root: folder that relative paths start from; None for the manifest's folder.

    Raises:
        OSError: the manifest does not exist or cannot be read, or a file that it names is missing.
        ValueError: a missing column, an empty cell, an invalid number, a duplicate row, or an image that is both for
            training and for another split; see also `read_rows`.
    """
    if not manifest.exists():
        raise FileNotFoundError(f"No manifest at data.manifest={manifest.absolute()}.")
    root = manifest.parent if root is None else root
    folder = str(root)
    below = _joined(folder, "a")[:-1]
    known = (*COLUMNS, *PER_ROW)
    pairs, ignored, where = list[Pair](), set[str](), dict[str, int]()
    rows, repeated = dict[tuple[str, str, str], int](), list[str]()
    for line, row in read_rows(manifest, known, COLUMNS[:2]):
        missing = [column for column in ("image", "depth") if not row.get(column)]
        if missing:
            header = "" if row.keys() & {"image", "depth"} else " Write image,depth as the first line."
            raise ValueError(
                f"{manifest}, line {line}: expected the columns image and depth (and if wanted "
                f"{', '.join(known[2:])}), found nothing for {' and '.join(missing)} among {list(row)}.{header}"
            )
        ignored |= row.keys() - {*known}
        image, depth, mask = (_joined(folder, row[key]) if row.get(key) else "" for key in COLUMNS[:3])
        numbers = {
            column: _number(f"{manifest}, line {line}", column, row[column]) for column in PER_ROW if row.get(column)
        }
        scene, split, kind = row.get("scene", ""), row.get("split", "").lower(), row.get("kind", "").lower()
        pairs.append(Pair(image.removeprefix(below), image, depth, mask, scene, split, kind, numbers))
        for path in filter(None, (image, depth, mask)):
            where.setdefault(path, line)
        if (before := rows.setdefault((image, depth, split), line)) != line:
            repeated.append(f"line {line} that of line {before}, {row['image']}")
    if not pairs:
        raise ValueError(f"{manifest}: expected a header and rows of images and depths, found no row.")
    if repeated:
        raise ValueError(
            f"{manifest}: expected each pair once, found {len(repeated)} again: {'; '.join(repeated[:3])}"
            f"{'; …' if len(repeated) > 3 else ''}. Remove the duplicates."
        )
    _check_splits(manifest, pairs)
    if ignored:
        log.info(f"{manifest}: the columns {', '.join(sorted(ignored))} are not used.")
    absent = missing_files(where)
    if absent:
        first = "; ".join(f"line {where[path]}: {_shown(path)}" for path in absent[:3])
        raise FileNotFoundError(
            f"{manifest} names {counted(len(absent), 'missing file')}: {first}{'; …' if len(absent) > 3 else ''}. "
            f"Relative paths are taken from {root.absolute()}; data.root=… sets another folder."
        )
    return pairs


def _number(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: expected a number, found {column} {_shown(text)!r}.")
    return number


def _check_splits(manifest: Path, pairs: Sequence[Pair]) -> None:
    """Refuse images that are both trained on and evaluated on; warn of rows that belong to no split."""
    counts = Counter(pair.split for pair in pairs)
    if not counts.keys() & {"train", "val"}:
        return
    others = ", ".join(f"{split!r} {count}" for split, count in counts.items() if split not in ("train", "val", "test"))
    if others:
        log.warning(f"{manifest}: some rows are in neither split, and left out ({others}). Write train, val or test.")
    trained = {os.path.normpath(pair.image) for pair in pairs if pair.split == "train"}
    measured = (pair for pair in pairs if pair.split in ("val", "test") and os.path.normpath(pair.image) in trained)
    if both := list(dict.fromkeys(pair.id for pair in measured)):
        raise ValueError(
            f"{manifest}: expected train and val to have no image in common, found {len(both)}{_some(both)}. Take them "
            "out of one of them."
        )


def _shown(text: str) -> str:
    """A name in a form fit for a message: printable and not too long."""
    printable = text if text.isprintable() else ascii(text)
    return printable if len(printable) <= 300 else f"{printable[:300]}…"


def _joined(folder: str, path: str) -> str:
    """Join as Path does; creating 100,000 Path objects takes seconds."""
    joined = path if folder == "." or path.startswith("/") else f"{folder.rstrip('/')}/{path}"
    return str(Path(joined)) if "//" in joined or "./" in joined or joined.endswith(("/", "/.")) else joined


def missing_files(references: Iterable[str]) -> list[str]:
    """The files that do not exist. Every folder is read once, so that 100,000 files take a second.

    Raises:
        PermissionError: a folder cannot be read.
    """
    folders: dict[str, set[str]] = {}
    absent = []
    for reference in references:
        folder, name = os.path.split(split_key(reference)[0] if ":" in reference else reference)
        if folder not in folders:
            folders[folder] = _names_in(folder or ".")
        if name not in folders[folder]:
            absent.append(reference)
    return absent


def _names_in(folder: str) -> set[str]:
    """The names in a folder; empty if there is no such folder."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except PermissionError as error:
        raise PermissionError(f"{folder}: expected a folder that can be read. Try chmod +rx on it.") from error
    except (OSError, ValueError):  # including names that no file can have
        return set()

"""Which image goes with which depth map, and which pairs are for training: from patterns, or from a manifest."""

import csv
import gc
import json
import logging
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
from depth_lightning.data.walk import find

log = logging.getLogger(__name__)

Split = Literal["train", "val"]
COLUMNS = ("image", "depth", "mask", "scene", "split")


class _Found(NamedTuple):
    """The files that match a pattern."""

    paths: list[str]
    values: list[tuple[str, ...]]
    """Of each file: what stands for each * and {name}, in the pattern's order."""
    wildcards: list[int]
    """Which of the values are of a *, ** or ?."""
    names: dict[str, int]
    """Which of the values is of a {name}."""


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Without the search for cycles: there are none, and looking through all pairs again and again is half the work."""
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
    """Pair the files below `root` whose paths have the same parts where the patterns leave them open.

    `*`, `**` and `?` are matched in their order, `{name}` with the `{name}` of the other pattern; a name that only one
    of them has is free. `{scene}` and `{split}` also say what they are called.

    Args:
        root: a folder.
        image: pattern of the images, such as "{scene}/rgb/*.jpg".
        depth: pattern of the depth maps.
        mask: pattern of the masks.
        unmatched: whether a file without a partner is an error, or left out and counted in the log.

    Raises:
        FileNotFoundError: no such folder, or nothing matches a pattern.
        ValueError: patterns that cannot be matched with one another, or files without a partner or with several.
    """
    images, depths = _find(root, image, "image"), _find(root, depth, "depth")
    partners, lone_depths = _partners(images, depths, image, depth, "depth")
    without_depth = [path for path, partner in zip(images.paths, partners, strict=True) if partner is None]
    if without_depth or lone_depths:
        message = (
            f"{root}: {len(without_depth)} of {len(images.paths)} images have no depth{_some(without_depth)}, and "
            f"{len(lone_depths)} depth maps have no image{_some(lone_depths)}"
        )
        if unmatched == "error" or len(without_depth) == len(images.paths):
            raise ValueError(
                f"{message}. Files belong together where data.image={image!r} and data.depth={depth!r} stand for the "
                "same. Correct the patterns, or leave these files out with data.unmatched=skip."
            )
        log.info(f"{message}. They are left out.")
    masks: list[str] | None = None
    of_images: list[int | None] = []
    if mask is not None:
        found = _find(root, mask, "mask")
        masks, (of_images, _) = found.paths, _partners(images, found, image, mask, "mask")
        without_mask = [
            path
            for path, depth_of, mask_of in zip(images.paths, partners, of_images, strict=True)
            if depth_of is not None and mask_of is None
        ]
        if without_mask:
            raise ValueError(f"{root}: {len(without_mask)} images have no mask {mask!r}{_some(without_mask)}.")
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
    """What stands for {name} in the path of every image, or else of its depth map."""
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
    """Which of the other files is each image's, and the paths of the other files without an image."""
    if len(images.wildcards) != len(others.wildcards):
        raise ValueError(
            f"data.image={image!r} has {len(images.wildcards)} wildcards and data.{what}={other!r} has "
            f"{len(others.wildcards)}. Name those that only one of them has, {{like_this}}."
        )
    shared = sorted(images.names.keys() & others.names.keys())
    if not shared and not images.wildcards:
        raise ValueError(
            f"data.image={image!r} and data.{what}={other!r} have nothing in common to match them by: write * or a "
            "{name} where a file's own name stands."
        )
    wanted, keys = (
        list(map(itemgetter(*found.wildcards, *(found.names[name] for name in shared)), found.values))
        for found in (images, others)
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

    Columns: image and depth, and if wanted mask, scene, split and those of `PER_ROW`. Others are ignored, and named in
    the log.

    Args:
        manifest: .csv, .jsonl, .ndjson or .json (one object per line).
        root: what relative paths are below; None for the manifest's folder.

    Raises:
        FileNotFoundError: no such manifest, or a file that it names is missing.
        ValueError: a missing column, an empty cell, something that is no number, or a line that is no JSON object.
    """
    if not manifest.is_file():
        raise FileNotFoundError(f"No manifest at data.manifest={manifest.absolute()}.")
    root = manifest.parent if root is None else root
    folder = str(root)
    below = _joined(folder, "a")[:-1]
    pairs, ignored, where = list[Pair](), set[str](), dict[str, int]()
    for line, row in _rows(manifest):
        missing = [column for column in ("image", "depth") if not row.get(column)]
        if missing:
            raise ValueError(
                f"{manifest}, line {line}: expected the columns image and depth (and if wanted "
                f"{', '.join(COLUMNS[2:] + PER_ROW)}), found nothing for {' and '.join(missing)} among {list(row)}."
            )
        ignored |= row.keys() - {*COLUMNS, *PER_ROW}
        image, depth, mask = (_joined(folder, row[key]) if row.get(key) else "" for key in COLUMNS[:3])
        try:
            numbers = {column: float(row[column]) for column in PER_ROW if row.get(column)}
        except ValueError as error:
            raise ValueError(f"{manifest}, line {line}: expected a number, {error}.") from error
        scene, split = row.get("scene", ""), row.get("split", "")
        pairs.append(Pair(image.removeprefix(below), image, depth, mask, scene, split, numbers))
        for path in filter(None, (image, depth, mask)):
            where.setdefault(path, line)
    if not pairs:
        raise ValueError(f"{manifest}: expected a header and rows of images and depths, found no row.")
    if ignored:
        log.info(f"{manifest}: the columns {', '.join(sorted(ignored))} are not used.")
    absent = missing_files(where)
    if absent:
        first = "; ".join(f"line {where[path]}: {path}" for path in absent[:3])
        raise FileNotFoundError(
            f"{manifest} names {len(absent)} files that are not there: {first}{'; …' if len(absent) > 3 else ''}. "
            f"Relative paths are taken from {root.absolute()}; data.root=… sets another folder."
        )
    return pairs


def _joined(folder: str, path: str) -> str:
    """As Path joins them; a Path for each of 100,000 takes seconds."""
    joined = path if folder == "." or path.startswith("/") else f"{folder.rstrip('/')}/{path}"
    return str(Path(joined)) if "//" in joined or "./" in joined or joined.endswith(("/", "/.")) else joined


def _rows(manifest: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        if manifest.suffix.lower() == ".csv":
            reader = csv.DictReader(file, skipinitialspace=True)
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"{manifest}, line {reader.line_num}: expected {len(reader.fieldnames or [])} cells as in the "
                        "header, found another number. Quote cells that contain a comma."
                    )
                yield reader.line_num, row
        elif manifest.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{manifest}, line {line}: expected one JSON object per line, {error}.") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{manifest}, line {line}: expected a JSON object, found {text.strip()[:40]!r}.")
                yield line, {key: "" if value is None else str(value) for key, value in row.items()}
        else:
            raise ValueError(f"{manifest}: expected a manifest as .csv or .jsonl, found {manifest.suffix!r}.")


def missing_files(references: Iterable[str]) -> list[str]:
    """Those of the files that do not exist; every folder is read once, so that 100,000 files take a second."""
    folders: dict[str, set[str]] = {}
    absent = []
    for reference in references:
        folder, name = os.path.split(split_key(reference)[0] if ":" in reference else reference)
        if folder not in folders:
            folders[folder] = {entry.name for entry in os.scandir(folder or ".")} if Path(folder).is_dir() else set()
        if name not in folders[folder]:
            absent.append(reference)
    return absent

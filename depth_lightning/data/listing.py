"""Which image goes with which depth map, and which pairs are for training: from patterns, or from a manifest."""

import csv
import glob
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from depth_lightning.data.files import split_key

log = logging.getLogger(__name__)

Split = Literal["train", "val"]
COLUMNS = ("image", "depth", "mask", "scene", "split")
PER_ROW = ("depth_scale", "depth_offset", "focal_px", "baseline_m")
"""Columns of numbers that win over the data set's declaration, for their row."""


class Pair(NamedTuple):
    """An image and its depth map; paths are absolute or relative to the working directory."""

    id: str
    image: str
    depth: str
    """May end with ":key", see `split_key`."""
    mask: str = ""
    scene: str = ""
    split: str = ""
    numbers: Mapping[str, float] = {}
    """Of `PER_ROW`."""


class _Found(NamedTuple):
    path: str
    wildcards: tuple[str, ...]
    fields: dict[str, str]


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
    if unmatched not in ("error", "skip"):
        raise ValueError(f"data.unmatched is 'error' or 'skip', found {unmatched!r}.")
    images = _find(root, image, "image")
    depths, without_depth, lone_depths = _partners(images, _find(root, depth, "depth"), image, depth, "depth")
    if without_depth or lone_depths:
        message = (
            f"{root}: {len(without_depth)} of {len(images)} images have no depth{_some(without_depth)}, and "
            f"{len(lone_depths)} depth maps have no image{_some(lone_depths)}"
        )
        if unmatched == "error" or len(without_depth) == len(images):
            raise ValueError(
                f"{message}. Files belong together where data.image={image!r} and data.depth={depth!r} stand for the "
                "same. Correct the patterns, or leave these files out with data.unmatched=skip."
            )
        log.info(f"{message}. They are left out.")
    images = [found for found in images if found.path in depths]
    masks: dict[str, _Found] = {}
    if mask is not None:
        masks, without_mask, _ = _partners(images, _find(root, mask, "mask"), image, mask, "mask")
        if without_mask:
            raise ValueError(f"{root}: {len(without_mask)} images have no mask {mask!r}{_some(without_mask)}.")
    pairs = []
    for found in images:
        partner = depths[found.path]
        fields = {**partner.fields, **found.fields}
        mask_path = str(root / masks[found.path].path) if masks else ""
        paths = (str(root / found.path), str(root / partner.path), mask_path)
        pairs.append(Pair(found.path, *paths, scene=fields.get("scene", ""), split=fields.get("split", "")))
    return pairs


def _find(root: Path, pattern: str, key: str) -> list[_Found]:
    if not root.is_dir():
        raise FileNotFoundError(f"No folder at data.root={root.absolute()}.")
    expression, globbed, names = "", "", list[str]()
    for text, special in re.findall(r"([^*?{]*)(\*\*/|\*\*|\*|\?|\{\w+\}|$)", pattern):
        expression += re.escape(text)
        globbed += glob.escape(text) + ("*" if special.startswith("{") else special)
        if special.startswith("{"):
            name = special[1:-1]
            expression += f"(?P={name})" if name in names else f"(?P<{name}>[^/]+)"
            names.append(name)
        else:
            expression += {"**/": "(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])", "": ""}[special]
    regex = re.compile(expression)
    named = set(regex.groupindex.values())
    found = []
    # Path.glob does not look into folders that are links.
    for path in sorted(glob.glob(globbed, root_dir=root, recursive=True)):  # noqa: PTH207
        if match := regex.fullmatch(Path(path).as_posix()):
            wildcards = tuple(text or "" for index, text in enumerate(match.groups(), 1) if index not in named)
            found.append(_Found(path, wildcards, match.groupdict()))
    if not found:
        names = sorted(path.name for path in root.iterdir())
        raise FileNotFoundError(
            f"No file matches data.{key}={pattern!r} below {root.absolute()}, which holds {names[:8] or 'nothing'}."
        )
    return found


def _partners(
    images: Sequence[_Found], others: Sequence[_Found], image: str, other: str, what: str
) -> tuple[dict[str, _Found], list[str], list[str]]:
    """The other file of each image, the images without one, and the other files without an image."""
    if len(images[0].wildcards) != len(others[0].wildcards):
        raise ValueError(
            f"data.image={image!r} has {len(images[0].wildcards)} wildcards and data.{what}={other!r} has "
            f"{len(others[0].wildcards)}. Name those that only one of them has, {{like_this}}."
        )
    shared = sorted(images[0].fields.keys() & others[0].fields.keys())
    if not shared and not images[0].wildcards:
        raise ValueError(
            f"data.image={image!r} and data.{what}={other!r} have nothing in common to match them by: write * or a "
            "{name} where a file's own name stands."
        )
    keys = [(found.wildcards, *(found.fields[name] for name in shared)) for found in others]
    by_key = dict(zip(keys, others, strict=True))
    if len(by_key) < len(others):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        paths = [found.path for key, found in zip(keys, others, strict=True) if key == twice]
        raise ValueError(f"data.{what}={other!r} finds several files for one image: {', '.join(paths[:4])}.")
    wanted = {found.path: (found.wildcards, *(found.fields[name] for name in shared)) for found in images}
    without = [path for path, key in wanted.items() if key not in by_key]
    lone = [by_key[key].path for key in by_key.keys() - set(wanted.values())]
    return {path: by_key[key] for path, key in wanted.items() if key in by_key}, without, sorted(lone)


def _some(names: Sequence[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


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
    pairs, ignored, where = list[Pair](), set[str](), dict[str, int]()
    for line, row in _rows(manifest):
        missing = [column for column in ("image", "depth") if not row.get(column)]
        if missing:
            raise ValueError(
                f"{manifest}, line {line}: expected the columns image and depth (and if wanted "
                f"{', '.join(COLUMNS[2:] + PER_ROW)}), found nothing for {' and '.join(missing)} among {list(row)}."
            )
        ignored |= row.keys() - {*COLUMNS, *PER_ROW}
        image, depth, mask = (str(root / row[key]) if row.get(key) else "" for key in COLUMNS[:3])
        try:
            numbers = {column: float(row[column]) for column in PER_ROW if row.get(column)}
        except ValueError as error:
            raise ValueError(f"{manifest}, line {line}: expected a number, {error}.") from error
        name = Path(image).relative_to(root) if Path(image).is_relative_to(root) else Path(image)
        scene, split = row.get("scene", ""), row.get("split", "")
        pairs.append(Pair(name.as_posix(), image, depth, mask, scene, split, numbers))
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
        folder, name = os.path.split(split_key(reference)[0])
        if folder not in folders:
            folders[folder] = {entry.name for entry in os.scandir(folder or ".")} if Path(folder).is_dir() else set()
        if name not in folders[folder]:
            absent.append(reference)
    return absent

"""Lists of a split's images, in the forms in which they are published.

| a line                                           | example                                         |
|--------------------------------------------------|-------------------------------------------------|
| an image, alone or before its depth and focal    | `kitchen/rgb_1.jpg kitchen/depth_1.png 518.9` (BTS) |
| a folder, a frame's number and a side            | `2011_09_26/2011_09_26_drive_0001_sync 5 l` (monodepth2) |
| in a table (.csv, .jsonl): column image          | `image,depth` as its first line                 |
| a scene or folder, if every line is one          | `scene0011_00` (ScanNet)                        |

Fields are separated by spaces, tabs, commas or semicolons, all of which an image's name may contain.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from depth_lightning.data.pair_table import Pair
from depth_lightning.data.reading import read_lines
from depth_lightning.data.rows import read_rows

LEFT, RIGHT = {"image_02", "image_2", "left"}, {"image_03", "image_3", "right"}
SIDES = {"l": LEFT, "2": LEFT, "r": RIGHT, "3": RIGHT}
"""A side in monodepth2's lists → the folders that may stand for it in the path of an image."""


class _Line(NamedTuple):
    number: int
    text: str
    readings: Sequence[tuple[str, Sequence[str]]]
    """What may be the name, with the fields after it: the longest name first."""


class Named(NamedTuple):
    """The samples that a name may mean."""

    images: list[int]
    """Those whose path ends with it."""
    folders: list[int]
    """Those in a folder, or of a scene, of this name."""


class SplitList(NamedTuple):
    """What a list names."""

    images: set[int]
    """Indices of the pairs."""
    lines: int
    unused: list[str]
    """The lines that name none of the pairs."""
    per_split: bool
    """Whether the list has a column `split`, and so names the images of every split."""


def read_split_list(path: Path, pairs: Sequence[Pair], split: str) -> SplitList:
    """Read a list.

    Args:
        path: of the list.
        pairs: all pairs.
        split: in a table with a column `split`, rows of other splits are skipped.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: a line names several samples; see also `read_rows`.
    """
    lines, per_split = _lines(path, split)
    fields = {field for line in lines for field in line.readings[-1][1]}
    named = find_named(pairs, fields.union(name for line in lines for name, _ in line.readings))
    images, folders, unused = set[int](), list[tuple[_Line, list[int]]](), list[str]()
    by_frame = dict[str, dict[int, list[int]]]()
    for line in lines:
        name, rest = next((reading for reading in line.readings if reading[0] in named), ("", ()))
        if not name:
            without_depth = any(after[:1] == ("None",) for _, after in line.readings)  # as KITTI's lists write it
            unused += [] if without_depth or line.text.startswith("#") else [line.text]
            continue
        found, inside = named[name]
        if found and rest[:1] == ("None",):
            continue
        if found:
            others = [named[field].images for field in rest if field in named and not re.fullmatch(r"[\d.]+", field)]
            images |= _one(path, line, pairs, {*found}.union(*others))
        elif rest and rest[0].isdecimal():
            if name not in by_frame:
                by_frame[name] = _by_frame(pairs, inside)
            frames = _of_side(pairs, by_frame[name].get(int(rest[0]), []), "".join(rest[1:2]).lower())
            unused += [] if frames else [line.text]
            images |= _one(path, line, pairs, frames)
        elif rest:
            images |= _one(path, line, pairs, inside)
        else:
            folders.append((line, inside))
    for line, inside in folders:
        images |= _one(path, line, pairs, inside) if images else set()
    return SplitList(images.union(*(inside for _, inside in folders)), len(lines), unused, per_split)


def _lines(path: Path, split: str) -> tuple[list[_Line], bool]:
    """The lines that are not empty, and whether there is a column `split`."""
    texts = read_lines(path)
    header = [name.strip().lower() for name in re.split(r"[,;\t]", texts[0].replace('"', ""))]
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or (
        path.suffix.lower() in (".csv", ".tsv") and "image" in header
    ):
        rows = [*read_rows(path, ("image", "depth", "split"), ("image",))]
        lines = [
            _Line(number, row["image"], [(plain_name(row["image"]), (row.get("depth", ""),))])
            for number, row in rows
            if row.get("image") and row.get("split", "").lower() in ("", split)
        ]
        return lines, any(row.get("split") for _, row in rows)
    lines = [_Line(number, text.strip(), [*_readings(text.strip())]) for number, text in enumerate(texts, 1)]
    return [line for line in lines if line.readings], False


def _readings(text: str) -> Iterator[tuple[str, Sequence[str]]]:
    for cut in [len(text), *(match.start() for match in reversed([*re.finditer(r"[\s,;]+", text)]))]:
        rest = tuple(plain_name(field) for field in re.split(r"[\s,;]+", text[cut:]) if field)
        if name := plain_name(text[:cut]):
            yield name, rest


def plain_name(name: str) -> str:
    """A name without quotes, slashes around it and a leading ./, and with forward slashes."""
    return name.strip().strip("\"'").replace("\\", "/").removeprefix("./").strip("/")


def find_named(pairs: Sequence[Pair], names: set[str]) -> dict[str, Named]:
    """The samples that each name means; names that mean none are left out.

    A name is a scene, or some consecutive parts of the path of an image, whose extension may be missing.
    """
    lengths = sorted({name.count("/") + 1 for name in names})
    found = dict[str, Named]()
    for number, pair in enumerate(pairs):
        parts, first = pair.id.split("/"), 0
        if lengths and lengths[-1] > len(parts):  # a name may begin above data.root
            whole = os.path.abspath(pair.image)  # noqa: PTH100 — Path is many times slower
            if whole.endswith(f"/{pair.id}"):
                parts, first = whole[1:].split("/"), whole.count("/") - len(parts)
        ends = [*parts[:-1], posixpath.splitext(parts[-1])[0]]
        meant = {pair.scene: False} if pair.scene in names else {}
        for length in lengths:
            last = len(parts) - length
            if last < 0:
                break
            for start in range(min(first, last), last + 1):
                if start == last:
                    meant |= {"/".join(of[start:]): True for of in (parts, ends)}
                elif start >= first:
                    meant.setdefault("/".join(parts[start : start + length]), False)
        for name in meant.keys() & names:
            found.setdefault(name, Named([], []))[0 if meant[name] else 1].append(number)
    return found


def _by_frame(pairs: Sequence[Pair], inside: Sequence[int]) -> dict[int, list[int]]:
    """The samples of a folder by the last number in their files' names."""
    by_frame = dict[int, list[int]]()
    for number in inside:
        if digits := re.findall(r"\d+", posixpath.splitext(posixpath.basename(pairs[number].id))[0]):
            by_frame.setdefault(int(digits[-1]), []).append(number)
    return by_frame


def _of_side(pairs: Sequence[Pair], frames: Sequence[int], side: str) -> list[int]:
    """Those of the samples that are of this side, if their paths name cameras."""
    cameras = {number: {*pairs[number].id.split("/")} & (LEFT | RIGHT) for number in frames}
    if side not in SIDES or not any(cameras.values()):
        return [*frames]
    return [number for number in frames if cameras[number] & SIDES[side]]


def _one(path: Path, line: _Line, pairs: Sequence[Pair], found: Collection[int]) -> set[int]:
    """The sample that a line names, if it names one."""
    if len(found) > 1:
        first = ", ".join(pairs[number].id for number in sorted(found)[:3])
        raise ValueError(
            f"{path}, line {line.number}: expected the name of one image, found {line.text!r}, which names "
            f"{len(found)} ({first}{', …' if len(found) > 3 else ''}). Write each image's path below data.root, alone "
            "or before its depth map, or its folder, number and side."
        )
    return {*found}

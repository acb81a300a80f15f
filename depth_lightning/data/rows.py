"""The rows of a user's table: CSV as spreadsheets save it, or JSON.

Case and surrounding spaces are ignored in headers and keys; CSV is separated by commas, semicolons or tabs.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from depth_lightning.data.reading import read_text

Row = tuple[int, dict[str, str]]
"""Line number (in a JSON array, entry number, from 1) and cells by column, "" where empty."""


def read_rows(path: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[Row]:
    """The rows of a table, skipping empty ones.

    Args:
        path: .csv or .tsv with a header; .jsonl, .ndjson or .json with one object per line; or .json, an array of them.
        columns: known columns, each allowed at most once; the table may have others.
        needed: columns that the header must have; the separator of a CSV is detected from them.

    Raises:
        OSError: the file cannot be read.
        ValueError: unsupported extension or encoding, or a malformed row; the message names it.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv_rows(path, read_text(path), columns, needed)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json_rows(path, read_text(path), columns)
    raise ValueError(f"{path}: expected a manifest as .csv or .jsonl, found {path.suffix!r}.")


def _names(header: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _once(where: str, names: Sequence[str], columns: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and name in columns]
    if twice:
        raise ValueError(f"{where}: expected each column once, found {' and '.join(twice)} several times.")


def _csv_rows(path: Path, text: str, columns: Sequence[str], needed: Sequence[str]) -> Iterator[Row]:
    first = re.split(r"[\r\n]", text[:10_000].lstrip(), maxsplit=1)[0].replace('"', "")
    separator = next((mark for mark in ",;\t" if {*needed} <= {*_names(first.split(mark))}), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    header: list[str] | None = None
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header is None:
                header = _names(cells)
                _once(f"{path}, line {reader.line_num}", header, columns)
            elif len(cells) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells as in the header {header[:8]}, "
                    f"found {len(cells)}. Quote cells that contain {separator!r}."
                )
            else:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: expected a table, found none ({error}). Is a quote left open?"
        ) from error


def _json_rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        for number, entry in enumerate(_parsed(str(path), text, "one JSON object per line, or an array of them"), 1):
            yield number, _json_row(f"{path}, entry {number}", entry, columns)
        return
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield number, _json_row(where, _parsed(where, line, "one JSON object per line"), columns)


class _Pairs(list[tuple[str, Any]]):
    """The items of a JSON object in order, duplicate keys included."""


def _parsed(where: str, text: str, expected: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected {expected}, {error}.") from error


def _json_row(where: str, entry: Any, columns: Sequence[str]) -> dict[str, str]:
    if not isinstance(entry, _Pairs):
        raise ValueError(f"{where}: expected a JSON object, found {json.dumps(entry)[:40]!r}.")
    names = _names([key for key, _ in entry])
    _once(where, names, columns)
    row = {}
    for name, (_, value) in zip(names, entry, strict=True):
        if name in columns and (isinstance(value, bool) or not isinstance(value, str | int | float | None)):
            raise ValueError(f"{where}: expected text or a number for {name}, found {json.dumps(value)[:40]}.")
        row[name] = "" if value is None else str(value)
    return row

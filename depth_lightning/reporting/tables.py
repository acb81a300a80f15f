"""Tables of results on the terminal, and as JSON, CSV and Parquet."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from depth_lightning.atomic import atomically, write_text
from depth_lightning.metrics import ERRORS, directions
from depth_lightning.metrics.point_pairs import PointPairAccuracy


def print_table(
    title: str,
    columns: Mapping[str, Mapping[str, float]],
    higher_is_better: Mapping[str, bool],
    notes: Sequence[str] = (),
    intervals: Mapping[str, tuple[float, float]] | None = None,
    images: Mapping[str, int] | None = None,
) -> None:
    """Print one row per metric and one column per result, with notes below.

    Args:
        title: above the table.
        columns: name of the result → metric → value; the first result has all metrics.
        higher_is_better: metric → whether higher is better.
        notes: lines below the table that explain the numbers.
        intervals: of the first result's metrics, shown in a separate column.
        images: name of the result → its number of images, shown in a last row.
    """
    known = any(low == low for low, _ in (intervals or {}).values())
    table = Table()
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
        if known and len(table.columns) == 2:
            table.add_column("95 % interval", justify="right")
    for metric in next(iter(columns.values())):
        cells = [number(values.get(metric)) for values in columns.values()]
        if intervals and known:
            cells.insert(1, interval(intervals.get(metric)))
        table.add_row(with_arrow(metric, higher_is_better[metric]), *cells)
    if images:
        table.add_section()
        cells = [str(images.get(name, "")) for name in columns]
        table.add_row("images", *(cells[:1] + [""] * known + cells[1:]))
    _print(title, table, notes)


def print_rows(
    title: str,
    header: Mapping[str, bool],
    groups: Sequence[Sequence[Sequence[str]]],
    notes: Sequence[str] = (),
) -> None:
    """Print groups of text rows, separated by lines.

    Args:
        title: above the table.
        header: name of each column → whether it holds numbers, which are right-aligned.
        groups: rows, each with one text per column.
        notes: lines below the table that explain the numbers.
    """
    table = Table()
    for name, numbers in header.items():
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for group in groups:
        for row in group:
            table.add_row(*(Text(cell) for cell in row))
        table.add_section()
    _print(title, table, notes)


def with_arrow(metric: str, higher_is_better: bool) -> str:
    """The metric's name, and an arrow for the better direction."""
    return f"{metric} {'↑' if higher_is_better else '↓'}"


def recorded_directions(*contents: Mapping[str, Any]) -> dict[str, bool]:
    """Metric → whether higher is better, for all metrics in the contents of one or several metrics.json.

    Evaluations record it as `higher_is_better`. If an older one did not, a custom metric counts as an error.
    """
    known = directions(ERRORS) | {"accuracy": bool(PointPairAccuracy.higher_is_better)}
    for content in contents:
        known |= content.get("higher_is_better", {})
    return {metric: known.get(metric, False) for content in contents for metric in content["metrics"]}


def number(value: float | None) -> str:
    """A metric's value as tables show it."""
    return "–" if value is None or value != value else f"{value:.4f}"


def interval(bounds: tuple[float, float] | None) -> str:
    """A confidence interval as tables show it."""
    return "–" if bounds is None or bounds[0] != bounds[0] else f"{bounds[0]:.4f} to {bounds[1]:.4f}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values, indented. NaN becomes null, which every JSON reader accepts."""
    write_text(path, json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Mapping[str, Mapping[str, float]]) -> None:
    """Write one row per result: its name, then its metrics."""
    write_rows(path, [{"result": name, **metrics} for name, metrics in columns.items()])


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; the columns are all names in them, in order of first appearance."""
    with atomically(path) as aside, aside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    """Write columns of equal length as Parquet; NaN becomes null."""
    import pyarrow as pa
    import pyarrow.parquet

    arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    with atomically(path) as aside:
        pyarrow.parquet.write_table(pa.table(arrays), aside)


def _print(title: str, table: Table, notes: Sequence[str]) -> None:
    console = Console()
    if not console.is_terminal:  # a file has no width limit
        console = Console(width=200)
    for line in (f"\n{title}", table, *notes):
        console.print(line, highlight=False, markup=False, soft_wrap=isinstance(line, str))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value

"""The table of results: on the terminal, as JSON, as CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HIGHER_IS_BETTER = {"delta1", "delta2", "delta3"}


def print_table(title: str, columns: Mapping[str, Mapping[str, float]], notes: Sequence[str] = ()) -> None:
    """Print one row per metric and one column per result, with notes below.

    Args:
        title: above the table.
        columns: name of the result → metric → value; the first result has all metrics.
        notes: what the reader must know beside the numbers.
    """
    table = Table()
    table.add_column("metric")
    for name in columns:
        table.add_column(name, justify="right")
    metrics = list(next(iter(columns.values())))
    for metric in metrics:
        arrow = "↑" if metric in HIGHER_IS_BETTER else "↓"
        table.add_row(f"{metric} {arrow}", *(_number(values.get(metric)) for values in columns.values()))
    console = Console()
    console.print(f"\n{title}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values, indented. NaN becomes null, which every JSON reader takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Mapping[str, Mapping[str, float]]) -> None:
    """Write one row per result: its name, then its metrics."""
    metrics = list(next(iter(columns.values())))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["result", *metrics])
        writer.writerows([name, *(values.get(metric) for metric in metrics)] for name, values in columns.items())


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value

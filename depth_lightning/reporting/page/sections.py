"""The page's sections of text, tables and charts, as HTML; a section without content is an empty string."""

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from typing import Any, Final

from depth_lightning.metrics import Breakdowns
from depth_lightning.reporting.page.charts import Bar, Point, bar_chart, calibration_chart, line_chart
from depth_lightning.reporting.tables import interval, number, with_arrow

VALIDATION_CHARTS: Final = {
    "abs_rel": False, "delta1": True, "rmse": False, "affine_error": False, "ordinal_error": False,
}  # fmt: skip
"""Metric → whether higher is better."""
SCENES: Final = 10
"""Number of the worst scenes shown initially; a button shows the others."""


def section(name: str, title: str, content: str) -> str:
    """A section with its heading."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>' if content else ""


def results(
    columns: Mapping[str, Mapping[str, float]],
    higher_is_better: Mapping[str, bool],
    bounds: Mapping[str, tuple[float, float]],
    notes: Sequence[str],
) -> str:
    """The table of metrics.

    Args:
        columns: name of a result → metric → value; the first is the model's.
        higher_is_better: for every metric.
        bounds: interval bounds of the first result.
        notes: lines beside the table.
    """
    known = any(low == low for low, _ in bounds.values())
    first, *others = columns
    head = ["metric", first, *(["95 % interval"] if known else []), *others]
    rows = []
    for metric in columns[first]:
        cells = [number(columns[first][metric]), *([interval(bounds.get(metric))] if known else [])]
        cells += [number(columns[other].get(metric)) for other in others]
        rows.append([with_arrow(metric, higher_is_better[metric]), *cells])
    beside = "".join(f"<p class=note>{escape(note)}</p>" for note in notes)
    caption = "Averages over images, ↓ lower is better"
    return f'<div class="beside">{_table(caption, head, rows)}<div>{beside}</div></div>'


def errors(breakdowns: Breakdowns | None) -> str:
    """Charts and tables that show where the error is."""
    if breakdowns is None:
        return ""
    distances = [{"part": f"{row['from_m']:g} to {row['to_m']:g} m", **row} for row in breakdowns.by_distance]
    parts = {
        "By true depth": distances,
        "Near depth edges and away from them": breakdowns.by_edge,
        "By region of the image": breakdowns.by_region,
    }
    head = ["part", "pixels", "abs_rel ↓", "bias", "delta1 ↑"]
    tables = [_table(caption, head, [_part_cells(row) for row in rows]) for caption, rows in parts.items() if rows]
    if breakdowns.corrections:
        rows = [
            [row["correction"], *(number(row[name]) for name in ("abs_rel", "rmse", "delta1"))]
            for row in breakdowns.corrections
        ]
        caption = "Errors after one correction for all images, fitted on half of them and tested on the other half"
        tables.append(_table(caption, ["correction", "abs_rel ↓", "rmse ↓", "delta1 ↑"], rows))
    tables.append(_scenes(breakdowns.by_scene))
    return _joined("grid", _distance_charts(distances)) + _joined("tables", tables)


def training(rows: Sequence[Mapping[str, str]]) -> str:
    """Charts of the rows of a metrics.csv."""

    def line(column: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[column])) for row in rows if row.get(column) and row.get("step")]

    names = list(dict.fromkeys(name for row in rows for name in row if name))
    losses = {name.removeprefix("train/"): line(name) for name in names if name.startswith("train/loss")}
    rates = {name.removeprefix("lr/"): line(name) for name in names if name.startswith("lr/")}
    charts = [line_chart("Training loss", losses, "step", "loss")]
    charts += [
        line_chart(f"Validation {with_arrow(metric, higher)}", {metric: line(f"val/{metric}")}, "step", metric)
        for metric, higher in VALIDATION_CHARTS.items()
        if f"val/{metric}" in names
    ]
    return _joined("grid", [*charts, line_chart("Learning rate", rates, "step", "rate", log_y=True)])


def reproduction(command: str, versions: Mapping[str, str], config: str) -> str:
    """What is needed to reproduce the numbers."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(version)}</dd>" for name, version in versions.items())
    return (
        f"<h3>Command</h3><pre tabindex=0><code>{escape(command)}</code></pre>"
        f"<h3>Versions</h3><dl>{rows}</dl>"
        "<details><summary>Resolved configuration</summary>"
        f"<pre tabindex=0><code>{escape(config)}</code></pre></details>"
    )


def _distance_charts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    def words(row: Mapping[str, Any]) -> str:
        return (
            f"{row['part']}, {_share(row)} of the pixels ({row['pixels']:,}): abs_rel {number(row['abs_rel'])}, bias "
            f"{_signed(row['bias'])}, mean truth {row['mean_target']:.3f} m, prediction {row['mean_prediction']:.3f} m"
        )

    def bars(name: str, factor: float) -> list[Bar]:
        return [Bar(row["from_m"], row["to_m"], factor * row[name], row["share"], words(row)) for row in rows]

    points = [Point(row["mean_target"], row["mean_prediction"], row["share"], words(row)) for row in rows]
    error, bias = "|prediction − truth| / truth", "(prediction − truth) / truth in %, above 0 is too far"
    return [
        bar_chart("abs_rel by true depth", bars("abs_rel", 1), "true depth in m", error),
        bar_chart("Bias by true depth", bars("bias", 100), "true depth in m", bias),
        calibration_chart("Calibration: the diagonal is perfect", points),
    ]


def _part_cells(row: Mapping[str, Any]) -> list[str]:
    return [row["part"], _share(row), number(row["abs_rel"]), _signed(row["bias"]), number(row["delta1"])]


def _scenes(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of scenes; an empty string if it would repeat the table of images."""
    if len(rows) < 2 or all(row["images"] == 1 for row in rows):
        return ""
    names = [name for name in ("abs_rel", "rmse", "delta1") if name in rows[0]]
    head = ["scene", "images", *(with_arrow(name, VALIDATION_CHARTS[name]) for name in names)]
    cells = [[row["scene"], str(row["images"]), *(number(row[name]) for name in names)] for row in rows]
    return _table("By scene, the worst first", head, cells, SCENES)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], shown: int | None = None) -> str:
    """A table whose first column names the rows; rows after the first `shown` appear when a button is pressed."""

    def lines(some: Sequence[Sequence[str]]) -> str:
        return "".join(
            f"<tr><th scope=row>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
            for row in some
        )

    top = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    more = ""
    body = f"<tbody>{lines(rows[:shown])}</tbody>"
    if shown and len(rows) > shown:
        body += f"<tbody hidden>{lines(rows[shown:])}</tbody>"
        more = f'<button type=button class="more" aria-expanded=false>Show all {len(rows)}</button>'
    return (
        f'<div><div class="scroll" tabindex=0 role=region aria-label="{escape(caption)}"><table class="numbers">'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>{body}</table></div>{more}</div>"
    )


def _joined(kind: str, parts: Sequence[str]) -> str:
    content = "".join(parts)
    return f'<div class="{kind}">{content}</div>' if content else ""


def _share(row: Mapping[str, Any]) -> str:
    return "<\u00a00.1\u00a0%" if row["share"] < 0.001 else f"{100 * row['share']:.1f}\u00a0%"


def _signed(value: float) -> str:
    """A fraction as a signed percentage."""
    return f"{100 * value:+z.1f}\u00a0%".replace("-", "−") if isfinite(value) else "–"

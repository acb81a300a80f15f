"""Fills the page's template: what Python knows goes in as text, what the browser draws as data."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from depth_lightning.atomic import atomically
from depth_lightning.metrics import Protocol, crop_mask
from depth_lightning.reporting.colour import DEPTH_COLOURS, ERROR_COLOURS, HOLE, NOT_FINITE
from depth_lightning.reporting.page.charts import bar_chart, calibration_chart, line_chart
from depth_lightning.reporting.page.images import EncodedImage, PageImage, chosen
from depth_lightning.reporting.page.maps import QuantisedMap
from depth_lightning.reporting.panels import ERROR_LIMIT
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.reporting.tables import interval, number, with_arrow
from depth_lightning.sample import DepthKind

SCRIPTS: Final = ("data.js", "colours.js", "figure.js", "points.js", "table.js", "page.js")
FACT_COLUMNS: Final = ("valid_share", "scale", "shift")
ROLE_TITLES: Final = {"worst": "Worst", "best": "Best", "random": "Random"}
RUN_CHARTS: Final = {
    "abs_rel": "AbsRel in validation ↓",
    "delta1": "δ1 in validation ↑",
    "rmse": "RMSE in validation ↓",
    "affine_error": "Affine-invariant error in validation ↓",
    "ordinal_error": "Wrongly ordered pairs in validation ↓",
}


@dataclass(frozen=True)
class PageContent:
    """What a page shows beside its images."""

    title: str
    result: EvaluationResult
    protocol: Protocol
    columns: Mapping[str, Mapping[str, float]]
    """Name of a result → metric → value; the first is the model's."""
    notes: Sequence[str] = ()
    curves: Sequence[Mapping[str, str]] = ()
    """The rows of the run's metrics.csv, where there is a run."""
    config: str = ""
    """The resolved configuration, as YAML."""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    """What reproduces the numbers."""


def write_page(path: Path, content: PageContent, images: Sequence[PageImage]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the HTML file.
        content: all but the images.
        images: of all processes, in the order of `EvaluationResult.per_image`.
    """
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in SCRIPTS)
    parts = {
        "policy": f"default-src 'none'; img-src data: blob:; style-src {_digest(style)}; script-src {_digest(script)}",
        "title": _text(content.title),
        "style": style,
        "results": _results(content),
        "run": _section("run", "The run", _run_charts(content.curves)),
        "errors": _section("errors", "Where the error is", _error_charts(content.result)),
        "reproduce": _reproduce(content),
        "content": _json(_index(content, images)),
        "script": script,
    }
    # One pass, so that nothing which is filled in is taken for a place to fill.
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))
    with atomically(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.write(page)
        file.writelines(_data(images))
        file.write("</body></html>\n")


def _data(images: Sequence[PageImage]) -> Iterator[str]:
    """Inert scripts at the end of the page, of which the browser decodes what is looked at."""
    for prefix, found in (("large", [image.large for image in images]), ("small", [image.small for image in images])):
        for index, encoded in enumerate(found):
            if encoded is not None:
                blobs = (encoded.photo, encoded.truth.data, encoded.prediction.data)
                text = ",".join(base64.b64encode(blob).decode() for blob in blobs)
                yield f'<script type="application/octet-stream" id="{prefix}{index}">{text}</script>\n'


def _index(content: PageContent, images: Sequence[PageImage]) -> dict[str, Any]:
    table, higher = content.result.per_image(), content.result.higher_is_better
    metrics = [name for name in table if name in {*content.result.metrics}]
    facts = [name for name in FACT_COLUMNS if np.isfinite(np.asarray(table.get(name, []), float)).any()]
    ways = list(dict.fromkeys(image.shown_as for image in images))
    return {
        "columns": [
            {"name": name, "label": with_arrow(name, higher[name]), "higherIsBetter": higher[name]} for name in metrics
        ]
        + [{"name": name, "label": name, "higherIsBetter": None} for name in facts],
        "images": [
            {
                "id": image.id,
                "scene": image.scene,
                "status": table["status"][row],
                "kind": image.kind.name.lower(),
                "unit": "m" if image.kind == DepthKind.METRES else "",
                "shownAs": ways.index(image.shown_as),
                "height": image.height,
                "width": image.width,
                "scale": [image.low, image.high],
                "crop": _crop(content.protocol, image),
                "values": [_finite(table[name][row]) for name in (*metrics, *facts)],
                "small": _layout(image.small),
                "large": image.large and _layout(image.large),
            }
            for row, image in enumerate(images)
        ],
        "ways": ways,
        "groups": [
            {"title": _group_title(truth, role, images), "images": indices}
            for (truth, role), indices in chosen(list(images)).items()
        ],
        "colours": {
            "depth": DEPTH_COLOURS.tobytes().hex(),
            "error": ERROR_COLOURS.tobytes().hex(),
            "hole": HOLE,
            "notFinite": NOT_FINITE,
        },
        "errorLimit": ERROR_LIMIT,
    }


def _group_title(truth: str, role: str, images: Sequence[PageImage]) -> str:
    by = "" if role == "random" else " by affine_error" if truth == "disparity" else " by abs_rel"
    mixed = len({image.truth for image in images}) > 1
    return ROLE_TITLES[role] + by + (f", truth in {truth}" if mixed else "")


def _crop(protocol: Protocol, image: PageImage) -> list[float] | None:
    """Top, bottom, left and right of what is scored, as shares of the image; None where that is all."""
    if protocol.crop == "none" or image.kind == DepthKind.DISPARITY:
        return None
    inside = crop_mask(protocol.crop, image.height, image.width).numpy()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    ends = (rows[0] / image.height, (rows[-1] + 1) / image.height)
    return [float(end) for end in (*ends, columns[0] / image.width, (columns[-1] + 1) / image.width)]


def _layout(image: EncodedImage) -> dict[str, Any]:
    def steps(encoded: QuantisedMap) -> list[float]:
        return [encoded.low, encoded.step]

    return {
        "height": image.height,
        "width": image.width,
        "truth": steps(image.truth),
        "prediction": steps(image.prediction),
    }


def _results(content: PageContent) -> str:
    bounds, columns = content.result.intervals.bounds, content.columns
    known = any(low == low for low, _ in bounds.values())
    first, *others = columns
    head = ["metric", first, *(["95 % interval"] if known else []), *others]
    rows = []
    for metric in columns[first]:
        cells = [number(columns[first][metric]), *([interval(bounds.get(metric))] if known else [])]
        cells += [number(columns[other].get(metric)) for other in others]
        rows.append([with_arrow(metric, content.result.higher_is_better[metric]), *cells])
    notes = "".join(f"<p class=note>{_text(note)}</p>" for note in content.notes)
    return _table("Averages over images", head, rows) + notes


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    top = "".join(f"<th scope=col>{_text(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope=row>{_text(row[0])}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex=0 role=region aria-label="{_text(caption)}"><table class="numbers">'
        f"<caption>{_text(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _run_charts(rows: Sequence[Mapping[str, str]]) -> str:
    def line(column: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[column])) for row in rows if row.get(column) and row.get("step")]

    names = list(dict.fromkeys(name for row in rows for name in row if name))
    losses = {name.removeprefix("train/"): line(name) for name in names if name.startswith("train/loss")}
    rates = {name.removeprefix("lr/"): line(name) for name in names if name.startswith("lr/")}
    charts = [line_chart("Training loss", losses, "step", "loss")]
    charts += [
        line_chart(title, {metric: line(f"val/{metric}")}, "step", metric)
        for metric, title in RUN_CHARTS.items()
        if f"val/{metric}" in names
    ]
    return _charts([*charts, line_chart("Learning rate", rates, "step", "rate", log_y=True)])


def _error_charts(result: EvaluationResult) -> str:
    if result.breakdowns is None:
        return ""
    breakdowns = result.breakdowns
    distances = breakdowns.by_distance
    said = [
        f"{row['from_m']:g} to {row['to_m']:g} m, {row['share']:.1%} of the pixels: abs_rel {row['abs_rel']:.4f}, "
        f"bias {row['bias']:+.1%}, mean truth {row['mean_target']:.3f} m, prediction {row['mean_prediction']:.3f} m"
        for row in distances
    ]
    ranges = [(row["from_m"], row["to_m"]) for row in distances]
    found = [(*ends, row["abs_rel"], words) for ends, row, words in zip(ranges, distances, said, strict=True)]
    biases = [(*ends, 100 * row["bias"], words) for ends, row, words in zip(ranges, distances, said, strict=True)]
    means = [(row["mean_target"], row["mean_prediction"], words) for row, words in zip(distances, said, strict=True)]
    charts = [
        bar_chart("AbsRel by distance", found, "true depth in m", "abs_rel"),
        bar_chart("Bias by distance: above 0 is too far", biases, "true depth in m", "mean of (p − t) / t in %"),
        calibration_chart("Calibration: on the line is right", means),
    ]
    parts = [
        ("Near depth edges and away from them", [(row["part"], row) for row in breakdowns.by_edge]),
        ("By region of the image", [(row["part"], row) for row in breakdowns.by_region]),
    ]
    tables = [
        _table(
            caption,
            ["part", "pixels", "abs_rel ↓", "bias", "delta1 ↑"],
            [
                [name, f"{row['share']:.1%}", number(row["abs_rel"]), f"{row['bias']:+.1%}", number(row["delta1"])]
                for name, row in rows
            ],
        )
        for caption, rows in parts
        if rows
    ]
    if len(breakdowns.by_scene) > 1:
        shown = [name for name in ("abs_rel", "rmse", "delta1") if name in breakdowns.by_scene[0]]
        rows = [
            [row["scene"], str(row["images"]), *(number(row[name]) for name in shown)] for row in breakdowns.by_scene
        ]
        head = ["scene", "images", *(with_arrow(name, result.higher_is_better[name]) for name in shown)]
        tables.append(_table("By scene", head, rows))
    if breakdowns.corrections:
        rows = [
            [row["correction"], *(number(row[name]) for name in ("abs_rel", "rmse", "delta1"))]
            for row in breakdowns.corrections
        ]
        caption = "Wrong, or only wrongly scaled: after a correction fitted on the other half of the images"
        tables.append(_table(caption, ["correction", "abs_rel ↓", "rmse ↓", "delta1 ↑"], rows))
    return _charts(charts) + f'<div class="grid">{"".join(tables)}</div>'


def _reproduce(content: PageContent) -> str:
    versions = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in content.versions.items())
    return (
        f"<h3>Command</h3><pre tabindex=0><code>{_text(content.command)}</code></pre>"
        f"<h3>Versions</h3><dl>{versions}</dl>"
        "<details><summary>The resolved configuration</summary>"
        f"<pre tabindex=0><code>{_text(content.config)}</code></pre></details>"
    )


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{_text(title)}</h2>{content}</section>' if content else ""


def _charts(charts: Sequence[str]) -> str:
    found = "".join(charts)
    return f'<div class="grid">{found}</div>' if found else ""


def _asset(name: str) -> str:
    return (files("depth_lightning.reporting.page") / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """As a content security policy names an inline script or style: any other one is not run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(content: Any) -> str:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _text(value: str) -> str:
    return html.escape(value)

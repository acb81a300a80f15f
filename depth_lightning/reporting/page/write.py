"""Fills the page template with text and charts as HTML, and with images as data that the browser draws."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from depth_lightning.atomic import atomically
from depth_lightning.metrics import Protocol, crop_mask
from depth_lightning.reporting.colour import DEPTH_COLOURS, ERROR_COLOURS, HOLE, NOT_FINITE
from depth_lightning.reporting.page.images import EncodedImage, PageImage, chosen
from depth_lightning.reporting.page.maps import QuantisedMap
from depth_lightning.reporting.page.sections import errors, reproduction, results, section, training
from depth_lightning.reporting.panels import ERROR_LIMIT
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.reporting.tables import with_arrow
from depth_lightning.sample import DepthKind

SCRIPTS: Final = ("data.js", "colours.js", "figure.js", "points.js", "table.js", "page.js")
FACT_COLUMNS: Final = ("valid_share", "scale", "shift")
ROLE_TITLES: Final = {"worst": "Worst", "best": "Best", "random": "Random"}


@dataclass(frozen=True)
class PageContent:
    """The content of a page besides its images."""

    title: str
    result: EvaluationResult
    protocol: Protocol
    columns: Mapping[str, Mapping[str, float]]
    """Name of a result → metric → value; the first is the model's."""
    notes: Sequence[str] = ()
    curves: Sequence[Mapping[str, str]] = ()
    """The rows of the run's metrics.csv, if there is a run."""
    config: str = ""
    """The resolved configuration, as YAML."""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    """The command that reproduces the numbers."""


def write_page(path: Path, content: PageContent, images: Sequence[PageImage]) -> None:
    """Write the page atomically.

    Args:
        path: of the HTML file.
        content: everything except the images.
        images: of all processes, in the order of `EvaluationResult.per_image`.
    """
    result = content.result
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in SCRIPTS)
    parts = {
        "policy": f"default-src 'none'; img-src data: blob:; style-src {_digest(style)}; script-src {_digest(script)}",
        "title": escape(content.title),
        "style": style,
        "results": results(content.columns, result.higher_is_better, result.intervals.bounds, content.notes),
        "errors": section("errors", "Where the error is", errors(result.breakdowns)),
        "run": section("run", "Training", training(content.curves)),
        "reproduction": reproduction(content.command, content.versions, content.config),
        "content": _json(_index(content, images)),
        "script": script,
    }
    # One pass: braces in the inserted text stay unchanged.
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))
    with atomically(path) as aside, aside.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(page)
        file.writelines(_data(images))
        file.write("</body></html>\n")


def _data(images: Sequence[PageImage]) -> Iterator[str]:
    """Inert scripts at the end of the page; the browser decodes those that scroll into view."""
    for prefix, maps in (("large", [image.large for image in images]), ("small", [image.small for image in images])):
        for index, encoded in enumerate(maps):
            if encoded is not None:
                blobs = (encoded.photo, encoded.truth.data, encoded.prediction.data)
                packed = ",".join(base64.b64encode(blob).decode() for blob in blobs)
                yield f'<script type="application/octet-stream" id="{prefix}{index}">{packed}</script>\n'


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
    return ROLE_TITLES[role] + by + (f" ({truth})" if mixed else "")


def _crop(protocol: Protocol, image: PageImage) -> list[float] | None:
    """Top, bottom, left and right of the scored part, as shares of the image; None where all of it is scored."""
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


def _asset(name: str) -> str:
    return (files("depth_lightning.reporting.page") / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """The name of an inline script or style in a content security policy; the browser runs no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(content: Any) -> str:
    """JSON that cannot close the script element around it."""
    plain = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None

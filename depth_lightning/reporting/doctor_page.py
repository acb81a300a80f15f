"""The doctor's page: one self-contained HTML file, including its pictures."""

import base64
import html
from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np

from depth_lightning.atomic import write_text
from depth_lightning.data.diagnosis import HISTOGRAM, Summary, Verdict, share_beyond
from depth_lightning.reporting.colour import DEPTH_COLOURS, colourise, robust_range
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.wording import significant

TILE_WIDTH: Final = 300
STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #1f2328 }
table { border-collapse: collapse; margin: .6em 0 1.2em } h2 { margin-top: 2em }
th, td { text-align: left; vertical-align: top; padding: .3em .8em .3em 0; border-bottom: 1px solid #d0d7de }
.found td:first-child { color: #b2182b; font-weight: 600 } .unclear td:first-child { color: #656d76 }
.fine td:first-child { color: #1a7f37 } tr[class] td:first-child { white-space: nowrap }
.muted, figcaption { color: #656d76; font-size: 13px }
figure { margin: .5em 0 } img { max-width: 100%; display: block } svg { display: block; max-width: 100% }
"""
SIGNS: Final = {"found": "✗ found", "unclear": "? unclear", "fine": "✓ fine"}


class SplitPage(NamedTuple):
    """A split as the page shows it."""

    summary: Summary
    verdicts: Sequence[Verdict]
    pictures: Sequence[tuple[str, np.ndarray]]
    """Captions and pictures (h, w, 3) uint8 RGB: samples of the split, then the samples that the verdicts refer to."""


def write_page(path: Path, title: str, splits: Mapping[str, SplitPage], across: Sequence[Verdict]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: what was examined.
        splits: by name.
        across: verdicts across all splits.
    """
    found = sum(verdict.state == "found" for page in splits.values() for verdict in page.verdicts)
    found += sum(verdict.state == "found" for verdict in across)
    heading = f"{found} things look wrong" if found > 1 else "1 thing looks wrong" if found else "Nothing looks wrong"
    parts = [f"<h1>{heading}</h1><p>{_text(title)}</p>", _summaries(splits)]
    if across:
        parts.append(f"<h2>The splits together</h2>{_verdicts(across)}")
    for name, page in splits.items():
        parts.append(f"<h2>{_text(name)}</h2>{_verdicts(page.verdicts)}{_histogram(page.summary)}")
        if page.pictures:
            parts.append(
                '<p class="muted">Image; depth (bright is near, grey is unknown); where depth jumps, on it.</p>'
            )
        parts += [_figure(caption, picture) for caption, picture in page.pictures]
    content = f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(title)}</title><style>{STYLE}</style>"
    write_text(path, content + "".join(parts) + "</html>\n")


def draw_sample(sample: DepthSample) -> np.ndarray:
    """Image, depth in colours, and the image with the places where depth jumps in red: (h, 3 · w, 3) uint8 RGB."""
    size = (TILE_WIDTH, max(1, round(TILE_WIDTH * sample.image.shape[0] / sample.image.shape[1])))
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    reach = int(np.ceil(max(sample.target.shape[1] / size[0], 2 if sample.mask.mean() < 0.3 else 1)))
    values: np.ndarray = sample.target
    mask: np.ndarray = sample.mask.astype(np.uint8)
    if reach > 1:  # a sparse map would hardly be visible
        kernel = np.ones((reach, reach), np.uint8)
        values, mask = cv2.dilate(values, kernel), cv2.dilate(mask, kernel)
    values = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
    known = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(bool)
    colours = DEPTH_COLOURS[::-1] if sample.kind == DepthKind.DISPARITY else DEPTH_COLOURS
    depth = colourise(values, *robust_range(values[known]), colours=colours, mask=known)
    return np.concatenate([image, depth, _with_jumps(image, values, known)], axis=1)


def _with_jumps(image: np.ndarray, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The image, pale, with depth edges in red: where one of two neighbours is at least 5 % farther."""
    log = np.log(np.where(known & (values > 0), values, 1)).astype(np.float32)
    jumps = np.zeros(known.shape, bool)
    for axis in (0, 1):
        both = known & np.roll(known, 1, axis)
        jumps |= both & (np.abs(log - np.roll(log, 1, axis)) > 0.05)
    jumps[0], jumps[:, 0] = False, False
    drawn = (96 + 0.6 * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=-1)).astype(np.uint8)
    drawn[jumps] = (200, 0, 30)
    return drawn


def summary_rows(splits: Mapping[str, Summary]) -> list[list[str]]:
    """One row per statistic: its name, then its value for each split."""
    rows = {
        "samples": [f"{split.samples:,}" for split in splits.values()],
        "that can be read": [f"{split.readable:,}" for split in splits.values()],
        "scenes": [f"{split.scenes:,}" if split.scenes else "not known" for split in splits.values()],
        "truth": [split.kind or "–" for split in splits.values()],
        "image sizes (w×h)": [_sizes(split.image_sizes) for split in splits.values()],
        "depth sizes (w×h)": [_sizes(split.target_sizes) for split in splits.values()],
        "field of view, longer side": [_angles(split) for split in splits.values()],
        "valid pixels, median": [_percent(split.valid_share) for split in splits.values()],
        "truth at 0.1 %, 50 %, 99.9 %": [_quantiles(split) for split in splits.values()],
        "suggested model.max_depth": _suggestions(list(splits.values())),
    }
    return [[name, *values] for name, values in rows.items()]


def _quantiles(summary: Summary) -> str:
    values = ", ".join(map(significant, summary.quantiles))
    return f"{values} m" if summary.kind == "metres" else values


def _suggestions(splits: Sequence[Summary]) -> list[str]:
    """One depth for all splits, with the share of each beyond it."""
    depth = max((split.suggested_max_depth for split in splits if split.suggested_max_depth), default=None)
    if depth is None:
        return ["–"] * len(splits)
    return [
        f"{depth:g} m ({100 * share_beyond(split.histogram, depth):.2f} % beyond)" if split.suggested_max_depth else "–"
        for split in splits
    ]


def _angles(summary: Summary) -> str:
    if summary.fov_deg is None:
        return "not known"
    low, middle, high = (f"{angle:.1f}°" for angle in summary.fov_deg)
    return low if low == high else f"{low} to {high}, median {middle}"


def _sizes(sizes: Mapping[str, int]) -> str:
    shown = [f"{size} ({count:,})" for size, count in list(sizes.items())[:3]]
    return ", ".join(shown) + (f", and {len(sizes) - 3} others" if len(sizes) > 3 else "") or "–"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"


def _summaries(splits: Mapping[str, SplitPage]) -> str:
    rows = summary_rows({name: page.summary for name, page in splits.items()})
    head = "".join(f"<th>{_text(name)}</th>" for name in ("", *splits))
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in sorted(verdicts, key=lambda verdict: list(SIGNS).index(verdict.state)):
        evidence = _text(verdict.evidence)
        if verdict.state == "found":
            evidence += f"<br><b>{_text(verdict.advice)}</b>"
            if verdict.examples:
                evidence += f'<br><span class="muted">{_text(", ".join(verdict.examples))}</span>'
        cells = (SIGNS[verdict.state], _text(verdict.check), evidence)
        rows.append(f"<tr class={verdict.state}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _histogram(summary: Summary, width: int = 640, height: int = 120) -> str:
    """Bars over a logarithmic axis from the first to the last bin with a non-negligible count."""
    counts = summary.histogram
    if not counts.any():
        return ""
    filled = np.flatnonzero(counts > 1e-5 * counts.sum())
    first, last = int(filled[0]), int(filled[-1])
    step = width / (last - first + 1)
    scale = height / counts.max()
    bars = "".join(
        f'<rect x="{(bin_ - first) * step:.1f}" y="{height - count * scale:.1f}" width="{step:.1f}" '
        f'height="{count * scale:.1f}" />'
        for bin_, count in enumerate(counts[first : last + 1].tolist(), first)
    )
    low, high = log10(HISTOGRAM[first]), log10(HISTOGRAM[last + 1])
    steps = (1, 2, 5) if high - low > 2 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = [value * 10.0**power for power in range(-3, 6) for value in steps]
    labels = "".join(
        f'<text x="{(log10(tick) - low) / (high - low) * width:.1f}" y="{height + 16}">{tick:g}</text>'
        for tick in ticks
        if low <= log10(tick) <= high
    )
    unit = "depth in metres" if summary.kind == "metres" else summary.kind
    return (
        f'<figure><svg viewBox="-12 -18 {width + 24} {height + 40}" width="{width + 24}" font-size="12">'
        f'<g fill="#4393c3">{bars}</g><g fill="#656d76" text-anchor="middle">{labels}</g>'
        f'<text x="0" y="-6" fill="#656d76">↑ valid pixels of all maps, up to '
        f"{100 * counts.max() / counts.sum():.1f} % per bar</text></svg><figcaption>{_text(unit)}</figcaption></figure>"
    )


def _figure(caption: str, picture: np.ndarray) -> str:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = base64.b64encode(encoded.tobytes()).decode()
    return f'<figure><img src="data:image/jpeg;base64,{data}" alt=""><figcaption>{_text(caption)}</figcaption></figure>'


def _text(value: str) -> str:
    return html.escape(value)

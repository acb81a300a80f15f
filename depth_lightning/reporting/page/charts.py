"""Charts as SVG text. The page's style sheet colours them, so they follow its theme and need no script."""

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite, log10
from typing import Final, NamedTuple

from depth_lightning.reporting.colour import round_ticks

WIDTH: Final = 460
HEIGHT: Final = 260
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 24, 38
MOST_POINTS: Final = 400
"""Largest number of points of a line; longer lines are averaged over intervals."""
MOST_EDGES: Final = 12
"""Largest number of bin edges labelled below the axis."""
SPARSE_SHARE: Final = 5e-3
"""Of all pixels. The height of a bin with fewer may be due to a few outliers."""
LEAST_LOG_SHARE: Final = 1e-4
"""Smallest share of the largest value on a logarithmic axis: a schedule ends near 0, which would dominate the scale."""

Line = Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """A bin of a bar chart."""

    start: float
    end: float
    height: float
    share: float
    """Of all pixels; below `SPARSE_SHARE` the bin is drawn hollow and does not set the scale."""
    words: str
    """Tooltip."""


class Point(NamedTuple):
    """A bin of a calibration chart."""

    truth: float
    prediction: float
    share: float
    words: str


def line_chart(title: str, lines: Mapping[str, Line], x_label: str, y_label: str, *, log_y: bool = False) -> str:
    """A figure with a line per name, through its finite points; an empty string if none has two.

    Args:
        title: above the chart.
        lines: name → points (x, y).
        x_label: below the axis.
        y_label: shown with x_label in tooltips.
        log_y: use a logarithmic y axis, without the points below `LEAST_LOG_SHARE` of the largest.
    """
    finite = {name: [(x, y) for x, y in line if isfinite(x) and isfinite(y)] for name, line in lines.items()}
    if log_y:
        least = LEAST_LOG_SHARE * max((y for line in finite.values() for _, y in line), default=0)
        finite = {name: [(x, y) for x, y in line if y > 0 and y >= least] for name, line in finite.items()}
    drawn = {name: _thinned(line) for name, line in finite.items()}
    drawn = {name: line for name, line in drawn.items() if len(line) > 1}
    if not drawn:
        return ""
    xs = [x for line in drawn.values() for x, _ in line]
    ys = [log10(y) if log_y else y for line in drawn.values() for _, y in line]
    plane = _Plane(_padded(min(xs), max(xs), 0), _padded(min(ys), max(ys), 0.05))
    parts = [plane.axes(x_label, log_y=log_y)]
    for index, (name, line) in enumerate(drawn.items()):
        points = [(plane.x(x), plane.y(log10(y) if log_y else y), x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)
        parts.append(f'<polyline class="line c{index % 6}" points="{path}"/>')
        if len(points) <= 60:
            parts += [
                f'<circle class="dot c{index % 6}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{escape(name)}: {x_label} {given:.6g}, {y_label} {value:.4g}</title></circle>"
                for x, y, given, value in points
            ]
    return figure(title, "".join(parts), list(drawn) if len(drawn) > 1 else ())


def bar_chart(title: str, bars: Sequence[Bar], x_label: str, y_label: str) -> str:
    """A figure of bars of equal width, each between the edges of its bin; an empty string if none is finite.

    A sparse bar that exceeds the scale of the others is truncated, and ends in a triangle.
    """
    bars = [bar for bar in bars if isfinite(bar.height)]
    if not bars:
        return ""
    edges = sorted({edge for bar in bars for edge in (bar.start, bar.end)})
    heights = [0.0, *(bar.height for bar in bars if bar.share >= SPARSE_SHARE)]
    low, high = _padded(min(heights), max(heights), 0.05)
    low = low if min(heights) < 0 else 0.0
    plane = _Plane((0, len(edges) - 1), (low, high))
    every = -(-len(edges) // MOST_EDGES)
    parts = [plane.axes(x_label, x_ticks=[(place, f"{edge:g}") for place, edge in enumerate(edges)][::every])]
    for bar in bars:
        left, right = plane.x(edges.index(bar.start)) + 1, plane.x(edges.index(bar.end)) - 1
        end = plane.y(min(max(bar.height, low), high))
        top, bottom = sorted((end, plane.y(0)))
        drawn = (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}">'
            f"<title>{escape(bar.words)}</title></rect>"
        )
        if not low <= bar.height <= high:
            middle, tip = (left + right) / 2, end - 7 if bar.height > high else end + 7
            drawn += f'<polygon points="{middle - 5:.1f},{end:.1f} {middle + 5:.1f},{end:.1f} {middle:.1f},{tip:.1f}"/>'
        parts.append(f'<g class="{_kind("bar", bar.share)}">{drawn}</g>')
    parts.append(_y_label(y_label))
    return figure(title, "".join(parts), sparse=any(bar.share < SPARSE_SHARE for bar in bars))


def calibration_chart(title: str, points: Sequence[Point]) -> str:
    """A figure of mean predictions over mean true depths, with the diagonal; an empty string if none is finite.

    A sparse point beyond the scale of the others is drawn at the border.
    """
    points = [point for point in points if isfinite(point.truth) and isfinite(point.prediction)]
    if not points:
        return ""
    dense = [point for point in points if point.share >= SPARSE_SHARE]
    most = 1.05 * max((max(point.truth, point.prediction) for point in dense), default=1.0)
    plane = _Plane((0, most), (0, most))
    diagonal = f'<line class="guide" x1="{plane.x(0)}" y1="{plane.y(0)}" x2="{plane.x(most)}" y2="{plane.y(most)}"/>'
    path = " ".join(f"{plane.x(point.truth):.1f},{plane.y(point.prediction):.1f}" for point in dense)
    parts = [plane.axes("mean true depth in m"), diagonal, f'<polyline class="line c0" points="{path}"/>']
    parts += [
        f'<circle class="{_kind("dot c0", point.share)}" cx="{plane.x(min(point.truth, most)):.1f}" '
        f'cy="{plane.y(min(point.prediction, most)):.1f}" r="4"><title>{escape(point.words)}</title></circle>'
        for point in points
    ]
    parts.append(_y_label("mean prediction in m"))
    return figure(title, "".join(parts), sparse=len(dense) < len(points))


def figure(title: str, content: str, legend: Sequence[str] = (), sparse: bool = False) -> str:
    """SVG content with its caption, the names of its lines, and if `sparse`, the legend for hollow marks."""
    keys = "".join(f'<span class="key c{index % 6}">{escape(name)}</span>' for index, name in enumerate(legend))
    if sparse:
        keys += f'<span class="key sparse">&lt; {100 * SPARSE_SHARE:g} % of the pixels</span>'
    return (
        f'<figure class="chart"><figcaption>{escape(title)} {keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{content}</svg></figure>'
    )


class _Plane:
    """Maps values to positions in the picture."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, *, log_y: bool = False, x_ticks: Sequence[tuple[float, str]] | None = None) -> str:
        """Grid, ticks and x_label; `x_ticks` (position, label) replace ticks at round numbers."""
        parts = []
        for tick in round_ticks(*self.y_range, most=6):
            y = self.y(tick)
            label = f"{10**tick:.3g}" if log_y else f"{tick:.6g}".replace("-", "−")
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        if x_ticks is None:
            x_ticks = [(tick, f"{tick:,.6g}") for tick in round_ticks(*self.x_range, most=8)]
        for tick, label in x_ticks:
            x, bottom = self.x(tick), HEIGHT - BOTTOM
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
        return "".join(parts)


def _kind(name: str, share: float) -> str:
    """The CSS class in page.css."""
    return f"{name} sparse" if share < SPARSE_SHARE else name


def _y_label(label: str) -> str:
    return f'<text class="label" x="{LEFT}" y="{TOP - 14}" text-anchor="start">{escape(label)}</text>'


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        spread = 0.1 * abs(low) or 1.0
        return low - spread, high + spread
    return low - share * (high - low), high + share * (high - low)


def _thinned(line: Line) -> Line:
    length = -(-len(line) // MOST_POINTS)
    if length <= 1:
        return line
    parts = [line[start : start + length] for start in range(0, len(line), length)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]

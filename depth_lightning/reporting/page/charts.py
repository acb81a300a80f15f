"""Charts as SVG text, coloured by the page's style: they follow its theme, and need no script."""

import html
from collections.abc import Mapping, Sequence
from math import isfinite, log10
from typing import Final

from depth_lightning.reporting.colour import round_ticks

WIDTH: Final = 460
HEIGHT: Final = 260
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 38
MOST_POINTS: Final = 400
"""Of a line; longer ones are averaged in stretches."""

Line = Sequence[tuple[float, float]]


def line_chart(title: str, lines: Mapping[str, Line], x_label: str, y_label: str, *, log_y: bool = False) -> str:
    """A figure with a line per name, through its finite points; empty text where there are none.

    Args:
        title: above it.
        lines: name → points (x, y).
        x_label: below the axis.
        y_label: said in the title of each point.
        log_y: draw powers of ten equally far apart; points that are not positive are left out.
    """
    drawn = {
        name: _thinned([(x, y) for x, y in line if isfinite(x) and isfinite(y) and (y > 0 or not log_y)])
        for name, line in lines.items()
    }
    drawn = {name: line for name, line in drawn.items() if line}
    if not drawn:
        return ""
    xs = [x for line in drawn.values() for x, _ in line]
    ys = [log10(y) if log_y else y for line in drawn.values() for _, y in line]
    plane = _Plane(_padded(min(xs), max(xs), 0), _padded(min(ys), max(ys), 0.05))
    parts = [plane.axes(x_label, log_y)]
    for index, (name, line) in enumerate(drawn.items()):
        points = [(plane.x(x), plane.y(log10(y) if log_y else y), x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)
        parts.append(f'<polyline class="line c{index % 6}" points="{path}"/>')
        if len(points) <= 60:
            parts += [
                f'<circle class="dot c{index % 6}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{_text(name)}: {x_label} {given:.6g}, {y_label} {value:.4g}</title></circle>"
                for x, y, given, value in points
            ]
    return figure(title, "".join(parts), list(drawn) if len(drawn) > 1 else [])


def bar_chart(title: str, bars: Sequence[tuple[float, float, float, str]], x_label: str, y_label: str) -> str:
    """A figure of bars (from, to, height, what to say of it); empty text where there are none."""
    if not bars:
        return ""
    low, high = min(0.0, *(bar[2] for bar in bars)), max(0.0, *(bar[2] for bar in bars))
    plane = _Plane((bars[0][0], bars[-1][1]), (low, high + 0.05 * (high - low) or 1.0))
    parts = [plane.axes(x_label, log_y=False)]
    for start, end, height, said in bars:
        left, right = plane.x(start), plane.x(end)
        top, bottom = sorted((plane.y(height), plane.y(0)))
        parts.append(
            f'<rect class="bar" x="{left + 1:.1f}" y="{top:.1f}" width="{max(1, right - left - 2):.1f}" '
            f'height="{bottom - top:.1f}"><title>{_text(said)}</title></rect>'
        )
    parts.append(f'<text class="label" x="{LEFT}" y="{TOP - 2}" text-anchor="start">{_text(y_label)}</text>')
    return figure(title, "".join(parts), [])


def calibration_chart(title: str, points: Sequence[tuple[float, float, str]]) -> str:
    """A figure of (true, predicted, what to say of it) with the diagonal; empty text where there are none."""
    if not points:
        return ""
    most = 1.05 * max(max(point[:2]) for point in points)
    plane = _Plane((0, most), (0, most))
    diagonal = f'<line class="guide" x1="{plane.x(0)}" y1="{plane.y(0)}" x2="{plane.x(most)}" y2="{plane.y(most)}"/>'
    path = " ".join(f"{plane.x(x):.1f},{plane.y(y):.1f}" for x, y, _ in points)
    parts = [plane.axes("mean true depth in m", log_y=False), diagonal, f'<polyline class="line c0" points="{path}"/>']
    parts += [
        f'<circle class="dot c0" cx="{plane.x(x):.1f}" cy="{plane.y(y):.1f}" r="4">'
        f"<title>{_text(said)}</title></circle>"
        for x, y, said in points
    ]
    parts.append(f'<text class="label" x="{LEFT}" y="{TOP - 2}" text-anchor="start">mean prediction in m</text>')
    return figure(title, "".join(parts), [])


def figure(title: str, content: str, legend: Sequence[str]) -> str:
    """SVG content with its caption and a legend of the lines' names."""
    keys = "".join(f'<span class="key c{index % 6}">{_text(name)}</span>' for index, name in enumerate(legend))
    return (
        f'<figure class="chart"><figcaption>{_text(title)} {keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(title)}">{content}</svg></figure>'
    )


class _Plane:
    """From values to places in the picture."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, log_y: bool) -> str:
        parts = []
        for tick in round_ticks(*self.y_range, most=6):
            y = self.y(tick)
            label = f"{10**tick:.3g}" if log_y else f"{tick:.6g}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        for tick in round_ticks(*self.x_range, most=8):
            x, bottom = self.x(tick), HEIGHT - BOTTOM
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            label = f"{tick:,.6g}"
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{_text(x_label)}</text>')
        return "".join(parts)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        spread = 0.1 * abs(low) or 1.0
        return low - spread, high + spread
    return low - share * (high - low), high + share * (high - low)


def _thinned(line: Line) -> Line:
    stretch = -(-len(line) // MOST_POINTS)
    if stretch <= 1:
        return line
    parts = [line[start : start + stretch] for start in range(0, len(line), stretch)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _text(value: str) -> str:
    return html.escape(value)

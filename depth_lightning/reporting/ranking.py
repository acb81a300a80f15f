"""A ranking of runs by a metric, with those that cannot be told apart, as a table and as a plot."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from depth_lightning.reporting.colour import BACKGROUND, FRAME, INK, MUTED_INK, font, round_ticks
from depth_lightning.reporting.tables import interval, number, print_rows, with_arrow


class RankedRun(NamedTuple):
    """A run and its rank."""

    rank: int
    name: str
    mean: float
    bounds: tuple[float, float]
    """95 % interval of the mean."""
    behind: float
    """Difference of its mean from that of the first; 0 for the first."""
    behind_bounds: tuple[float, float]
    p: float
    """p value for being as good as the first, corrected for all pairs of the ranking; 1 for the first."""
    alike: tuple[int, ...]
    """The ranks of the runs that it cannot be told apart from, at 5 %, corrected for all pairs."""


def print_ranking(
    title: str, metric: str, higher_is_better: bool, runs: Sequence[RankedRun], notes: Sequence[str]
) -> None:
    """Print one row per run, the best first."""
    header = {"rank": True, "run": False, with_arrow(metric, higher_is_better): True, "95 % interval": True}
    header |= {"behind the first": True, "95 % interval ": True, "p (Holm)": True, "not told apart from rank": False}
    rows = [
        [
            str(run.rank),
            run.name,
            number(run.mean),
            interval(run.bounds),
            *([""] * 3 if run.rank == 1 else [f"{run.behind:+.4f}", interval(run.behind_bounds), p_value(run.p)]),
            ", ".join(map(str, run.alike)),
        ]
        for run in runs
    ]
    print_rows(title, header, [rows], notes)


def p_value(p: float) -> str:
    """A p value as tables show it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def draw_ranking(metric: str, higher_is_better: bool, runs: Sequence[RankedRun]) -> np.ndarray:
    """A dot with its interval per run, the best on top; those not told apart from the first in ink, others in grey.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    size, text = 18, font(18)
    names = [f"{run.rank}  {run.name}" for run in runs]
    left = 20 + round(max(text.getlength(name) for name in names))
    width, row, top = left + 720, 34, 44
    height = top + row * len(runs) + 40
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    ends = [value for run in runs for value in (run.mean, *run.bounds) if np.isfinite(value)]
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return left + 10 + (value - low) / (high - low) * (width - left - 40)

    better = "more" if higher_is_better else "less"
    draw.text(
        (left + 10, 12), f"{metric} ({better} is better), mean and 95 % interval; grey: worse than the first", INK, text
    )
    for tick in round_ticks(low, high, most=6):
        draw.line((place(tick), top, place(tick), height - 36), fill=FRAME)
        draw.text((place(tick), height - 32), f"{tick:.6g}", MUTED_INK, text, anchor="ma")
    for number_of_row, (run, name) in enumerate(zip(runs, names, strict=True)):
        y = top + row * number_of_row + row // 2
        colour = INK if run.rank == 1 or 1 in run.alike else MUTED_INK
        draw.text((10, y), name, colour, text, anchor="lm")
        if np.isfinite(run.bounds).all():
            start, end = map(place, run.bounds)
            draw.line((start, y, end, y), fill=colour, width=3)
            for x in (start, end):
                draw.line((x, y - size // 3, x, y + size // 3), fill=colour, width=3)
        x = place(run.mean)
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)
    return np.asarray(picture)

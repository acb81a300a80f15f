"""Two-dimensional histogram of predicted against true depth, with the median prediction."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from depth_lightning.reporting.colour import BACKGROUND, DEPTH_COLOURS, FRAME, INK, MUTED_INK, font, round_ticks

SIDE = 480


def draw_depth_histogram(counts: np.ndarray, limit: float, unit: str) -> np.ndarray:
    """Draw pixel counts on a logarithmic colour scale, dark for many, with the diagonal and the median of each column.

    Args:
        counts: (n, n) integers, rows by prediction and columns by truth, from 0 to `limit`.
        limit: the end of both axes.
        unit: of both axes.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    n = len(counts)
    shares = np.log1p(counts) / max(np.log1p(counts.max()), 1)
    colours = DEPTH_COLOURS[np.rint(shares * (len(DEPTH_COLOURS) - 1)).astype(np.intp)]
    colours[counts == 0] = BACKGROUND
    plot = cv2.resize(colours[::-1], (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    size, text = 15, font(15)
    left, top, right, bottom = 64, 56, 24, 56
    picture = Image.new("RGB", (left + SIDE + right, top + SIDE + bottom), BACKGROUND)
    picture.paste(Image.fromarray(plot), (left, top))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, left + SIDE, top + SIDE), outline=FRAME)
    for value in round_ticks(0, limit, most=8):
        at = value / limit * SIDE
        draw.line((left + at, top + SIDE, left + at, top + SIDE + 5), fill=MUTED_INK)
        draw.text((left + at, top + SIDE + 8), f"{value:g}", MUTED_INK, text, anchor="ma")
        draw.line((left - 6, top + SIDE - at, left - 1, top + SIDE - at), fill=MUTED_INK)
        draw.text((left - 10, top + SIDE - at), f"{value:g}", MUTED_INK, text, anchor="rm")
    draw.text((left, 8), f"prediction (up) against truth (right), in {unit}", INK, text)
    draw.text((left, 8 + round(1.4 * size)), "dark: many pixels; blue: median prediction; line: truth", MUTED_INK, text)
    draw.line((left, top + SIDE, left + SIDE, top), fill=MUTED_INK)
    cell = SIDE / n
    for column in np.flatnonzero(counts.sum(axis=0)):
        cumulative = np.cumsum(counts[:, column])
        row = int(np.searchsorted(cumulative, cumulative[-1] / 2))
        x, y = left + (column + 0.5) * cell, top + SIDE - (row + 0.5) * cell
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(33, 102, 172))
    return np.asarray(picture)

"""Colour maps for depth and error, and the scale bar that explains them."""

from collections.abc import Mapping
from functools import lru_cache
from math import ceil, floor, log10
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND: Final = (255, 255, 255)
INK: Final = (31, 35, 40)
MUTED_INK: Final = (101, 109, 118)
FRAME: Final = (208, 215, 222)
HOLE: Final = (128, 128, 128)
"""For pixels without a measurement. Neither colour map contains a grey of this lightness."""
NOT_FINITE: Final = (0, 255, 64)
"""For NaN and infinities. Neither colour map contains a colour near it."""


def _depth_colours() -> np.ndarray:
    ramp = np.arange(255, 19, -1, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, 0, ::-1])


def _error_colours() -> np.ndarray:
    blues = [[5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222]]
    reds = [[103, 0, 31], [178, 24, 43], [214, 96, 77], [244, 165, 130]]
    halves = []
    for colours in (blues, reds):
        rgb = np.array([[*colours, [255, 255, 255]]], np.float32) / 255
        lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
        lightness = np.linspace(lab[0, 0], lab[-1, 0], 129)
        line = np.stack([np.interp(lightness, lab[:, 0], channel) for channel in lab.T], axis=-1)
        halves.append(cv2.cvtColor(line[None].astype(np.float32), cv2.COLOR_LAB2RGB)[0])
    # An odd number of entries, so that no error is exactly white.
    rgb = np.concatenate([halves[0], halves[1][-2::-1]])
    return np.asarray((rgb.clip(0, 1) * 255).round().astype(np.uint8))


DEPTH_COLOURS: Final = _depth_colours()
"""(n, 3) uint8 RGB from near to far: inferno from its bright end, without the last shades before black, which are hard
to distinguish. Lightness decreases monotonically with distance, so that it is readable in greyscale print and by the
colour-blind. Reverse it for disparity."""
ERROR_COLOURS: Final = _error_colours()
"""(257, 3) uint8 RGB from blue (negative) through white (none) to red (positive): the hues of ColorBrewer's RdBu,
with a CIELAB lightness that falls linearly on either side, so that equal errors look equally strong."""


def robust_range(values: np.ndarray) -> tuple[float, float]:
    """The 2nd and 98th percentile of the finite values: a few outliers do not wash out the picture.

    Never empty: a constant is widened by 5 % on either side, and without finite values the range is (0, 1).
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(bound) for bound in np.percentile(finite.astype(np.float64), [2, 98]))
    if high - low <= 1e-3 * max(abs(low), abs(high)):
        spread = 0.05 * max(abs(low), abs(high)) or 0.5
        return low - spread, high + spread
    return low, high


def colourise(
    values: np.ndarray, low: float, high: float, *, colours: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Colour a map of numbers.

    Args:
        values: (h, w). Values outside [low, high] get the colour of that end.
        low: the value of the first colour.
        high: the value of the last colour.
        colours: (n, 3) uint8 RGB, such as `DEPTH_COLOURS`.
        mask: (h, w) bool; `HOLE` is drawn where it is False. By default all of `values` is drawn.

    Returns:
        (h, w, 3) uint8 RGB, `NOT_FINITE` where a drawn value is NaN or infinite.
    """
    finite = np.isfinite(values)
    share = (np.where(finite, values, low).clip(low, high) - low) / (high - low)
    drawn = colours[np.rint(share * (len(colours) - 1)).astype(np.intp)]
    drawn[~finite] = NOT_FINITE
    if mask is not None:
        drawn[~mask] = HOLE
    return np.asarray(drawn)


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in scalable font, so that pictures look the same on every machine; `size` in pixels."""
    loaded = ImageFont.load_default(size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise ImportError("Text in pictures needs Pillow with FreeType: pip install --upgrade pillow")
    return loaded


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten within [low, high]; `most` is at least 2."""
    least_step = (high - low) / (most - 1)
    power = 10.0 ** floor(log10(least_step))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= least_step)
    # Ends that are round up to floating-point error count as round.
    return [multiple * step for multiple in range(ceil(low / step - 1e-6), floor(high / step + 1e-6) + 1)]


def scale_bar(
    width: int,
    low: float,
    high: float,
    *,
    colours: np.ndarray,
    font_size: int,
    unit: str = "",
    ticks: Mapping[float, str] | None = None,
) -> np.ndarray:
    """A horizontal bar with ticks.

    Args:
        width: of the picture, in pixels.
        low: the value at the left end, of the first colour.
        high: the value at the right end, of the last colour.
        colours: (n, 3) uint8 RGB.
        font_size: of the numbers, in pixels; the bar's height is proportional to it.
        unit: written after every number.
        ticks: value → label; by default round numbers.

    Returns:
        (h, width, 3) uint8 RGB.
    """
    bar_height, tick_height = round(0.7 * font_size), round(0.3 * font_size)
    picture = Image.new("RGB", (width, bar_height + tick_height + round(1.3 * font_size)), BACKGROUND)
    entry = np.rint(np.linspace(0, len(colours) - 1, width)).astype(np.intp)
    picture.paste(Image.fromarray(np.broadcast_to(colours[entry], (bar_height, width, 3)).copy()))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width - 1, bar_height - 1), outline=MUTED_INK)
    if ticks is None:
        values = round_ticks(low, high, most=max(2, min(10, 1 + width // (4 * font_size))))
        ticks = {value: f"{value:.10g} {unit}".rstrip() for value in values}
    free = 0.0  # where the next number may begin
    for value, label in ticks.items():
        x = (value - low) / (high - low) * (width - 1)
        draw.line((x, bar_height, x, bar_height + tick_height), fill=MUTED_INK, width=max(1, font_size // 14))
        half = font(font_size).getlength(label) / 2
        x = min(max(x, half), width - half)
        if x - half >= free:
            draw.text((x, bar_height + tick_height), label, INK, font(font_size), anchor="ma")
            free = x + half + font_size / 2
    return np.asarray(picture)

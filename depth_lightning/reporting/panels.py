"""Panels: image, truth, prediction and signed relative error side by side, with labelled scales."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from depth_lightning.atomic import write_bytes
from depth_lightning.reporting.colour import (
    BACKGROUND,
    DEPTH_COLOURS,
    ERROR_COLOURS,
    FRAME,
    HOLE,
    INK,
    MUTED_INK,
    NOT_FINITE,
    colourise,
    font,
    robust_range,
    scale_bar,
)
from depth_lightning.sample import DepthKind

MIN_TILE_HEIGHT: Final = 240
MAX_TILE_HEIGHT: Final = 480
MAX_TILE_WIDTH: Final = 800
ERROR_LIMIT: Final = 0.25
"""Relative error of the deepest red: the bound of δ1. The same in every panel, so that panels can be compared."""
SPARSE_SHARE: Final = 0.3
"""Below this share of valid pixels, truth is drawn as dots."""


class Tiles(NamedTuple):
    """The pictures of a panel without captions, each (h, w, 3) uint8 RGB, all of the same size."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    error: np.ndarray


def draw_panel(
    image: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    *,
    kind: DepthKind = DepthKind.METRES,
    unit: str = "m",
    title: str = "",
) -> np.ndarray:
    """Draw one row: image | truth | prediction | (prediction − target) / target.

    Truth and prediction share one scale, the 2nd to 98th percentile of the valid truth (of the prediction where
    nothing is valid), near in bright colours. Errors are drawn within ±25 %: red where the prediction is too
    large, blue where it is too small.

    Args:
        image: (h', w', 3) uint8 RGB of any size.
        target: (h, w).
        mask: (h, w) bool, True where the target is valid.
        prediction: (h, w), aligned to the target if its unit differs. NaN and infinities are drawn in green
            and counted.
        kind: what target and prediction hold; with disparity, large is near.
        unit: written on the scale.
        title: written above the row.

    Returns:
        (H, W, 3) uint8 RGB. A tile is 240 to 480 pixels high, or less if it would be wider than 800.

    Raises:
        ValueError: an array has another shape or dtype.
    """
    tiles = draw_tiles(image, target, mask, prediction, kind=kind)
    height, width = tiles.image.shape[:2]
    text = font(int(np.clip(width // 20, 14, 32)))
    size = round(text.size)
    gap, line = size // 2, round(1.6 * size)

    not_finite = np.count_nonzero(~np.isfinite(prediction))
    captions = [
        ("image", ""),
        ("truth", f"{100 * mask.mean():.3g} % valid"),
        ("prediction", f"{not_finite:,} not finite" if not_finite else ""),
        (
            "relative error",
            "red: too near, blue: too far" if kind == DepthKind.DISPARITY else "red: too far, blue: too near",
        ),
    ]
    column = max(width, *(ceil(text.getlength("  ".join(caption))) for caption in captions))
    lefts = [gap + (column + gap) * index for index in range(4)]
    top = gap + line * (2 if title else 1)
    baseline = top - round(0.4 * size)
    bottom = top + height + gap

    low, high = _depth_range(target, mask, prediction)
    depth_bar = scale_bar(2 * column + gap, low, high, colours=_depth_colours(kind), font_size=size, unit=unit)
    limit = 100 * ERROR_LIMIT
    ends = {-limit: f"-{limit:g} % or less", 0.0: "0 %", limit: f"+{limit:g} % or more"}
    error_bar = scale_bar(column, -limit, limit, colours=ERROR_COLOURS, font_size=size, ticks=ends)

    panel = Image.new("RGB", (lefts[3] + column + gap, bottom + len(depth_bar) + gap), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    draw.text((gap, gap), title, INK, text)
    for left, tile, (name, detail) in zip(lefts, tiles, captions, strict=True):
        draw.text((left, baseline), name, INK, text, anchor="ls")
        draw.text((left + text.getlength(f"{name}  "), baseline), detail, MUTED_INK, text, anchor="ls")
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)
        panel.paste(Image.fromarray(tile), (left, top))
    panel.paste(Image.fromarray(depth_bar), (lefts[1], bottom))
    panel.paste(Image.fromarray(error_bar), (lefts[3], bottom))

    legend = [("no truth", HOLE, not mask.all()), ("not finite", NOT_FINITE, not_finite > 0)]
    _draw_legend(draw, (lefts[0], bottom), [(name, colour) for name, colour, shown in legend if shown], text)
    return np.asarray(panel)


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    entries: Sequence[tuple[str, tuple[int, int, int]]],
    text: ImageFont.FreeTypeFont,
) -> None:
    left, top = corner
    size = round(text.size)
    for name, colour in entries:
        draw.rectangle((left, top, left + size - 1, top + size - 1), colour, MUTED_INK)
        draw.text((left + 1.4 * size, top + size // 2), name, MUTED_INK, text, anchor="lm")
        left += round(2.4 * size + text.getlength(name))


def draw_tiles(
    image: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray,
    prediction: np.ndarray,
    *,
    kind: DepthKind = DepthKind.METRES,
) -> Tiles:
    """The pictures of `draw_panel` without captions and bars; takes and raises the same."""
    _check(image, target, mask, prediction)
    low, high = _depth_range(target, mask, prediction)
    height, width = _drawn_size(*target.shape)

    truth, compared, drawn = target, prediction, mask
    if mask.any() and mask.mean() < SPARSE_SHARE:
        # Single LiDAR pixels are invisible, and downscaling drops most of them. Dots with a diameter of half the mean
        # distance, limited to 3 to 6 pixels of the picture, remain distinguishable.
        pixels_per_drawn = len(target) / height
        diameter = np.clip(0.5 / mask.mean() ** 0.5, 3 * pixels_per_drawn, 6 * pixels_per_drawn)
        truth, compared, drawn = _spread(target, prediction, mask, radius=(diameter - 1) / 2)
    # Relative error is undefined where truth is not positive, such as the disparity of sky.
    positive = drawn & (truth > 0)
    error = np.divide(compared - truth.astype(np.float64), truth, out=np.zeros(truth.shape), where=positive)

    def resize(tile: np.ndarray) -> np.ndarray:
        return cv2.resize(tile, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    return Tiles(
        image=_fit(image, height, width),
        truth=resize(colourise(truth, low, high, colours=_depth_colours(kind), mask=drawn)),
        prediction=resize(colourise(prediction, low, high, colours=_depth_colours(kind))),
        error=resize(colourise(error, -ERROR_LIMIT, ERROR_LIMIT, colours=ERROR_COLOURS, mask=positive)),
    )


def stack_panels(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Stack rows, each (h, w, 3) uint8 RGB, above one another; narrower ones are padded on the right.

    Raises:
        ValueError: `panels` is empty.
    """
    if not panels:
        raise ValueError("stack_panels needs at least one panel, found none.")
    width = max(panel.shape[1] for panel in panels)
    sheet = np.full((sum(len(panel) for panel in panels), width, 3), BACKGROUND, np.uint8)
    top = 0
    for panel in panels:
        sheet[top : top + len(panel), : panel.shape[1]] = panel
        top += len(panel)
    return sheet


def save_png(path: Path | str, image: np.ndarray) -> None:
    """Save (h, w, 3) uint8 RGB as PNG, atomically; the folder is created if it is missing.

    Raises:
        ValueError: the name does not end in .png, or the image has another shape or dtype.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: save_png writes PNG; give the file a name that ends in .png.")
    _check_image(image)
    encoded = cv2.imencode(".png", image[..., ::-1])[1]
    write_bytes(path, encoded.tobytes())


def _depth_colours(kind: DepthKind) -> np.ndarray:
    return DEPTH_COLOURS[::-1] if kind == DepthKind.DISPARITY else DEPTH_COLOURS


def _depth_range(target: np.ndarray, mask: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    return robust_range(target[mask] if mask.any() else prediction)


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    # Small maps are enlarged by an integer factor, so that all pixels remain squares of the same size.
    scale = min(ceil(MIN_TILE_HEIGHT / height), MAX_TILE_HEIGHT / height, MAX_TILE_WIDTH / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to (height, width), with a margin if the aspect ratios differ."""
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_height, inner_width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    if inner_height > 0.95 * height and inner_width > 0.95 * width:
        # The difference is from rounding, for example to multiples of the patch size: both show the same view.
        inner_height, inner_width = height, width
    fitted = np.full((height, width, 3), BACKGROUND, np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    fitted[top : top + inner_height, left : left + inner_width] = cv2.resize(
        image, (inner_width, inner_height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    return fitted


def _spread(
    target: np.ndarray, prediction: np.ndarray, mask: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give every pixel the target and the prediction of the nearest valid pixel; True within `radius` of one."""
    distance, label = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(label.max() + 1, np.intp)
    nearest[label[mask]] = np.flatnonzero(mask)
    return target.ravel()[nearest[label]], prediction.ravel()[nearest[label]], distance <= radius


def _check(image: np.ndarray, target: np.ndarray, mask: np.ndarray, prediction: np.ndarray) -> None:
    _check_image(image)
    if target.ndim != 2 or target.size == 0 or not target.shape == mask.shape == prediction.shape or mask.dtype != bool:
        raise ValueError(
            "A panel needs target, mask and prediction of one size (h, w), the mask bool; found "
            f"{target.shape}, {mask.shape} {mask.dtype}, {prediction.shape}."
        )


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise ValueError(f"A picture is (h, w, 3) uint8 RGB, found {image.shape} {image.dtype}.")

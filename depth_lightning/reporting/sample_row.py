"""A sample on disk beside its transformed versions, each as image and as truth drawn over the image."""

from collections.abc import Mapping
from math import ceil

import cv2
import numpy as np
from PIL import Image, ImageDraw

from depth_lightning.camera import fov_of
from depth_lightning.reporting.colour import (
    BACKGROUND,
    DEPTH_COLOURS,
    FRAME,
    INK,
    MUTED_INK,
    colourise,
    font,
    robust_range,
    scale_bar,
)
from depth_lightning.reporting.panels import SPARSE_SHARE
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.wording import significant

TILE_HEIGHT, MAX_TILE_WIDTH = 200, 480
TEXT, GAP = 15, 12


def draw_sample_row(on_disk: DepthSample, seen: Mapping[str, DepthSample]) -> np.ndarray:
    """Draw one row: the sample on disk, then every sample of `seen` under its name.

    Each is shown as the image, and as the truth in colours over the image, which remains visible in grey where there is
    no truth. All share one scale, that of the truth on disk. The field of view across the longer side stands beside the
    size, where the camera is known.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    known = on_disk.target[on_disk.mask]
    low, high = robust_range(known)
    colours = DEPTH_COLOURS[::-1] if on_disk.kind == DepthKind.DISPARITY else DEPTH_COLOURS
    groups = []
    for name, sample in {"on disk": on_disk, **seen}.items():
        height, width = sample.image.shape[:2]
        tiles = [_image_tile(sample), draw_truth_over(sample, low, high)]
        fov_deg = fov_of(sample.intrinsics, (height, width))
        angle = "" if np.isnan(fov_deg) else f", {fov_deg:.1f}°"
        groups.append((f"{name}, {width}×{height}, {100 * sample.mask.mean():.3g} % valid{angle}", tiles))
    text = font(TEXT)
    unit = "m" if on_disk.kind == DepthKind.METRES else ""
    span = (
        f"{significant(known.min())} to {significant(known.max())} {unit}".rstrip() if known.size else "no truth at all"
    )
    title, detail = on_disk.id, f"{on_disk.kind.name.lower().replace('_', ' ')}, {span}"
    widths = [max(ceil(text.getlength(caption)), sum(tile.shape[1] for tile in tiles) + 2) for caption, tiles in groups]
    bar = scale_bar(max(120, groups[0][1][1].shape[1]), low, high, colours=colours, font_size=TEXT - 2, unit=unit)
    line = round(1.5 * TEXT)
    top = GAP + 2 * line
    tallest = max(tile.shape[0] for _, tiles in groups for tile in tiles)
    width = max(sum(widths) + GAP * (len(widths) + 1), 2 * GAP + ceil(text.getlength(f"{title}    {detail}")))
    picture = Image.new("RGB", (width, top + tallest + 6 + len(bar) + GAP), BACKGROUND)
    drawn = ImageDraw.Draw(picture)
    drawn.text((GAP, GAP), title, INK, text)
    drawn.text((GAP + text.getlength(f"{title}    "), GAP), detail, MUTED_INK, text)
    left = GAP
    for (caption, tiles), group_width in zip(groups, widths, strict=True):
        drawn.text((left, GAP + line), caption, MUTED_INK, text)
        at = left
        for tile in tiles:
            drawn.rectangle((at - 1, top - 1, at + tile.shape[1], top + tile.shape[0]), outline=FRAME)
            picture.paste(Image.fromarray(tile), (at, top))
            at += tile.shape[1] + 2
        left += group_width + GAP
    picture.paste(Image.fromarray(bar), (GAP + groups[0][1][0].shape[1] + 2, top + groups[0][1][0].shape[0] + 6))
    return np.asarray(picture)


def draw_truth_over(sample: DepthSample, low: float, high: float) -> np.ndarray:
    """The truth in colours from `low` to `high`, as dots if sparse, over the image in pale grey.

    Returns:
        (h, w, 3) uint8 RGB with the image's aspect, `TILE_HEIGHT` high or less.
    """
    height, width = _tile_size(sample)
    target: np.ndarray = sample.target
    mask: np.ndarray = sample.mask.astype(np.uint8)
    if sample.mask.mean() < SPARSE_SHARE:
        reach = np.ones((max(3, ceil(3 * len(target) / height)),) * 2, np.uint8)
        target, mask = cv2.dilate(np.where(sample.mask, target, -np.inf), reach), cv2.dilate(mask, reach)
    target = cv2.resize(target, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    known = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    colours = DEPTH_COLOURS[::-1] if sample.kind == DepthKind.DISPARITY else DEPTH_COLOURS
    grey = cv2.cvtColor(_image_tile(sample), cv2.COLOR_RGB2GRAY)
    pale = (110 + 0.55 * grey).astype(np.uint8)[..., None].repeat(3, axis=-1)
    return np.where(known[..., None], colourise(target, low, high, colours=colours), pale)


def _image_tile(sample: DepthSample) -> np.ndarray:
    image = sample.image
    if image.dtype != np.uint8:
        image = (image.clip(0, 1) * 255).round().astype(np.uint8)
    height, width = _tile_size(sample)
    smaller = height < len(image)
    method = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method))


def _tile_size(sample: DepthSample) -> tuple[int, int]:
    height, width = sample.image.shape[:2]
    scale = min(TILE_HEIGHT / height, MAX_TILE_WIDTH / width)
    return max(1, round(scale * height)), max(1, round(scale * width))

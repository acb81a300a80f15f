"""Distances measured at single pixels, as with a tape: a table with one row per point."""

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from depth_lightning import camera
from depth_lightning.data.rows import read_rows
from depth_lightning.sample import DepthKind, DepthSample

COLUMNS = ("image", "x", "y", "depth_m")


class MeasuredDistances:
    """Images with depth at the measured pixels, and holes elsewhere.

    Args:
        table: CSV or JSON with the columns image (a path, relative to the table's folder), x and y (pixels, from 0 at
            the left and the top, as viewers show the image; fractions are rounded down), and depth_m, the distance in
            metres along the optical axis. Other columns are ignored.
        read: reads an image file as (h, w, 3) uint8 RGB.
        intrinsics: (path, image) → (4,) float32 fx, fy, cx, cy of the image; by default unknown.

    Raises:
        OSError: the table or an image cannot be read.
        ValueError: a cell is missing or no number, or a pixel is measured twice; for a sample, it is outside its image.
    """

    def __init__(
        self,
        table: Path,
        read: Callable[[Path], np.ndarray],
        intrinsics: Callable[[Path, np.ndarray], np.ndarray] = lambda path, image: camera.UNKNOWN,
    ) -> None:
        if not table.is_file():
            raise FileNotFoundError(f"points={table}: there is no such file.")
        self.table, self._read, self._intrinsics = table, read, intrinsics
        points = defaultdict[str, dict[tuple[int, int], float]](dict)
        for line, row in read_rows(table, COLUMNS, COLUMNS):
            where = f"{table}, line {line}"
            if missing := [column for column in COLUMNS if not row.get(column)]:
                raise ValueError(
                    f"{where}: expected the columns {', '.join(COLUMNS)}, found nothing for {' and '.join(missing)}."
                )
            x, y, depth_m = (_number(where, column, row[column]) for column in COLUMNS[1:])
            if depth_m <= 0:
                raise ValueError(f"{where}: expected depth_m above 0, found {depth_m:g}.")
            pixels = points[row["image"]]
            if (pixel := (math.floor(y), math.floor(x))) in pixels:
                raise ValueError(f"{where}: pixel x={pixel[1]}, y={pixel[0]} of {row['image']} is measured twice.")
            pixels[pixel] = depth_m
        if not points:
            raise ValueError(f"{table}: expected rows of {', '.join(COLUMNS)}, found none.")
        self.points = list(points.items())

    def __len__(self) -> int:
        return len(self.points)

    def path(self, index: int) -> Path:
        """Path of image `index`."""
        return self.table.parent / self.points[index][0]

    def __getitem__(self, index: int) -> DepthSample:
        """The image, with a target of its size that is 0 where nothing was measured."""
        name, pixels = self.points[index]
        path = self.path(index)
        image = self._read(path)
        height, width = image.shape[:2]
        target = np.zeros((height, width), np.float32)
        for (y, x), depth_m in pixels.items():
            if not (0 <= y < height and 0 <= x < width):
                raise ValueError(
                    f"{self.table}: expected points within {name}, {width}×{height} (w×h) pixels as it is shown, "
                    f"found x={x}, y={y}."
                )
            target[y, x] = depth_m
        intrinsics = self._intrinsics(path, image)
        return DepthSample(image, target, target > 0, DepthKind.METRES, name, intrinsics=intrinsics)


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a number for {column}, found {text!r}.")
    return value

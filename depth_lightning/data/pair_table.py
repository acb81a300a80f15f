"""What is known about images and depth maps before any file is opened, stored compactly."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, overload

import numpy as np

from depth_lightning.data.texts import Texts

OF_ENCODING = ("depth_scale", "depth_offset", "focal_px", "baseline_m", "invalid")
OF_CAMERA = ("fx", "fy", "cx", "cy", "fov_deg")
"""Four intrinsics in pixels of the image, or the field of view of its longer side."""
PER_ROW = (*OF_ENCODING, *OF_CAMERA)
"""Numeric columns that override the data set's declaration for their row."""


class Pair(NamedTuple):
    """An image and its depth map; paths are absolute or relative to the working directory."""

    id: str
    image: str
    depth: str
    """May end in ":key", see `split_key`."""
    mask: str = ""
    scene: str = ""
    split: str = ""
    kind: str = ""
    """Of this depth map, where it overrides the data set's."""
    numbers: Mapping[str, float] = {}
    """Values of the columns in `PER_ROW`."""


class PairTable(Sequence[Pair]):
    """Many pairs in little memory, see `Texts`."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._texts = [Texts([str(pair[column]) for pair in pairs]) for column in range(7)]
        self._numbers: np.ndarray | None = None  # NaN where a row has none
        if any(pair.numbers for pair in pairs):
            self._numbers = np.array([[pair.numbers.get(key, np.nan) for key in PER_ROW] for pair in pairs])

    def __len__(self) -> int:
        return len(self._texts[0])

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        row = [] if self._numbers is None else self._numbers[index].tolist()
        numbers = {key: number for key, number in zip(PER_ROW, row, strict=False) if not math.isnan(number)}
        id, image, depth, mask, scene, split, kind = (column[index] for column in self._texts)
        return Pair(id, image, depth, mask, scene, split, kind, numbers)

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return sum(column.nbytes for column in self._texts) + (0 if self._numbers is None else self._numbers.nbytes)

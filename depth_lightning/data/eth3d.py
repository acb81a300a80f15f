"""ETH3D's high-resolution multi-view images (Schöps et al., A Multi-View Stereo Benchmark, CVPR 2017).

Depth, as https://www.eth3d.net/documentation describes it, is that of the distorted images: float32 in metres, row by
row, without a header, and infinity where it is unknown. The files have their images' names, .JPG included.
"""

from pathlib import Path

import numpy as np

from depth_lightning.data.pair_table import Pair
from depth_lightning.data.pairs import DepthPairs
from depth_lightning.data.reading import BrokenError, reading


class ETH3D(DepthPairs):
    """Pairs whose depth maps are bare float32 values of their image's size; see `DepthPairs`."""

    def stored(self, pair: Pair, size: tuple[int, int], upright: bool | None) -> np.ndarray:
        """The depth map, (h, w) float32 in metres.

        Raises:
            OSError: it cannot be read.
            ValueError: its length does not fit the image.
        """
        path = Path(pair.depth)
        with reading(path, "float32 values without a header"):
            found, expected = path.stat().st_size, 4 * size[0] * size[1]
            if found != expected:
                raise BrokenError(
                    f"expected {expected} bytes, a float32 for each pixel of {pair.image} ({size[0]}×{size[1]}, h×w), "
                    f"found {found}. Unpack it again, and use the distorted images (dslr_jpg)."
                )
            return np.fromfile(path, "<f4").reshape(size)

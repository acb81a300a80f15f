"""SUN RGB-D (Song, Lichtenberg and Xiao, CVPR 2015), https://rgbd.cs.princeton.edu.

The folder of a view holds image/*.jpg and depth/*.png. The official split, traintestSUNRGBD/allsplit.mat of its
toolbox, lists the views' folders as on its authors' disk, /n/fs/sun3d/data/SUNRGBD/….
"""

from pathlib import Path
from typing import Literal

import scipy.io

from depth_lightning.data.pair_table import Pair
from depth_lightning.data.pairs import DepthPairs
from depth_lightning.data.reading import reading

SPLITS = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"


class SUNRGBD(DepthPairs):
    """The views below `root` with the official split where there is no `split_list`; see `DepthPairs`."""

    def match(
        self, root: Path, image: str, depth: str, mask: str | None, unmatched: Literal["error", "skip"]
    ) -> list[Pair]:
        """The pairs that the patterns find, with the split of their view's folder; "" in neither."""
        pairs = super().match(root, image, depth, mask, unmatched)
        path = root / SPLITS
        if not path.is_file():
            return pairs
        splits = read_splits(path)
        found = [pair._replace(split=splits.get(_view(pair.image), "")) for pair in pairs]
        if not any(pair.split for pair in found):
            raise ValueError(
                f"{path}: expected the folders of the views below {root}, found none, such as {_view(pairs[0].image)}."
            )
        return found


def read_splits(path: Path) -> dict[str, str]:
    """The official split: a view's folder from the kind of sensor on, such as "kv1/NYUdata/NYU0001", → train or val.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not allsplit.mat.
    """
    with reading(path, "allsplit.mat with 'alltrain' and 'alltest'"):
        content = scipy.io.loadmat(path, variable_names=["alltrain", "alltest"])
        return {
            _view(f"{str(cell.item()).rstrip('/')}/image/"): split
            for split, key in (("train", "alltrain"), ("val", "alltest"))
            for cell in content[key].ravel()
        }


def _view(image: str) -> str:
    """The folder of an image's view below the SUNRGBD folder."""
    return image.rpartition("/image/")[0].rpartition("SUNRGBD/")[2]

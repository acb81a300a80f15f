"""Images with depth maps from any source: a folder with patterns, or a manifest."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from depth_lightning.data.bad_samples import same_aspect
from depth_lightning.data.encoding import DepthEncoding
from depth_lightning.data.files import read_image, read_map, split_key
from depth_lightning.data.listing import Split, match_patterns, read_manifest
from depth_lightning.data.pair_table import Pair, PairTable
from depth_lightning.data.reading import naming
from depth_lightning.data.splits import select
from depth_lightning.sample import DepthSample
from depth_lightning.settings import number, one_of, optional, several, text


class DepthPairs:
    """Pairs of image and depth map; the map may be smaller than its image if the aspect is the same.

    Args:
        split: "train", "val" or "test", see `select`; or "all" for every pair.
        root: the folder that the patterns, or a manifest's relative paths, start from.
        image: pattern of the images below `root`, see `match_patterns`.
        depth: pattern of the depth maps.
        mask: pattern of the masks, which have their depth map's size; 0 means a hole.
        manifest: a table of pairs, used instead of the patterns, see `read_manifest`.
        depth_key: the array in files that hold several, see `read_map`.
        unmatched: how files without a partner are handled, see `match_patterns`.
        split_list: see `select`.
        val_share: see `select`.
        encoding: what the stored numbers mean.

    An image's id is its path below `root`.

    Raises:
        SettingError: an argument is out of range.
        OSError: a folder, manifest or file does not exist or cannot be read.
        ValueError: see `match_patterns`, `read_manifest` and `select`; for a sample, see the readers and
            `DepthEncoding`, or its sizes are inconsistent.
    """

    def __init__(
        self,
        split: Split,
        root: str | Path | None = None,
        image: str | None = None,
        depth: str | None = None,
        mask: str | None = None,
        manifest: str | Path | None = None,
        depth_key: str | None = None,
        unmatched: Literal["error", "skip"] = "error",
        split_list: str | Sequence[str] | None = None,
        val_share: float = 0.1,
        encoding: DepthEncoding | None = None,
    ) -> None:
        one_of("split", split, get_args(Split))
        one_of("unmatched", unmatched, ("error", "skip"))
        number("val_share", val_share, above=0, below=1, otherwise=" evaluate.py split=all scores every image.")
        named = {"root": root, "image": image, "depth": depth, "mask": mask, "manifest": manifest}
        for name, value in {**named, "depth_key": depth_key}.items():
            optional(name, value, partial(text, what="a name" if name == "depth_key" else "a path or a pattern"))
        if not isinstance(split_list, str | None):
            what = "a file below root, or a list of scenes, folders or images"
            several("split_list", split_list, None, what, partial(text, what="a name"))
        self.depth_key = depth_key
        folder = None if root is None else Path(root).expanduser()
        if manifest is not None:
            manifest = Path(manifest).expanduser()
            folder = folder or manifest.parent
            pairs = read_manifest(manifest, folder)
        elif folder is None or image is None or depth is None:
            raise ValueError(
                "Which images? Give data.root=… with data.image='rgb/*.jpg' and data.depth='depth/*.png', "
                "or data.manifest=my.csv, a table with the columns image and depth."
            )
        else:
            pairs = match_patterns(folder, image, depth, mask, unmatched)
        self.root = folder
        self.pairs = PairTable(select(pairs, split, split_list, val_share, folder))
        self.encoding = encoding or DepthEncoding()
        for pair in pairs:
            if pair.numbers:
                _of_row(self.encoding, pair)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index`: image (h, w, 3) uint8 RGB, target of its own size."""
        sample, pair = self.read(index), self.pairs[index]
        path, _ = split_key(pair.depth)
        with naming(path, "a depth map"):
            _of_row(self.encoding, pair).check(sample.target, sample.mask)
        (h, w), (depth_h, depth_w) = sample.image.shape[:2], sample.target.shape
        if not same_aspect((h, w), (depth_h, depth_w)):
            raise ValueError(
                f"{path}: expected the aspect of its image, found depth {depth_h}×{depth_w} for {h}×{w} of "
                f"{pair.image} (h×w). One of them is cropped, rotated or another camera's: register them first."
            )
        return sample

    def read(self, index: int) -> DepthSample:
        """Sample `index`, even with implausible values or a wrong aspect: for inspection."""
        pair = self.pairs[index]
        encoding = _of_row(self.encoding, pair)
        image = read_image(Path(pair.image))
        path, key = split_key(pair.depth)
        stored = read_map(path, key or self.depth_key, self.root)
        with naming(path, "a depth map"):
            target, mask = encoding.decode(stored)
        if pair.mask:
            mask_path, mask_key = split_key(pair.mask)
            declared = read_map(mask_path, mask_key, self.root)
            if declared.shape != mask.shape:
                raise ValueError(
                    f"{path}: expected a mask of the depth map's size {mask.shape}, found {declared.shape} in "
                    f"{mask_path}."
                )
            mask &= declared != 0
            target[~mask] = 0
        return DepthSample(image, target, mask, encoding.depth_kind, pair.id, pair.scene)

    def path(self, index: int) -> Path:
        """Path of the image of sample `index`."""
        return Path(self.pairs[index].image)


def _of_row(encoding: DepthEncoding, pair: Pair) -> DepthEncoding:
    if not pair.numbers:
        return encoding
    try:
        numbers: dict[str, Any] = dict(pair.numbers)
        return replace(encoding, **numbers)
    except ValueError as error:
        raise ValueError(f"{pair.id}, in its row of the manifest: {error}") from error

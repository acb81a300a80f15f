"""Data sets of the Hugging Face hub, or local folders of Parquet files: a column of images and a column of depth."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from depth_lightning.data.encoding import DepthEncoding
from depth_lightning.data.files import decode_image, decode_map
from depth_lightning.data.listing import Split
from depth_lightning.data.reading import BrokenError, check_map, naming
from depth_lightning.sample import DepthSample
from depth_lightning.settings import SettingError, one_of, optional, text


class HubDepth:
    """Rows with an image and a depth map, as the package datasets loads them.

    An image is an encoded file. A depth map is an encoded file (PNG, TIFF or .npy) or an array (h, w). Files are
    decoded here and not by the package, so that large and broken ones are refused as everywhere.

    Args:
        split: "train" or "val".
        path: an id such as "org/name", or a folder of Parquet files.
        image: column of the images.
        depth: column of the depth maps.
        scene: column of the scenes' names.
        name: configuration of the data set; None for its only one.
        revision: commit, tag or branch on the hub.
        train_split: what the data set calls its training split; may be a slice, such as "train[:90%]".
        val_split: the same for validation.
        encoding: what the stored numbers mean.

    A sample's id is "<split>/<row>".

    Raises:
        SettingError: a column or split does not exist, or an argument is out of range.
        ModuleNotFoundError: the package datasets is not installed.
        OSError, ValueError: the data set cannot be loaded; for a sample, see the readers and `DepthEncoding`.
    """

    def __init__(
        self,
        split: Split,
        path: str,
        image: str = "image",
        depth: str = "depth",
        scene: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str = "validation",
        encoding: DepthEncoding | None = None,
    ) -> None:
        one_of("split", split, ("train", "val"))
        self.where = text("path", path, "an id such as org/name, or a folder of Parquet files")
        columns = {"image": text("image", image, "a column"), "depth": text("depth", depth, "a column")}
        if optional("scene", scene, partial(text, what="a column")):
            columns["scene"] = str(scene)
        optional("name", name, partial(text, what="a configuration of the data set"))
        optional("revision", revision, partial(text, what="a commit, a tag or a branch"))
        splits = {"train_split": train_split, "val_split": val_split}
        for split_key, called in splits.items():
            text(split_key, called, "a split of the data set, such as train[:90%]")
        key = f"{split}_split"
        wanted = splits[key]
        folder = Path(path).expanduser()
        datasets = _imported()
        rows = _load(datasets, str(folder) if folder.is_dir() else path, wanted, key, name=name, revision=revision)
        for column_key, column in columns.items():
            one_of(column_key, column, rows.column_names)
            if isinstance(rows.features[column], datasets.Image):
                rows = rows.cast_column(column, datasets.Image(decode=False))
        self.columns, self.split, self.encoding = columns, wanted, encoding or DepthEncoding()
        stored = rows.features[columns["depth"]]
        is_array = not (
            isinstance(stored, datasets.Image) or getattr(stored, "dtype", None) in ("binary", "large_binary")
        )
        # Apart from the files: arrays as Python's lists are slow, and files as NumPy's bytes lose zeros at their end.
        self._arrays = rows.select_columns([columns["depth"]]).with_format("numpy") if is_array else None
        self._rows = rows.select_columns([column for key, column in columns.items() if key != "depth" or not is_array])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index`: image (h, w, 3) uint8 RGB, target of its own size."""
        sample = self.read(index)
        with naming(self.path(index), "a depth map"):
            self.encoding.check(sample.target, sample.mask)
        return sample

    def read(self, index: int) -> DepthSample:
        """Sample `index`, even with implausible depth: for inspection."""
        with naming(self.path(index), "an image and a depth map", "Look at it in the hub's viewer."):
            row = self._rows[index]
            image = decode_image(_content(row[self.columns["image"]], "an image"))
            if self._arrays is None:
                stored = decode_map(_content(row[self.columns["depth"]], "a depth map"))
            else:
                stored = np.asarray(self._arrays[index][self.columns["depth"]])
                stored = stored.reshape(check_map(stored.shape, stored.dtype))
            target, mask = self.encoding.decode(stored)
        scene = str(row[self.columns["scene"]]) if "scene" in self.columns else ""
        return DepthSample(image, target, mask, self.encoding.depth_kind, f"{self.split}/{index}", scene)

    def path(self, index: int) -> str:
        """What messages call sample `index`."""
        return f"{self.where}, row {index} of {self.split}"


def _imported() -> Any:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("data=hub needs the package datasets: pip install 'depth-lightning[hub]'") from error


def _load(datasets: Any, path: str, split: str, key: str, **options: Any) -> Any:
    try:
        return datasets.load_dataset(path, split=split, **options)
    except ValueError as error:
        if "split" not in str(error).lower():
            raise
        reason = " ".join(str(error).split())
        raise SettingError(key, f"is a split of {path}, or a slice of one, found {split!r}: {reason:.300}") from error


def _content(value: Any, what: str) -> np.ndarray:
    """An encoded file, (n,) uint8, from its bytes, or from a dict with them as the package stores images."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise BrokenError(f"expected {what} as the bytes of a file, found {type(content).__name__}.")
    return np.frombuffer(content, np.uint8)

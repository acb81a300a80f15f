"""DA-2K (Depth Anything V2, Yang et al., 2024, arXiv:2406.09414): photographs with pairs of points, one of them nearer.

Its eight scene types are the names of the images' folders.
"""

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from depth_lightning.data.files import read_image
from depth_lightning.data.reading import naming, read_text
from depth_lightning.data.sampling import EvaluationSampler
from depth_lightning.data.transforms import PATCH, check_size, network_image
from depth_lightning.data.workers import Loader
from depth_lightning.invocation import command_line
from depth_lightning.settings import text

Point = list[int]
"""[row, column] in pixels of the image on disk."""


class PointPairSample(NamedTuple):
    """One image with its pairs of points."""

    image: Tensor
    """(3, h', w') float32 RGB at the network's size, in [0, 1] except for overshoot; not yet ImageNet-normalised."""
    size: tuple[int, int]
    """(h, w) of the image on disk, in whose pixels the points are given."""
    nearer: Tensor
    """(pairs, 2) int64: row and column of the point that is nearer to the camera."""
    farther: Tensor
    """(pairs, 2) int64: row and column of the other one."""
    scene: str
    """The scene type."""
    id: str
    """The image's path below the data set's root."""


class DA2K(Dataset[PointPairSample]):
    """The images in annotations.json that have a pair, in order.

    Args:
        root: the folder that holds annotations.json and images/.
        size: what the shorter side is resized to, see `network_size`.
        split: "val"; there are no depth maps to train on.
        patch: side of the patches of the network's encoder.

    Raises:
        SettingError: an argument is out of range.
        FileNotFoundError: annotations.json, or an image that it names, is missing.
        ValueError: annotations.json holds something other than pairs of points, or the split is not "val".
    """

    def __init__(self, root: str | Path, size: int = 518, split: str = "val", patch: int = PATCH) -> None:
        if split != "val":
            raise ValueError(
                "DA-2K has pairs of points and no depth maps: it can score a network "
                f"({command_line('evaluate')} data=da2k), not train one. Choose other data for training."
            )
        self.root, self.size = Path(text("root", root, "a path")).expanduser(), check_size("size", size)
        self.patch = patch
        self.pairs = {image: pairs for image, pairs in _read_annotations(self.root).items() if pairs}
        if not self.pairs:
            raise ValueError(f"{self.root / 'annotations.json'}: expected images with pairs of points, found none.")
        self.images = list(self.pairs)
        missing = [image for image in self.images if not (self.root / image).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.root}: {len(missing)} of the {len(self.images)} images that annotations.json names are "
                f"missing, such as {missing[0]}. Unpack DA-2K.zip there completely."
            )

    @property
    def scenes(self) -> list[str]:
        """The scene types, sorted."""
        return sorted({_scene(image) for image in self.images})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> PointPairSample:
        """Read an image and resize it to the network's size.

        Raises:
            OSError: it cannot be read.
            ValueError: it cannot be decoded, or a point is outside it.
        """
        name = self.images[index]
        # Like the authors' code, respect the EXIF orientation.
        photo = read_image(self.root / name, upright=True)
        height, width = photo.shape[:2]
        pairs = torch.tensor(self.pairs[name])
        outside = pairs[((pairs < 0) | (pairs >= torch.tensor([height, width]))).any(dim=-1)].tolist()
        if outside:
            raise ValueError(
                f"{self.root / name}: the point {outside[0]} (row, column) of annotations.json is outside of the "
                f"image, which has {height} rows and {width} columns. Was it resized? Unpack DA-2K.zip again."
            )
        with naming(self.root / name, "an image that can be resized"):
            image = network_image(photo, self.size, self.patch)
        return PointPairSample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            size=(height, width),
            nearer=pairs[:, 0],
            farther=pairs[:, 1],
            scene=_scene(name),
            id=name,
        )


def point_pair_loader(data: DA2K, num_workers: int = 0, rank: int = 0, world_size: int = 1) -> Loader[PointPairSample]:
    """This process's share of the samples, one at a time: the images differ in size.

    Raises:
        ValueError: there are fewer images than processes.
    """
    if len(data) < world_size:
        raise ValueError(
            f"{len(data)} images are too few for {world_size} processes: choose a smaller trainer.devices."
        )
    if num_workers:
        cv2.setNumThreads(1)  # otherwise each worker would start a thread per core
    sampler = EvaluationSampler(len(data), rank, world_size)
    return Loader(data, batch_size=None, sampler=sampler, num_workers=num_workers)


def _scene(image: str) -> str:
    return PurePosixPath(image).parent.name


def _read_annotations(root: Path) -> dict[str, list[tuple[Point, Point]]]:
    """Image path below `root` → pairs of (row, column), the nearer point first."""
    path = root / "annotations.json"
    if not path.is_file():
        inner = root / "DA-2K"
        if (inner / path.name).is_file():
            raise FileNotFoundError(f"No file at {path}. It is one folder below: set data.root={inner}.")
        raise FileNotFoundError(
            f"No file at {path}. Unpack DA-2K.zip of the Hugging Face data set depth-anything/DA-2K, which the Depth "
            "Anything V2 project links to, and set data.root or DA2K_ROOT to the folder."
        )
    with naming(path, "JSON", "Download it again."):
        content = json.loads(read_text(path))
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise ValueError(f"{path}: expected a JSON object, image path → list of pairs. This is not DA-2K's file.")
    return {image: [_pair(path, image, entry) for entry in entries] for image, entries in content.items()}


def _pair(path: Path, image: str, entry: Any) -> tuple[Point, Point]:
    if not isinstance(entry, dict) or not all(_is_point(entry.get(name)) for name in ("point1", "point2")):
        raise ValueError(
            f"{path}, {image}: expected point1 and point2 as [row, column] in whole pixels, found {entry!r}."
        )
    closer = entry.get("closer_point")
    if closer not in ("point1", "point2"):
        raise ValueError(f"{path}, {image}: expected closer_point to be 'point1' or 'point2', found {closer!r}.")
    return entry[closer], entry["point2" if closer == "point1" else "point1"]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(coordinate) is int for coordinate in value)

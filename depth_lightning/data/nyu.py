"""NYU Depth V2 in its common layouts: the h5 release, the labelled .mat, and the PNG release with list files.

Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV 2012. The test split is the
one of Eigen et al., Depth Map Prediction from a Single Image using a Multi-Scale Deep Network, NeurIPS 2014.
"""

import logging
import posixpath
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import scipy.io

from depth_lightning.data.calibrations import intrinsics_of
from depth_lightning.data.files import read_image, read_map
from depth_lightning.data.h5 import open_dataset, open_h5, read_dataset
from depth_lightning.data.reading import BrokenError, check_shape, read_lines, reading
from depth_lightning.data.texts import Texts
from depth_lightning.data.walk import find
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import one_of, optional, text

log = logging.getLogger(__name__)

Layout = Literal["h5", "labelled", "png"]
RGBD = tuple[np.ndarray, np.ndarray]

LABELLED_NAME = "nyu_depth_v2_labeled.mat"
SPLITS_URL = "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat"
LAYOUTS = (
    "'h5' (train/<scene>/<n>.h5 and val/<scene>/<n>.h5), "
    f"'labelled' ({LABELLED_NAME} with splits.mat beside it) or "
    "'png' (a list file for each split, *train*.txt and *val*.txt or *test*.txt, of lines 'image depth [focal]')"
)


class _Frames(NamedTuple):
    ids: Texts
    scenes: Texts
    read: Callable[[int], RGBD]
    """Frame `index`."""


class NYUDepthV2:
    """NYU Depth V2: depth in metres; 0 is a hole, and so are NaN, infinity and negative depth.

    Args:
        root: the folder of a release, or the labelled .mat itself.
        split: "train", or "val", also called "test": Eigen's 654 test images in the labelled set, the test list in the
            PNG release.
        layout: which of the releases `root` holds; None to detect it from its files.

    The camera is that of the Kinect, and unknown for images of another aspect than 4:3, which were cropped.

    A sample's id is its path below `root`, or "labelled/<n>" with n counted from 1 as in splits.mat.

    Raises:
        SettingError: an unknown split or layout, or a root that is not a path.
        FileNotFoundError: `root` or splits.mat does not exist.
        ValueError: none or several of the layouts in `root`, or an empty split; for a sample, see the readers, or its
            depth is all holes or too large to be metres.
    """

    def __init__(self, root: str | Path, split: Literal["train", "val", "test"], layout: Layout | None = None) -> None:
        list_frames = {"h5": _h5_frames, "labelled": _labelled_frames, "png": _png_frames}
        root = Path(text("root", root, "a path")).expanduser()
        one_of("split", split, ("train", "val", "test"))
        optional("layout", layout, partial(one_of, choices=list_frames, otherwise=" null: detected from its files."))
        if not root.exists():
            raise FileNotFoundError(
                f"No NYU Depth V2 at {root.absolute()}. Set the environment variable NYU_ROOT, or data.root=…, "
                f"to a folder with {LAYOUTS}."
            )
        self._root = root
        self._frames = list_frames[layout or detect_layout(root)](root, "val" if split == "test" else split)
        if not self._frames.ids:
            raise ValueError(f"The {split} split of {root} is empty: expected one of {LAYOUTS}.")

    def __len__(self) -> int:
        return len(self._frames.ids)

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index` as stored: image (h, w, 3) uint8 RGB, target (h, w) in metres."""
        sample = self.read(index)
        _check_metres(self.path(index), sample)
        return sample

    def read(self, index: int) -> DepthSample:
        """Sample `index`, even with implausible depth: for inspection."""
        ids, scenes, read_frame = self._frames
        image, depth = read_frame(index)
        mask = (depth > 0) & (depth < np.inf)
        np.copyto(depth, 0, where=~mask)
        intrinsics = intrinsics_of("nyu", self.path(index), image.shape[:2])
        return DepthSample(image, depth, mask, DepthKind.METRES, ids[index], scenes[index], intrinsics=intrinsics)

    def path(self, index: int) -> Path:
        """Path of sample `index`."""
        return self._root / self._frames.ids[index]


def detect_layout(root: Path) -> Layout:
    """Detect the layout from the files in `root`, or from `root` itself if it is a .mat file.

    Raises:
        ValueError: `root` holds none or several of the layouts.
    """
    if root.is_file():
        if root.suffix != ".mat":
            raise ValueError(f"{root}: expected a folder or the labelled .mat file. NYU comes as {LAYOUTS}.")
        return "labelled"
    found: list[Layout] = []
    if any(next((root / split).rglob("*.h5"), None) for split in ("train", "val")):
        found.append("h5")
    if (root / LABELLED_NAME).is_file():
        found.append("labelled")
    if _list_files(root, "train") or _list_files(root, "val"):
        found.append("png")
    if not found:
        names = sorted(path.name for path in root.iterdir())
        raise ValueError(
            f"{root} holds no layout of NYU Depth V2. Expected {LAYOUTS}; found {names[:8] or 'an empty folder'}. "
            "Point data.root=… (or NYU_ROOT) at one of them."
        )
    if len(found) > 1:
        raise ValueError(f"{root} holds several layouts of NYU Depth V2: {found}. Choose one with data.layout=….")
    return found[0]


def _h5_frames(root: Path, split: str) -> _Frames:
    ids = find(root, f"{split}/**/*.h5")
    texts = Texts(ids)
    return _Frames(texts, Texts([_scene(id, split) for id in ids]), partial(_read_h5_frame, root, texts))


def _scene(id: str, split: str) -> str:
    # The h5 release puts the test images of all scenes into one folder of this name.
    folder = id.rsplit("/", 2)[-2]
    return "" if folder == "official" or id.count("/") == split.count("/") + 1 else folder


def _read_h5_frame(root: Path, ids: Texts, index: int) -> RGBD:
    return read_h5(root / ids[index], root)


def _labelled_frames(root: Path, split: str) -> _Frames:
    path = root if root.is_file() else root / LABELLED_NAME
    splits_path = path.with_name("splits.mat")
    if not splits_path.is_file():
        raise FileNotFoundError(
            f"No {splits_path}, which lists which of the labelled images are Eigen's 654 test images. "
            f"Get it from {SPLITS_URL} and put it beside {path.name}."
        )
    key = {"train": "trainNdxs", "val": "testNdxs"}[split]
    with reading(splits_path, f"a MATLAB file with {key!r}", f"Get it from {SPLITS_URL}."):
        numbers = [int(number) for number in scipy.io.loadmat(splits_path)[key].ravel()]
    with open_h5(path) as file:
        missing = [name for name in ("images", "rawDepths") if name not in file]
        if missing:
            raise BrokenError(f"expected 'images' and 'rawDepths', found {sorted(file)[:8]}.")
        images, depths = (open_dataset(file, name) for name in ("images", "rawDepths"))
        if len(images.shape) != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
            raise BrokenError(f"expected 'images' as (n, 3, w, h) uint8, found {images.shape} {images.dtype}.")
        count, _, *size = images.shape
        if depths.shape != (count, *size) or not np.issubdtype(depths.dtype, np.floating):
            raise BrokenError(
                f"expected 'rawDepths' as (n, w, h) float32 beside 'images' {images.shape}, found {depths.shape} "
                f"{depths.dtype}."
            )
        check_shape(tuple(size))
        scenes = [""] * count
        if "scenes" in file:
            scenes = [bytes(file[name][()].astype(np.uint8)).decode() for name in file["scenes"][()].ravel()]
            if len(scenes) != count:
                raise BrokenError(f"expected a scene for each of {count} images, found {len(scenes)}.")
    if numbers and not 1 <= min(numbers) <= max(numbers) <= count:
        raise ValueError(
            f"{splits_path}: expected numbers from 1 to {count}, the images in {path.name}, "
            f"found {min(numbers)} to {max(numbers)}."
        )
    return _Frames(
        Texts([f"labelled/{number}" for number in numbers]),
        Texts([scenes[number - 1] for number in numbers]),
        partial(_read_labelled_frame, path, numbers),
    )


def _read_labelled_frame(path: Path, numbers: list[int], index: int) -> RGBD:
    return read_labelled(path, numbers[index])


def _list_files(root: Path, split: str) -> list[Path]:
    patterns = {"train": ["*train*.txt"], "val": ["*val*.txt", "*test*.txt"]}[split]
    return sorted({path for pattern in patterns for path in root.glob(pattern)})


def _png_frames(root: Path, split: str) -> _Frames:
    lists = {name: _list_files(root, name) for name in ("train", "val")}
    if len(lists[split]) != 1:
        raise ValueError(
            f"{root}: expected one list file for the {split} split, found {[path.name for path in lists[split]]}. "
            "Each line names an image, its depth, and optionally a focal length."
        )
    images, depths, skipped = _listed(lists[split][0])
    if skipped:
        count = skipped + len(images)
        log.warning("%s: skipped %d of %d images, which have no depth.", lists[split][0], skipped, count)
    other = lists["val" if split == "train" else "train"]
    if len(other) == 1 and (both := sorted({*images}.intersection(_listed(other[0])[0]))):
        raise ValueError(
            f"{lists[split][0]}: expected no image of {other[0].name}, found {len(both)} ({', '.join(both[:3])}"
            f"{', …' if len(both) > 3 else ''}). Take them out of one of them."
        )
    ids, scenes = Texts(images), Texts([posixpath.basename(posixpath.dirname(image)) for image in images])
    return _Frames(ids, scenes, partial(_read_png_frame, root, ids, Texts(depths)))


def _listed(path: Path) -> tuple[list[str], list[str], int]:
    """The images and depth maps in a list file, and the number of images that have none, which are left out."""
    images, depths, skipped = list[str](), list[str](), 0
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (2, 3):
            raise ValueError(f"{path}, line {number}: expected 'image depth [focal]', found {line!r}.")
        if fields[1] == "None":
            skipped += 1
            continue
        images.append(posixpath.normpath(fields[0].lstrip("/")))
        depths.append(fields[1].lstrip("/"))
    return images, depths, skipped


def _read_png_frame(root: Path, images: Texts, depths: Texts, index: int) -> RGBD:
    return read_png(root / images[index], root / depths[index])


def read_h5(path: Path, root: Path | None = None) -> RGBD:
    """Read one frame of the h5 release: `rgb` (3, h, w) uint8 and `depth` (h, w) floating point.

    Args:
        path: path of the frame.
        root: the folder from which it may take its values, see `open_dataset`.

    Returns:
        The image (h, w, 3) uint8 and the depth (h, w) float32, as stored: 0 in holes.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is truncated or not HDF5, a data set is missing, or a shape or dtype is wrong.
    """
    with open_h5(path) as file:
        try:
            rgb, depth = (open_dataset(file, name, root) for name in ("rgb", "depth"))
        except KeyError as error:
            if {"rgb", "depth"} <= set(file):
                raise
            raise BrokenError(
                f"expected the data sets 'rgb' and 'depth', found {sorted(file)[:8]}. "
                "Is this a file of the NYU Depth V2 h5 release?"
            ) from error
        shape, size = rgb.shape, depth.shape  # None if there is no array
        if len(shape or ()) != 3 or shape[0] != 3 or rgb.dtype != np.uint8:
            raise BrokenError(f"expected 'rgb' as (3, h, w) uint8, found {shape} {rgb.dtype}.")
        if len(size or ()) != 2 or depth.dtype.kind != "f":
            raise BrokenError(f"expected 'depth' as (h, w) float32 in metres, found {size} {depth.dtype}.")
        if shape[1:] != size:
            raise BrokenError(_sizes_differ(shape[1:], size))
        check_shape(size)
        image: np.ndarray = cv2.merge(list(read_dataset(rgb)))  # 40 times faster than a transposed copy
        return image, read_dataset(depth).astype(np.float32, copy=False)


def read_labelled(path: Path, number: int) -> RGBD:
    """Read image `number`, counted from 1, of the labelled set, with its raw depth: the in-filled depth is synthetic.

    The file is opened for every image, so that no handle is inherited by a worker.
    """
    with open_h5(path) as file:
        image, depth = file["images"][number - 1], file["rawDepths"][number - 1]
        # MATLAB arrays are column-major.
        return np.ascontiguousarray(image.transpose(2, 1, 0)), np.ascontiguousarray(depth.T, np.float32)


def read_png(image_path: Path, depth_path: Path) -> RGBD:
    """Read an image and its 16-bit depth PNG in millimetres, as (h, w, 3) uint8 and (h, w) float32 metres.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: one of the files is not an image, the depth is not 16-bit, or the sizes differ.
    """
    image = read_image(image_path)
    depth = read_map(depth_path)
    if depth.dtype != np.uint16:
        raise ValueError(
            f"{depth_path}: expected a 16-bit PNG with one channel, depth in millimetres, found "
            f"{depth.shape} {depth.dtype}. An 8-bit picture of a depth map cannot be turned back into metres."
        )
    if image.shape[:2] != depth.shape:
        raise ValueError(f"{depth_path}: {_sizes_differ(image.shape[:2], depth.shape)}")
    return image, depth.astype(np.float32) / 1000


def _sizes_differ(image: tuple[int, ...], depth: tuple[int, ...]) -> str:
    hint = "One of them is transposed." if image == depth[::-1] else "They are not from the same frame."
    return f"expected image and depth of one size, found {image} and {depth} (h, w). {hint}"


def _check_metres(path: Path, sample: DepthSample) -> None:
    if not sample.mask.any():
        raise ValueError(f"{path}: expected some depth, found nothing but holes (0). Remove it from the split.")
    some = np.s_[::8, ::8] if sample.mask[::8, ::8].any() else np.s_[:]
    depth = sample.target[some][sample.mask[some]]
    median = np.partition(depth, depth.size // 2)[depth.size // 2]
    if median > 100:
        raise ValueError(
            f"{path}: expected depth in metres, found a median of {median:.0f}. "
            "These look like millimetres: divide them by 1000."
        )

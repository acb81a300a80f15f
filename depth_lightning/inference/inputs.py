"""The inputs of a prediction: an image, a folder, a glob, a list file, or the frames of a video."""

import glob
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from depth_lightning.data.files import read_image
from depth_lightning.data.images import LOOKED_AT, check_range, derive_range
from depth_lightning.data.reading import BrokenError, naming, read_lines, reading
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.wording import counted

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".wmv"})
_LIST_SUFFIX = ".txt"


class Input(NamedTuple):
    """One image to predict."""

    name: str
    """The path of its outputs below the output folder, without a suffix."""
    path: Path


def is_video(source: str) -> bool:
    """Whether the name ends like that of a video file."""
    return Path(source).suffix.lower() in VIDEO_SUFFIXES


def find_images(source: str, without: Path | None = None) -> tuple[Path, list[Input]]:
    """The images that `source` refers to, in the order of their names or of the list.

    Args:
        source: an image; a folder, searched with its subfolders but without hidden ones; a glob, where ** matches any
            folders; or a .txt file with one path per line, relative to the file; lines that start with # are skipped.
        without: a folder whose files are skipped: the output folder, which may be inside the folder of the images.

    Returns:
        The folder that the names are relative to, and the images. Names that differ only in their suffix keep it.

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: the file is not an image.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = _files_below(path)
        if without is not None and without.resolve() != path.resolve():
            files = [file for file in files if not file.resolve().is_relative_to(without.resolve())]
        root, paths = path, _images_among(files, source)
        if not paths:
            raise FileNotFoundError(f"input={source}: this folder contains no image ({_suffixes()}).")
    elif path.exists() and path.suffix.lower() == _LIST_SUFFIX:
        paths = _listed(path)
        root = _common_folder(paths, path.parent)
    elif path.exists():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"input={source} is not an image ({_suffixes()}), a video or a list of images (.txt).")
        root, paths = path.parent, [path]
    elif glob.has_magic(str(path)):
        matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
        paths = _images_among([match for match in matches if not match.is_dir()], source)
        if not paths:
            raise FileNotFoundError(f"input={source}: no image matches this pattern ({_suffixes()}).")
        plain = path.parts[:-1]
        first = next((index for index, part in enumerate(plain) if glob.has_magic(part)), len(plain))
        root = Path(*plain[:first])
    else:
        raise FileNotFoundError(f"input={source}: there is no such image, folder, list or video.")
    return root.resolve(), [Input(_name(image, root), image) for image in paths]


def read_photo(path: Path) -> np.ndarray:
    """Read an image as (h, w, 3) uint8 RGB, rotated by its EXIF orientation, as viewers show it.

    Raises:
        OSError, ValueError: see `read_image`.
    """
    return read_image(path, upright=True)


def photo_reader(data: Mapping[str, Any], photos: Sequence[Path] = ()) -> partial[np.ndarray]:
    """`read_image` with the arguments for a prediction, which reads photos as a run's data sets read their images.

    Args:
        data: `data` of the run's configuration, as plain values: `exif` and `image_range`, or those of its `parts`.
        photos: those to be read, from which the range is derived if the run has none.
    """
    image_range = check_range("data.image_range", _settled(data, "image_range"))
    if image_range is None and (image_range := derive_range(evenly_spread(photos, LOOKED_AT))):
        low, high = image_range
        log.info(f"data.image_range=[{low:g},{high:g}], from the values of up to {LOOKED_AT} of these images.")
    return partial(read_image, upright=_settled(data, "exif") != "ignore", image_range=image_range)


def _settled(data: Mapping[str, Any], key: str) -> Any:
    """What a data set has settled, or all parts of a mixture that have; None if nothing, or if they differ."""
    for node in ([data], (data.get("parts") or {}).values()):
        values = [each[key] for each in node if each.get(key) not in (None, "auto")]
        if values:
            return values[0] if all(value == values[0] for value in values) else None
    return None


@dataclass
class Video:
    """An open video. Frames are read in order, by one thread at a time."""

    path: Path
    capture: cv2.VideoCapture
    fps: float
    """Frames per second; 25 where the file does not specify it."""
    frames: int
    """The number of frames in the file's header, which may be wrong; 0 where it is missing."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def read(self) -> np.ndarray | None:
        """The next frame, (h, w, 3) uint8 RGB; None after the last."""
        with self._lock, naming(self.path, "a video"):
            success, bgr = self.capture.read()
            return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB) if success else None

    def skip(self) -> bool:
        """Skip a frame; False after the last."""
        with self._lock:
            return bool(self.capture.grab())


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video, and close it afterwards.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: OpenCV cannot read it.
    """
    if not path.exists():
        raise FileNotFoundError(f"input={path}: there is no such video.")
    with reading(path, "a video"):
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened() or not capture.grab():
            raise BrokenError(
                "expected a video, found no frame that OpenCV can read: damaged, or an unsupported codec."
            )
        capture.release()  # seeking back is not exact with every codec; reopening is
        capture = cv2.VideoCapture(str(path))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    try:
        yield Video(path, capture, fps if 0 < fps < 1000 else 25.0, frames)
    finally:
        capture.release()


def sample_frames(path: Path, count: int) -> list[np.ndarray]:
    """Up to `count` frames, evenly spaced, starting with the first; the last frame may not be among them."""
    with open_video(path) as video:
        total = video.frames
        if not total:
            while video.skip():
                total += 1
    step = max(1, -(-total // count))
    frames = list[np.ndarray]()
    with open_video(path) as video:
        while (frame := video.read()) is not None and len(frames) < count:
            frames.append(frame)
            for _ in range(step - 1):
                if not video.skip():
                    return frames
    return frames


def _files_below(folder: Path) -> list[Path]:
    paths = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(parent, name) for name in sorted(files) if not name.startswith(".")]
    return paths


def _images_among(files: Sequence[Path], source: str) -> list[Path]:
    """The files with the suffix of an image; the others are counted in the log."""
    images = [file for file in files if _is_image(file.name)]
    others = Counter(file.suffix.lower() or file.name for file in files if not _is_image(file.name))
    if others:
        kinds = ", ".join(f"{kind} {count}" for kind, count in others.most_common(8))
        log.info(f"input={source}: skipped {counted(others.total(), 'file')} that are no images ({kinds}).")
    return images


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _listed(path: Path) -> list[Path]:
    lines = (line.strip() for line in read_lines(path))
    paths = [path.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
    if not paths:
        raise FileNotFoundError(f"input={path}: this list contains no path; expected one image path per line.")
    absent = [image for image in paths if not image.is_file()]
    if len(absent) == len(paths):
        raise FileNotFoundError(
            f"input={path}: none of the {len(paths)} images in this list exists; the first is {absent[0]}. "
            "Relative paths are resolved from the list's folder."
        )
    return list({image.resolve(): image for image in paths}.values())


def _common_folder(paths: Sequence[Path], preferred: Path) -> Path:
    resolved = [path.resolve() for path in paths]
    if all(path.is_relative_to(preferred.resolve()) for path in resolved):
        return preferred
    return Path(os.path.commonpath([path.parent for path in resolved]))


def _name(image: Path, root: Path) -> str:
    absolute = Path(os.path.normpath(image.absolute()))
    base = Path(os.path.normpath(root.absolute()))
    relative = (
        absolute.relative_to(base) if absolute.is_relative_to(base) else image.resolve().relative_to(root.resolve())
    )
    # The name depends on the neighbouring files, not on the selection: the next call may select other images.
    stem = relative.with_suffix("") if _stems(str(image.parent)).get(image.stem, 1) == 1 else relative
    return stem.as_posix()


@lru_cache
def _stems(folder: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:  # noqa: PTH112, PTH208
        if _is_image(name):
            counts[Path(name).stem] = counts.get(Path(name).stem, 0) + 1
    return counts


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))

"""The cameras of published data sets, from the calibration files that come with their images.

| layout      | the file beside the images, and where it is described                               |
|-------------|-------------------------------------------------------------------------------------|
| kitti       | `<date>/calib_cam_to_cam.txt`, P_rect and S_rect: the raw data's devkit             |
| eth3d       | `dslr_calibration_jpg/cameras.txt` and `images.txt`: colmap.github.io/format; without its distortion |
| ibims1      | `calib/<image>.txt`, fx, fy, cx, cy: the readme                                     |
| scannet     | `intrinsic/intrinsic_color.txt` or `intrinsics_color.txt`, 4×4: SensReader          |
| arkitscenes | `<folder of the images>_intrinsics/<image>.pincam`, w, h, fx, fy, cx, cy: DATA.md   |
| sunrgbd     | `intrinsics.txt` of the view, 3×3: the toolbox                                      |
| tum         | none, the folder is named freiburg1, 2 or 3: cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats |
| vkitti2, hypersim, diode | none: one camera                                                       |
"""

import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from depth_lightning import camera
from depth_lightning.data.reading import BrokenError, naming, read_text, reading
from depth_lightning.settings import number, several

Calibration = Literal[
    "kitti", "vkitti2", "hypersim", "diode", "eth3d", "ibims1", "scannet", "arkitscenes", "sunrgbd", "tum"
]


class Calibrated(NamedTuple):
    """A camera, and the images that it is for."""

    intrinsics: tuple[float, ...]
    """fx, fy, cx, cy; the centre of the first pixel is at (0, 0)."""
    size: tuple[int, int] | None
    """(h, w); None where the file does not state it: the images as they come."""


CAMERAS = {
    "nyu": Calibrated((518.86, 519.47, 325.58, 253.74), (480, 640)),
    "vkitti2": Calibrated((725.0087, 725.0087, 620.5, 187), (375, 1242)),
    "hypersim": Calibrated((886.81, 886.81, 511.5, 383.5), (768, 1024)),
    "diode": Calibrated((886.81, 927.06, 512, 384), (768, 1024)),
    "freiburg1": Calibrated((517.3, 516.5, 318.6, 255.3), (480, 640)),
    "freiburg2": Calibrated((520.9, 521.0, 325.1, 249.7), (480, 640)),
    "freiburg3": Calibrated((535.4, 539.2, 320.1, 247.6), (480, 640)),
}
"""Data sets with one colour camera, as their authors state it: the toolbox of NYU's labelled set, DIODE's devkit. A few
of Hypersim's scenes have a tilted lens, which is left out."""


def intrinsics_of(layout: Calibration | Literal["nyu"], image: Path, size: tuple[int, int]) -> np.ndarray:
    """The camera of an image of `size` (h, w), (4,) float32.

    Unknown, NaN, if the calibration file is missing or does not list the image, or the image was cropped.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged.
    """
    known = read_calibration(layout, image)
    if known is None:
        return camera.UNKNOWN
    try:
        return camera.fitted(known.intrinsics, known.size, size)
    except ValueError:
        return camera.UNKNOWN


def read_calibration(layout: Calibration | Literal["nyu"], image: Path) -> Calibrated | None:
    """The camera of an image as stated; None if its file is missing or does not list it, see `intrinsics_of`."""
    if layout in CAMERAS:
        return CAMERAS[layout]
    readers = {
        "kitti": _kitti,
        "eth3d": _eth3d,
        "ibims1": _ibims1,
        "scannet": _scannet,
        "arkitscenes": _arkitscenes,
        "sunrgbd": _sunrgbd,
        "tum": _tum,
    }
    return readers[layout](image.absolute())


def check_intrinsics(name: str, value: Any) -> tuple[float, ...]:
    """Four numbers fx, fy, cx, cy with focal lengths above 0; a check as in `settings`."""
    four = several(name, value, 4, "[fx,fy,cx,cy] in pixels", number)
    several(name, four[:2], 2, "[fx,fy,cx,cy] with focal lengths above 0", partial(number, above=0))
    return tuple(float(one) for one in four)


def _kitti(image: Path) -> Calibrated | None:
    path, side = image.parents[3] / "calib_cam_to_cam.txt", image.parents[1].name.removeprefix("image_")
    if not path.is_file():
        return None
    with naming(path, "a calibration of KITTI's cameras"):
        entries = dict(line.split(":", 1) for line in _text(path).splitlines() if ":" in line)
        matrix, (width, height) = _numbers(entries[f"P_rect_{side}"], 12), _numbers(entries[f"S_rect_{side}"], 2)
    return Calibrated((matrix[0], matrix[5], matrix[2], matrix[6]), (int(height), int(width)))


def _eth3d(image: Path) -> Calibrated | None:
    folder = image.parents[2] / "dslr_calibration_jpg"
    if not folder.is_dir():
        return None
    cameras, images = _colmap(folder)
    return cameras.get(images.get(image.name, ""))


@lru_cache(maxsize=32)
def _colmap(folder: Path) -> tuple[dict[str, Calibrated], dict[str, str]]:
    """COLMAP's cameras by number, and the number of every image's camera."""
    cameras, images = dict[str, Calibrated](), dict[str, str]()
    for name in ("cameras.txt", "images.txt"):
        with reading(path := folder / name, "COLMAP's list"):
            lines = [line.split() for line in read_text(path).splitlines() if not line.startswith("#")]
            if name == "images.txt":  # two lines an image, the second with its points, perhaps none
                images = {fields[-1].rpartition("/")[2]: fields[8] for fields in lines[::2] if fields}
                continue
            for number, _, width, height, *parameters in filter(None, lines):
                # COLMAP counts from the corner of the first pixel; its models of one focal length are not ETH3D's.
                fx, fy, cx, cy = (float(value) for value in parameters[:4])
                cameras[number] = Calibrated((fx, fy, cx - 0.5, cy - 0.5), (int(height), int(width)))
    return cameras, images


def _ibims1(image: Path) -> Calibrated | None:
    path = image.parents[1] / "calib" / f"{image.stem}.txt"
    if not path.is_file():
        return None
    with naming(path, "fx, fy, cx, cy"):
        return Calibrated(_numbers(_text(path), 4), None)


def _scannet(image: Path) -> Calibrated | None:
    folder = image.parents[1]
    return _matrix(folder / "intrinsic" / "intrinsic_color.txt", 4) or _matrix(folder / "intrinsics_color.txt", 4)


def _sunrgbd(image: Path) -> Calibrated | None:
    return _matrix(image.parents[1] / "intrinsics.txt", 3)


def _matrix(path: Path, columns: int) -> Calibrated | None:
    if not path.is_file():
        return None
    with naming(path, f"a matrix of {columns}×{columns} numbers"):
        matrix = np.reshape(_numbers(_text(path), columns**2), (columns, columns))
        return Calibrated((*np.diag(matrix)[:2].tolist(), *matrix[:2, 2].tolist()), None)


def _arkitscenes(image: Path) -> Calibrated | None:
    path = image.parent.with_name(f"{image.parent.name}_intrinsics") / f"{image.stem}.pincam"
    if not path.is_file():
        return None
    with naming(path, "width, height, fx, fy, cx, cy"):
        width, height, *intrinsics = _numbers(_text(path), 6)
        return Calibrated(tuple(intrinsics), (int(height), int(width)))


def _tum(image: Path) -> Calibrated | None:
    named = next((found[0] for folder in image.parents if (found := re.search("freiburg[123]", folder.name))), None)
    return CAMERAS[named] if named else None


@lru_cache(maxsize=32)
def _text(path: Path) -> str:
    return read_text(path)


def _numbers(text: str, count: int) -> tuple[float, ...]:
    """The numbers in a text, separated by spaces, lines or commas."""
    numbers = tuple(float(field) for field in re.split(r"[\s,]+", text.strip()))
    if len(numbers) != count:
        raise BrokenError(f"expected {count} numbers, found {len(numbers)}.")
    return numbers

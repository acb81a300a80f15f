"""One file → one array: images as RGB, and the formats that depth comes in, as stored."""

import importlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import h5py
import numpy as np

WITH_KEY = (".npz", ".h5", ".hdf5", ".exr")
MAX_SIDE = 16_384
"""Of an image or a map, in pixels. What is larger does not fit into the memory of several workers."""


def split_key(reference: str) -> tuple[Path, str | None]:
    """Take "folder/file.h5:key" apart; only files that hold several arrays can have a key."""
    path, colon, key = reference.rpartition(":")
    if colon and path.lower().endswith(WITH_KEY):
        return Path(path), key
    return Path(reference), None


def read_image(path: Path) -> np.ndarray:
    """Read an image as (h, w, 3) uint8 RGB.

    Grey becomes RGB, alpha is dropped, 16 bits become 8. An EXIF orientation is not applied: depth maps have none,
    and belong to the pixels as the sensor gave them.

    Raises:
        OSError: no such file, a folder, or no permission to read it.
        ValueError: OpenCV cannot decode it, its values are neither 8 nor 16 bits, or a side is longer than `MAX_SIDE`.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = _decode(path, flags)
    check_side(path, bgr.shape)
    if bgr.dtype == np.uint16:
        bgr = np.round(bgr / 257).astype(np.uint8)
    if bgr.dtype != np.uint8:
        raise ValueError(f"{path}: expected an image of 8 or 16 bits, found {bgr.dtype}. Convert it to 8 bits.")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def read_map(path: Path, key: str | None = None) -> np.ndarray:
    """Read a depth map or mask as (h, w), with the values and the dtype that are stored.

    Args:
        path: .png, .tif or .tiff; .exr (needs the OpenEXR package); .pfm; .npy; .npz; .h5 or .hdf5.
        key: the array in an .npz, the data set in an .h5, the channel in an .exr; not needed where there is only one.

    Raises:
        OSError: no such file, a folder, or no permission to read it.
        ModuleNotFoundError: OpenEXR is not installed.
        ValueError: another extension, a damaged file, no such key or several without one, a shape other than (h, w),
            a side longer than `MAX_SIDE`.
    """
    readers = {
        ".png": _raster,
        ".tif": _raster,
        ".tiff": _raster,
        ".exr": _exr,
        ".pfm": _pfm,
        ".npy": _numpy,
        ".npz": _numpy,
        ".h5": _h5,
        ".hdf5": _h5,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: expected one of {', '.join(readers)}, found {path.suffix or 'no extension'!r}. "
            "Convert the depth maps: JPEG and 8-bit pictures cannot hold them."
        )
    check_file(path)
    try:
        stored = reader(path, key)
    except PermissionError as error:
        raise _forbidden(path) from error
    shape = stored.shape
    if stored.ndim == 3 and 1 in (shape[0], shape[-1]):
        stored = stored[..., 0] if shape[-1] == 1 else stored[0]
    if stored.ndim != 2 or not stored.size:
        picture = " This looks like a coloured picture of it." if stored.ndim == 3 and shape[-1] in (3, 4) else ""
        raise ValueError(f"{path}: expected one value per pixel, (h, w), found an array of {shape}.{picture}")
    check_side(path, stored.shape)
    return stored


def check_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        FileNotFoundError: nothing is there.
        IsADirectoryError: a folder is.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, found a folder of that name. Put the file in its place.")
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}. Was it moved, or does data.root=… name another folder?")


def check_side(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse an array (h, w, …) with a side longer than `MAX_SIDE`."""
    if max(shape[:2]) > MAX_SIDE:
        raise ValueError(
            f"{path}: expected sides of at most {MAX_SIDE} pixels, found {shape[0]}×{shape[1]} (h×w). "
            "Make it smaller, or cut it into pieces."
        )


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read.

    Raises:
        OSError: no such file, a folder, or no permission to read it.
        ValueError: a file cut short, damaged, or of another format.
    """
    check_file(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except PermissionError as error:
        raise _forbidden(path) from error
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises any of them, depending on where the damage is
        raise ValueError(
            f"{path}: expected an HDF5 file, found one that is cut short or damaged ({error}). Copy it again."
        ) from error


def _forbidden(path: Path) -> PermissionError:
    return PermissionError(f"{path}: expected a file that can be read, found no permission. Try chmod +r on it.")


def _decode(path: Path, flags: int) -> np.ndarray:
    check_file(path)
    try:
        content = np.fromfile(path, np.uint8)
    except PermissionError as error:
        raise _forbidden(path) from error
    if not content.size:
        raise ValueError(f"{path}: expected an image, found an empty file. Copy it again.")
    try:
        image: np.ndarray | None = cv2.imdecode(content, flags)
    except cv2.error as error:  # more than 2^30 pixels, for one
        raise ValueError(f"{path}: expected an image, found one that OpenCV refuses ({error.err}).") from error
    if image is None:
        raise ValueError(f"{path}: expected an image, found one that OpenCV cannot decode. Copy or convert it again.")
    return image


def _raster(path: Path, key: str | None) -> np.ndarray:
    return _decode(path, cv2.IMREAD_UNCHANGED)


def _pfm(path: Path, key: str | None) -> np.ndarray:
    content = path.read_bytes()
    header = re.match(rb"(P[fF])\s+(\d+)\s+(\d+)\s+(\S+)\s", content)
    if header is None:
        raise ValueError(f"{path}: expected a PFM file, found one that begins with {content[:12]!r}.")
    if header[1] == b"PF":
        raise ValueError(f"{path}: expected a PFM file of one channel ('Pf'), found one of three ('PF').")
    width, height, scale = int(header[2]), int(header[3]), float(header[4])
    data = content[header.end() :]
    if len(data) != 4 * width * height:
        raise ValueError(f"{path}: expected {4 * width * height} bytes for {width}×{height}, found {len(data)}.")
    # The sign of the scale tells the byte order; rows run from the bottom up.
    rows = np.frombuffer(data, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return rows[::-1].astype(np.float32)


def _numpy(path: Path, key: str | None) -> np.ndarray:
    message = f"{path}: expected an array written by NumPy, found another or a damaged file. Copy it again."
    try:
        content = np.load(path, allow_pickle=False)
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(message) from error
    if isinstance(content, np.ndarray):
        return content
    with content:
        name = _choose(path, key, list(content))
        try:
            array: np.ndarray = content[name]
        except (EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(message) from error
        return array


def _h5(path: Path, key: str | None) -> np.ndarray:
    with open_h5(path) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        array: np.ndarray = file[_choose(path, key, names)][()]
        return array


def _exr(path: Path, key: str | None) -> np.ndarray:
    try:
        openexr = importlib.import_module("OpenEXR")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs the OpenEXR package: pip install 'depth-lightning[exr]'") from error
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            channels: dict[str, np.ndarray] = {name: channel.pixels for name, channel in file.channels().items()}
    except RuntimeError as error:
        raise ValueError(f"{path}: expected an EXR file, found another or a damaged one ({error}).") from error
    names = sorted(channels)
    if key is None and {"R", "G", "B"} <= set(names) <= {"R", "G", "B", "A"}:
        # Renderers write one value into all three.
        first, *others = (channels[name] for name in "RGB")
        if all(np.array_equal(first, other, equal_nan=True) for other in others):
            return first
    return channels[_choose(path, key, names)]


def _choose(path: Path, key: str | None, names: list[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    expected = f"an array named {key!r}" if key else "one array, or a key that says which"
    raise ValueError(f"{path}: expected {expected}, found {names}. Set data.depth_key=…, or write {path.name}:<key>.")

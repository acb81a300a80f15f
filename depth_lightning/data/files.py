"""Reading one file as one array: images as RGB, depth maps and masks in every supported format as stored."""

import importlib
import io
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import cv2
import h5py
import numpy as np

from depth_lightning.data.h5 import open_dataset
from depth_lightning.data.images import decode_image, decode_raster
from depth_lightning.data.packing import Packing, unpack
from depth_lightning.data.reading import BrokenError, check_map, check_shape, check_whole, reading

RASTERS = (".png", ".tif", ".tiff")
WITH_KEY = (".npz", ".h5", ".hdf5", ".exr")
NPY_HEADER = 2**16
"""Largest header of a numeric array, in bytes."""


def split_key(reference: str) -> tuple[Path, str | None]:
    """Split "folder/file.h5:key" into path and key; only files that hold several arrays can have one."""
    path, colon, key = reference.rpartition(":")
    if colon and path.lower().endswith(WITH_KEY):
        return Path(path), key
    return Path(reference), None


def read_image(path: Path, upright: bool | None = False, image_range: Sequence[float] | None = None) -> np.ndarray:
    """Read an image as (h, w, 3) uint8 RGB, see `decode_image`.

    Raises:
        OSError: the file does not exist, is a folder, or cannot be read.
        ValueError: it cannot be decoded, a side is longer than `MAX_SIDE`, or it has other than 8 or 16 bits and there
            is no range.
    """
    with reading(path, "an image", "Copy or convert it again."):
        check_whole(path)
        return decode_image(np.fromfile(path, np.uint8), upright, image_range, path)


def read_map(
    path: Path,
    key: str | None = None,
    root: Path | None = None,
    packing: Packing | None = None,
    upright: bool | None = False,
) -> np.ndarray:
    """Read a depth map or mask as (h, w), with the stored values and dtype.

    Of an image whose channels are all equal, and perhaps an alpha channel, one is read.

    Args:
        path: .png, .tif or .tiff; .exr (needs the OpenEXR package); .pfm; .npy; .npz; .h5 or .hdf5.
        key: the array in an .npz, the data set in an .h5, the channel in an .exr; not needed if there is only one.
        root: the folder from which an .h5 may take its values, see `open_dataset`.
        packing: how a map is packed into the channels or bits of a .png or .tif, see `unpack`.
        upright: apply the orientation of a TIFF, or in the EXIF of a PNG, as viewers do; None to refuse one with it.

    Raises:
        OSError: the file does not exist, is a folder, or cannot be read.
        ModuleNotFoundError: OpenEXR is not installed.
        ValueError: an unsupported extension, a damaged file, a missing or ambiguous key, non-numeric values, a shape
            other than (h, w), a side longer than `MAX_SIDE`.
    """
    formats: dict[str, tuple[str, Callable[[Path, str | None], np.ndarray]]] = {
        **dict.fromkeys(RASTERS, ("an image", partial(_raster, packing=packing, upright=upright))),
        ".exr": ("an EXR file", _exr),
        ".pfm": ("a PFM file", _pfm),
        ".npy": ("an array written by NumPy", _numpy),
        ".npz": ("an array written by NumPy", _numpy),
        ".h5": ("an HDF5 file", partial(_h5, root=root)),
        ".hdf5": ("an HDF5 file", partial(_h5, root=root)),
    }
    if path.suffix.lower() not in formats:
        raise ValueError(
            f"{path}: expected one of {', '.join(formats)}, found {path.suffix or 'no extension'!r}. "
            "Convert the depth maps: JPEG and 8-bit pictures cannot hold them."
        )
    if packing is not None and path.suffix.lower() not in RASTERS:
        raise ValueError(f"{path}: expected one of {', '.join(RASTERS)}, which data.packing={packing} is about.")
    expected, reader = formats[path.suffix.lower()]
    with reading(path, expected):
        stored = reader(path, key)
        return stored.reshape(check_map(stored.shape, stored.dtype))


def decode_map(content: np.ndarray) -> np.ndarray:
    """Decode the bytes of an image file or a .npy, (n,) uint8, as `read_map` does.

    Raises:
        BrokenError: see `read_map`; OpenCV's and NumPy's own errors pass through.
    """
    if content[:6].tobytes() == np.lib.format.MAGIC_PREFIX:
        stored = read_npy(io.BytesIO(content.tobytes()), content.size)
    else:
        stored = decode_raster(content, cv2.IMREAD_UNCHANGED, upright=False)
    return stored.reshape(check_map(stored.shape, stored.dtype))


def _raster(path: Path, key: str | None, packing: Packing | None, upright: bool | None) -> np.ndarray:
    check_whole(path)
    stored = decode_raster(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED, upright)
    if packing is not None:
        return unpack(stored, packing)
    # A mask may be of one value; a depth map of one value is none, and does not show that its channels hold the same.
    if stored.ndim == 3 and (stored.dtype == np.uint8 or np.ptp(stored[..., :3])) and _are_equal(stored[..., :3]):
        return stored[..., 0]
    return stored


def _are_equal(channels: np.ndarray) -> bool:
    return bool((channels == channels[..., :1]).all())


def _pfm(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        start = file.read(256)
        header = re.match(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]+)\s", start)
        if header is None:
            raise BrokenError(f"expected a PFM file, found one that begins with {start[:12]!r}.")
        if header[1] == b"PF":
            raise BrokenError("expected a PFM file of one channel ('Pf'), found one of three ('PF').")
        width, height, scale = int(header[2]), int(header[3]), float(header[4])
        check_map((height, width), np.dtype(np.float32))
        size = path.stat().st_size - header.end()
        if size != 4 * width * height:
            raise BrokenError(f"expected {4 * width * height} bytes for {width}×{height}, found {size}.")
        file.seek(header.end())
        # The sign of the scale gives the byte order; rows are stored bottom to top.
        rows = np.fromfile(file, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return rows[::-1].astype(np.float32)


def _numpy(path: Path, key: str | None) -> np.ndarray:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
        file.seek(0)
        return read_npz(file, key) if zipped else read_npy(file, path.stat().st_size)


def read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Read a map written by NumPy, of any shape that `check_map` accepts, or an image (h, w, 3).

    Args:
        file: a seekable file, at its beginning.
        size: its size in bytes.

    Raises:
        BrokenError: it holds something else, or less than its header claims; NumPy's own errors pass through.
    """
    start = io.BytesIO(file.read(NPY_HEADER))
    version = np.lib.format.read_magic(start)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(start)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(start)
    check_map(shape[:2] if shape[2:] == (3,) else shape, dtype)
    expected = math.prod(shape) * dtype.itemsize
    if size - start.tell() < expected:
        raise BrokenError(f"expected {expected} bytes for an array of {shape} {dtype}, found {size - start.tell()}.")
    file.seek(0)
    array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def read_npz(file: IO[bytes], key: str | None) -> np.ndarray:
    """Read one of the maps in an .npz, see `read_npy`; `key` may be None if there is only one."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        member = members[_choose(key, list(members))]
        with archive.open(member.filename) as array:
            return read_npy(array, member.file_size)


def _h5(path: Path, key: str | None, root: Path | None) -> np.ndarray:
    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        dataset = h5py.Dataset(open_dataset(file, _choose(key, names), root))
        check_map(dataset.shape, dataset.dtype)
        array: np.ndarray = dataset[()]
        return array


def _exr(path: Path, key: str | None) -> np.ndarray:
    try:
        openexr = importlib.import_module("OpenEXR")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs the OpenEXR package: pip install 'depth-lightning[exr]'") from error
    with openexr.File(str(path), header_only=True) as file:
        for part in file.parts:
            first, last = (end.tolist() for end in part.header["dataWindow"])
            check_shape((last[1] - first[1] + 1, last[0] - first[0] + 1))
    with openexr.File(str(path), separate_channels=True) as file:
        channels: dict[str, np.ndarray] = {name: channel.pixels for name, channel in file.channels().items()}
    names = sorted(channels)
    if key is None and {"R", "G", "B"} <= set(names) <= {"R", "G", "B", "A"}:
        # Renderers write the same value into all three.
        first, *others = (channels[name] for name in "RGB")
        if all(np.array_equal(first, other, equal_nan=True) for other in others):
            return first
    return channels[_choose(key, names)]


def _choose(key: str | None, names: list[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return str(key)
    expected = f"an array named {key!r}" if key else "one array, or a key that says which"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    raise BrokenError(f"expected {expected}, found {names[:8]}{more}. Set data.depth_key=…, or write <file>:<key>.")

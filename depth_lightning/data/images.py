"""How an image file becomes (h, w, 3) uint8 RGB: its orientation, and which stored values are dark and bright."""

import importlib
import io
import logging
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np

from depth_lightning.data.image_header import TIFF, Lens, claimed_size, has_8_bits, is_plain_tiff, lens, orientation
from depth_lightning.data.reading import BrokenError, check_file, check_shape, check_whole, reading
from depth_lightning.settings import SettingError, number, one_of, several

log = logging.getLogger(__name__)

Exif = Literal["auto", "apply", "ignore"]
Range = tuple[float, float]
"""The stored values that become 0 and 255."""

WHOLE: Final = (0, 65535)
"""The range of all values of 16 bits."""
TOPS: Final = (1, 2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)
"""The largest values of common cameras; 1 for floating point."""
LOOKED_AT: Final = 64
"""Most images from which a range is derived."""
HEIF = re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
_UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda array: array,
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: array[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF orientation → what turns the stored image upright."""
_BACK = {6: 8, 8: 6}
"""Orientations whose inverse is another one."""


def check_range(name: str, value: Any) -> Range | None:
    """None, or the darkest and the brightest value of an image; a check as in `settings`."""
    if value is None:
        return None
    darkest, brightest = several(name, value, 2, "[darkest, brightest] stored value, or null: from the images", number)
    if not darkest < brightest:
        raise SettingError(name, f"is [darkest, brightest] stored value, found {list(value)}.")
    return darkest, brightest


def check_exif(name: str, value: Any) -> Exif:
    """A policy for EXIF orientations; a check as in `settings`."""
    exif: Exif = one_of(name, value, ("auto", "apply", "ignore"))
    return exif


def decode_image(
    content: np.ndarray,
    upright: bool | None = False,
    image_range: Sequence[float] | None = None,
    path: Path | None = None,
) -> np.ndarray:
    """Decode a file's bytes as (h, w, 3) uint8 RGB.

    Grey becomes RGB, alpha is dropped. Values of more than 8 bits are scaled, and a warning is logged if an image
    covers less than a sixteenth of the range; 8-bit images stay as they are.

    Args:
        content: (n,) uint8, in any format that OpenCV decodes; also HEIC if the package pillow-heif is installed.
        upright: apply the orientation in its EXIF, or of a TIFF, as viewers do; None to refuse an image that has one.
            HEIC is always upright.
        image_range: the stored values that become 0 and 255; None for all values of 16 bits.
        path: for the warning.

    Raises:
        BrokenError: it cannot be decoded, a side is longer than `MAX_SIDE`, or it has other than 8 or 16 bits and there
            is no range; OpenCV's own errors pass through.
    """
    if HEIF.match(content[:12].tobytes()):
        return _heif(content)
    stored = _stored(content, upright)
    if stored.dtype != np.uint8:
        stored = _scaled(stored, image_range, path)
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)


def decode_raster(content: np.ndarray, flags: int, upright: bool | None) -> np.ndarray:
    """Decode a file's bytes with OpenCV's flags, in the stored type; for `upright`, see `decode_image`.

    Raises:
        BrokenError: it cannot be decoded, or a side is too long; OpenCV's own errors pass through.
    """
    if not content.size:
        raise BrokenError("expected an image, found an empty file, which is damaged. Copy it again.")
    check_shape(claimed_size(content.data) or ())
    turn = orientation(content.data)
    if upright is None and turn > 1:
        raise BrokenError(
            f"expected no EXIF orientation, as in all files that data.exif=auto looked at, found {turn}. Type "
            "data.exif=apply if the depth maps belong to the images as viewers show them, or data.exif=ignore if to "
            "the pixels as stored."
        )
    image: np.ndarray | None = cv2.imdecode(content, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BrokenError(
            "expected an image, found one that OpenCV cannot decode: it is damaged, or of another format. Copy or "
            "convert it again."
        )
    check_shape(image.shape)
    if _is_tiff(content):  # OpenCV turns these, whatever its flags
        return image if upright else np.ascontiguousarray(_UPRIGHT[_BACK.get(turn, turn)](image))
    return np.ascontiguousarray(_UPRIGHT[turn](image)) if upright else image


def orientation_of(path: Path) -> int:
    """The orientation of a file, see `image_header.orientation`; 1 if it cannot be read, which its reader reports."""
    with suppress(OSError, ValueError), _mapped(path) as content:
        return orientation(content)
    return 1


def lens_of(path: Path) -> Lens | None:
    """What the EXIF of a file says about its camera; None if it says nothing, or cannot be read."""
    with suppress(OSError, ValueError), _mapped(path) as content:
        if not HEIF.match(content[:12]):
            return lens(content)
        pillow_heif = importlib.import_module("pillow_heif")  # the image itself could not be read without it
        exif = pillow_heif.open_heif(io.BytesIO(bytes(content))).info.get("exif")
        return lens(memoryview(exif)) if exif else None
    return None


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, of which only those that are looked at are read."""
    check_file(path)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        yield view


def derive_range(paths: Iterable[Path]) -> Range | None:
    """The range of a camera from some of its images; None if they have 8 bits.

    It is that of the camera's bits if the images use them: [0, 4095] for 12. Otherwise, such as for a thermal camera's
    counts, it is from the darkest to the brightest value of all images, without 0.1 % at either end. Images that cannot
    be read are left out.
    """
    pooled = list[np.ndarray]()
    for path in paths:
        with suppress(OSError, ValueError), reading(path, "an image"):
            check_whole(path)
            content = np.fromfile(path, np.uint8)
            if has_8_bits(content.data) or HEIF.match(content[:12].tobytes()):
                continue
            stored = _stored(content, upright=False)
            if stored.dtype != np.uint8:
                values = stored.reshape(-1)
                values = values[:: max(1, values.size // 2**16)].astype(np.float64)
                pooled.append(values[np.isfinite(values)])
    if not pooled or not sum(values.size for values in pooled):
        return None
    values = np.concatenate(pooled)
    low, high = (float(f"{value:.6g}") for value in np.quantile(values, (0.001, 0.999)))
    top = next((top for top in TOPS if values.max() <= top), np.inf)
    if 0 <= low < high / 2 and top / 4 < high:
        return 0, top
    return (low, high) if low < high else None


def _is_tiff(content: np.ndarray) -> bool:
    return content[:4].tobytes() in TIFF


def _stored(content: np.ndarray, upright: bool | None) -> np.ndarray:
    """(h, w, 3) BGR in the stored type."""
    if not _is_tiff(content) or is_plain_tiff(content.data):
        return decode_raster(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, upright)
    stored = decode_raster(content, cv2.IMREAD_UNCHANGED, upright)  # OpenCV does not convert these to three channels
    planes = stored.reshape(*stored.shape[:2], -1)
    return np.repeat(planes[..., :1], 3, 2) if planes.shape[2] < 3 else np.ascontiguousarray(planes[..., :3])


def _scaled(stored: np.ndarray, image_range: Sequence[float] | None, path: Path | None) -> np.ndarray:
    finite = stored[np.isfinite(stored)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if image_range is None and stored.dtype != np.uint16:
        raise BrokenError(
            f"expected an image of 8 or 16 bits, found {stored.dtype} from {lowest:g} to {highest:g}. Declare which "
            f"values are dark and bright: data.image_range=[{lowest:g},{highest:g}]."
        )
    low, high = image_range or WHOLE
    if highest - lowest < (high - low) / 16:
        _warn(path and path.parent, str(path), (low, high), (lowest, highest))
    levels = np.round((np.nan_to_num(stored, nan=low) - low) / ((high - low) / 255))
    scaled: np.ndarray = np.clip(levels, 0, 255).astype(np.uint8)
    return scaled


_warned = set[tuple[Path | None, Range]]()


def _warn(folder: Path | None, name: str, image_range: Range, values: Range) -> None:
    """Once per folder."""
    if (folder, image_range) in _warned:
        return
    _warned.add((folder, image_range))
    log.warning(
        f"{name}: its values, {values[0]:g} to {values[1]:g}, are less than a sixteenth of the range from dark to "
        f"bright, {image_range[0]:g} to {image_range[1]:g}: the network sees almost one colour. If others are like it, "
        "type data.image_range=[darkest,brightest] stored value."
    )


def _heif(content: np.ndarray) -> np.ndarray:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ModuleNotFoundError as error:
        raise BrokenError(
            "expected an image that OpenCV reads, found HEIC, which needs pillow-heif: pip install "
            "'depth-lightning[heif]'"
        ) from error
    image = pillow_heif.open_heif(io.BytesIO(content.tobytes()))
    width, height = image.size
    check_shape((height, width))
    return np.asarray(image.to_pillow().convert("RGB"))

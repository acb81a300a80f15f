"""Depth maps packed into the channels or bits of an ordinary image file.

CARLA: https://carla.readthedocs.io/en/latest/ref_sensors (Depth camera). TartanAir V2: Wang et al.,
https://tartanair.org. SUN RGB-D: Song et al., CVPR 2015, whose toolbox rotates the bits back.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from depth_lightning.data.reading import BrokenError

LEVELS = 50
"""Fewest values of a map of which it can be said that they are all multiples of 8."""
Packing = Literal["carla_rgb24", "tartanair_rgba", "split16", "sunrgbd"]


def unpack(stored: np.ndarray, packing: Packing) -> np.ndarray:
    """The map (h, w) in a decoded image.

    Args:
        stored: (h, w) or (h, w, channels), blue first as OpenCV decodes it.
        packing: "carla_rgb24": (R + 256 G + 65536 B) / (2²⁴ − 1) · 1000, metres as float32. "tartanair_rgba": the four
            bytes of a little-endian float32 in metres. "split16": 256 R + G, as uint16. "sunrgbd": the 16 bits, rotated
            to the left by three, as uint16: millimetres.

    Raises:
        BrokenError: the image has other channels or another type.
    """
    expected, dtype, channels, unpacked = _FORMS[packing]
    found = stored.shape[2] if stored.ndim == 3 else 1
    if stored.dtype != dtype or found not in channels:
        raise BrokenError(
            f"expected {expected}, as data.packing={packing} declares, found {found} of {stored.dtype}. Declare how "
            "this map is packed, or data.packing=null for one that is not."
        )
    return unpacked(stored)


def looks_rotated(stored: np.ndarray) -> bool:
    """Whether a map of 16 bits looks like one of SUN RGB-D: multiples of 8, plus 1 for what is beyond 8.19 m."""
    if stored.dtype != np.uint16:
        return False
    values = np.unique(stored)
    near, low = values & ~np.uint16(7), values & 7
    return len(values) >= LEVELS and bool((low <= 1).all()) and (bool(low.any()) or int(np.gcd.reduce(near)) == 8)


def _carla(bgr: np.ndarray) -> np.ndarray:
    blue, green, red = (bgr[..., channel].astype(np.float64) for channel in range(3))
    depth_m: np.ndarray = ((red + 256 * green + 65536 * blue) / (2**24 - 1) * 1000).astype(np.float32)
    return depth_m


def _tartanair(bgra: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bgra).view("<f4")[..., 0]


def _split(bgr: np.ndarray) -> np.ndarray:
    both: np.ndarray = 256 * bgr[..., 2].astype(np.uint16) + bgr[..., 1]
    return both


def _sun(stored: np.ndarray) -> np.ndarray:
    millimetres: np.ndarray = (stored >> 3) | (stored << 13)
    return millimetres.reshape(stored.shape[:2])


_FORMS: Mapping[Packing, tuple[str, type, tuple[int, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "carla_rgb24": ("three or four channels of 8 bits", np.uint8, (3, 4), _carla),
    "tartanair_rgba": ("four channels of 8 bits", np.uint8, (4,), _tartanair),
    "split16": ("three or four channels of 8 bits", np.uint8, (3, 4), _split),
    "sunrgbd": ("one channel of 16 bits", np.uint16, (1,), _sun),
}

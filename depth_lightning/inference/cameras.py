"""The camera of a photo, as typed or from its EXIF: for point clouds, and for networks trained with camera=canonical.

EXIF: the standard of JEITA and CIPA, CP-3451. The equivalent focal length is that of a 35 mm film, whose frame has a
diagonal of 43.27 mm; an aspect other than 3:2 makes a comparison of the widths wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import hypot
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from depth_lightning import camera
from depth_lightning.data.calibrations import check_intrinsics
from depth_lightning.data.image_header import Lens
from depth_lightning.data.images import lens_of
from depth_lightning.settings import SettingError, number, optional, several, whole_number

FILM_DIAGONAL_MM: Final = hypot(36, 24)
PLAUSIBLE_FOV_DEG: Final = (1.0, 170.0)
"""Of a photo's longer side; EXIF that says otherwise is not believed."""


class PhotoCamera(NamedTuple):
    """The camera of one image, and how it is known."""

    intrinsics: np.ndarray
    """(4,) float32: fx, fy, cx, cy in pixels of the image; NaN if unknown."""
    source: str
    """The setting or the EXIF tag; "unknown"."""


@dataclass(frozen=True)
class CameraOptions:
    """What is typed about the cameras of photos.

    Args:
        intrinsics: fx, fy, cx, cy for images of `size`; they win over everything else.
        size: [h, w]; None if the intrinsics apply to every image unscaled.
        fov_deg: field of view of the longer side, for images of any size; wins over EXIF.
        cloud_fov_deg: the horizontal field of view, `cloud.fov_deg`.
        default_fov_deg: of the longer side, for images whose camera is unknown otherwise.
        names: of `intrinsics` and `size`, for messages.

    Raises:
        SettingError: an option is out of range, or two contradict.
    """

    intrinsics: Sequence[float] | None = None
    size: Sequence[int] | None = None
    fov_deg: float | None = None
    cloud_fov_deg: float | None = None
    default_fov_deg: float | None = None
    names: tuple[str, str] = ("camera.intrinsics", "camera.size=[h,w]")

    def __post_init__(self) -> None:
        optional("intrinsics", self.intrinsics, check_intrinsics)
        optional("size", self.size, partial(several, count=2, what="[h,w]", check=whole_number))
        for name in ("fov_deg", "default_fov_deg"):
            optional(name, getattr(self, name), partial(number, above=0, below=180))
        typed = [self.intrinsics, self.fov_deg, self.cloud_fov_deg]
        if sum(value is not None for value in typed) > 1:
            raise SettingError("intrinsics", "and a field of view are both typed. Type one of them.")

    def of(self, height: int, width: int, lens: Lens | None = None) -> PhotoCamera:
        """The camera of an image.

        Args:
            height: of the image as it is read, after its EXIF rotation.
            width: likewise.
            lens: what its EXIF says, see `lens_of`.

        Raises:
            ValueError: the typed intrinsics do not fit this image.
        """
        size = height, width
        if self.intrinsics is not None:
            calibrated = None if self.size is None else (self.size[0], self.size[1])
            name, how = self.names
            return PhotoCamera(camera.fitted(self.intrinsics, calibrated, size, how), name)
        if self.fov_deg is not None:
            return PhotoCamera(camera.from_fov(self.fov_deg, size), "camera.fov_deg")
        if self.cloud_fov_deg is not None:
            return PhotoCamera(camera.centred(camera.focal_from_fov(self.cloud_fov_deg, width), size), "cloud.fov_deg")
        if lens is not None and (known := from_exif(lens, size)) is not None:
            return known
        if self.default_fov_deg is not None:
            return PhotoCamera(camera.from_fov(self.default_fov_deg, size), "camera.default_fov_deg")
        return PhotoCamera(camera.UNKNOWN, "unknown")


def photo_camera(options: CameraOptions, path: Path, image: np.ndarray) -> PhotoCamera:
    """The camera of a photo that was read from a file; raises as `CameraOptions.of`."""
    return options.of(image.shape[0], image.shape[1], lens_of(path))


def from_exif(lens: Lens, size: tuple[int, int]) -> PhotoCamera | None:
    """The camera that EXIF describes; None if it describes none, or an impossible one.

    Args:
        lens: what it says.
        size: (h, w) of the image, in either orientation: pixels are taken as square.
    """
    if lens.equivalent_mm > 0:
        focal = lens.equivalent_mm / FILM_DIAGONAL_MM * hypot(*size)
        if _plausible(focal, size):
            return PhotoCamera(camera.centred(focal, size), "EXIF FocalLengthIn35mmFilm")
    if lens.focal_mm > 0 and lens.pixels_per_mm > 0:
        # The resolution is that of the image as it was taken, which may have been made smaller since.
        smaller = max(size) / lens.longer_side if lens.longer_side else 1.0
        focal = lens.focal_mm * lens.pixels_per_mm * smaller
        if _plausible(focal, size):
            return PhotoCamera(camera.centred(focal, size), "EXIF FocalPlaneXResolution")
    return None


def _plausible(focal_px: float, size: tuple[int, int]) -> bool:
    low, high = PLAUSIBLE_FOV_DEG
    return low < camera.fov_from_focal(focal_px, max(size)) < high

"""Depth at one focal length for all cameras, so that a network need not guess it (Metric3D, Yin et al., ICCV 2023).

Metric depth from one image is ambiguous: twice the focal length looks like half the distance. Targets become
depth · focal_px / f, with f the focal length of the image as the network sees it; predictions are multiplied back.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from depth_lightning import camera
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import number, optional


@dataclass(frozen=True)
class Canonical:
    """The canonical camera.

    Args:
        focal_px: its focal length, in pixels of the network's input.
        default_fov_deg: field of view of the longer side of images whose camera is unknown; None to refuse those.

    Raises:
        SettingError: an argument is out of range.
    """

    focal_px: float
    default_fov_deg: float | None = None

    def __post_init__(self) -> None:
        number("focal_px", self.focal_px, above=0)
        optional("default_fov_deg", self.default_fov_deg, partial(number, above=0, below=180))

    def known(self, sample: DepthSample) -> DepthSample:
        """The sample with its camera; for images without metres, none is needed.

        Raises:
            ValueError: its camera is unknown, and there is no default.
        """
        if sample.kind != DepthKind.METRES or not np.isnan(sample.intrinsics).any():
            return sample
        if self.default_fov_deg is None:
            raise ValueError(
                f"{sample.id}: camera=canonical needs the camera of every image with depth in metres, and that of this "
                "one is unknown. Declare it (data.intrinsics, data.calibration, or a manifest's columns), or for all "
                "such images camera.default_fov_deg=…, the field of view of the longer side in degrees."
            )
        height, width = sample.image.shape[:2]
        return sample._replace(intrinsics=camera.from_fov(self.default_fov_deg, (height, width)))

    def target(self, sample: DepthSample) -> DepthSample:
        """The sample with metres as they look at the canonical focal length."""
        if sample.kind != DepthKind.METRES:
            return sample
        factor = np.float32(self.focal_px) / camera.focal_length(sample.intrinsics)
        return sample._replace(target=sample.target * factor)

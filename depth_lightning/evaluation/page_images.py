"""The images of a report page, collected during a validation: all small; the best, worst and some random ones large."""

from bisect import insort
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import lightning
import numpy as np
import torch
from torch import Tensor

from depth_lightning.metrics import ERRORS
from depth_lightning.metrics.affine_metrics import affine_error
from depth_lightning.metrics.depth_metrics import prepare
from depth_lightning.reporting.colour import robust_range
from depth_lightning.reporting.page.images import EACH, EncodedImage, PageImage, rank_keys
from depth_lightning.reporting.page.maps import SMALL_STEPS, STEPS, quantise, reduced_pixels
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training import DepthModule
from depth_lightning.training.like_truth import converted, like_truth
from depth_lightning.training.prediction_observer import PredictionObserver

LARGE_PIXELS: Final = 480 * 640
SMALL_PIXELS: Final = 120 * 160
ALL_PIXELS: Final = 500 * SMALL_PIXELS
"""Of all small maps together: with more images, each gets fewer, so that the page stays below 40 MB."""
PHOTO_PIXELS: Final = 4
"""A photo next to small maps has this many times their pixels."""


class _Arrays(NamedTuple):
    photo: np.ndarray
    target: np.ndarray
    mask: np.ndarray
    prediction: np.ndarray

    def reduced(self, pixels: int) -> "_Arrays":
        chosen = reduced_pixels(self.mask, pixels)
        return _Arrays(self.photo, *(values.ravel()[chosen] for values in self[1:]))

    def encoded(self, steps: int, photo_pixels: int) -> EncodedImage:
        height, width = self.target.shape
        grown = photo_pixels**0.5
        photo = cv2.resize(self.photo, (round(width * grown), round(height * grown)), interpolation=cv2.INTER_AREA)
        photo_file = cv2.imencode(".webp", photo[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 75])[1].tobytes()
        truth = quantise(self.target, self.mask & np.isfinite(self.target), steps)
        return EncodedImage(
            height, width, photo_file, truth, quantise(self.prediction, np.isfinite(self.prediction), steps)
        )


@dataclass
class _Shortlist:
    """The images with the smallest keys so far."""

    entries: list[tuple[float, str, int]] = field(default_factory=list)

    def add(self, key: float, name: str, index: int) -> None:
        insort(self.entries, (key, name, index))
        del self.entries[EACH:]


class PageImages(PredictionObserver):
    """Keeps every image of a validation in small size, and the best, worst and random ones so far in large size.

    Predictions are shown as they are scored: aligned and bounded according to the protocol.
    """

    def __init__(self) -> None:
        self.images: list[PageImage] = []
        self.shortlists: dict[tuple[str, str], _Shortlist] = {}
        self.large: dict[int, _Arrays] = {}

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Divide the pixel budget among the images."""
        count = len(trainer.datamodule.val_data)  # type: ignore[attr-defined]
        self.small_pixels = max(1, min(SMALL_PIXELS, ALL_PIXELS // max(1, count)))

    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Keep the images of the batch."""
        for image, kind in enumerate(batch.kind):
            row = slice(image, image + 1)
            fitted, error, shown_as = shown(module, kind, prediction[row], batch.target[row], batch.mask[row])
            arrays = _Arrays(
                _photo(batch.image[image]),
                batch.target[image].float().cpu().numpy(),
                batch.mask[image].cpu().numpy(),
                fitted[0].cpu().numpy(),
            )
            self._keep(arrays, batch.id[image], batch.scene[image], kind, shown_as, float(error[0]))

    def _keep(self, arrays: _Arrays, name: str, scene: str, kind: DepthKind, shown_as: str, error: float) -> None:
        index = len(self.images)
        low, high = robust_range(arrays.target[arrays.mask] if arrays.mask.any() else arrays.prediction)
        small = arrays.reduced(self.small_pixels).encoded(SMALL_STEPS, PHOTO_PIXELS)
        height, width = arrays.target.shape
        image = PageImage(name, scene, kind, shown_as, height, width, low, high, error, small)
        self.images.append(image)
        for role, key in rank_keys(image).items():
            self.shortlists.setdefault((image.truth, role), _Shortlist()).add(key, name, index)
        kept = {index for shortlist in self.shortlists.values() for *_, index in shortlist.entries}
        if index in kept:
            self.large[index] = arrays.reduced(LARGE_PIXELS)
        self.large = {index: arrays for index, arrays in self.large.items() if index in kept}

    def gathered(self) -> list[PageImage]:
        """The images of all processes, each of which must call it, in the order of per_image.parquet."""
        for index, arrays in self.large.items():
            self.images[index].large = arrays.encoded(STEPS, 1)
        parts: list[list[PageImage]] = [self.images]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = [[]] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.images)
        images = [image for part in parts for image in part]
        return sorted(images, key=lambda image: (image.truth, image.id, image.scene))


def shown(
    module: DepthModule, kind: DepthKind, prediction: Tensor, target: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, str]:
    """Predictions in the unit of their truth, as scored; the (b,) errors that rank them; and a note on the conversion.

    Args:
        module: with the protocol.
        kind: of all targets.
        prediction: (b, h, w), the network's output.
        target: (b, h, w).
        mask: (b, h, w) bool.
    """
    protocol = module.metrics.protocol
    prediction, target = prediction.float(), target.float()
    if kind == DepthKind.DISPARITY:
        fitted = like_truth(module.network, prediction, target, mask, kind)
        disparity = converted(module.network, prediction, to_disparity=True)
        error = _ranked(affine_error(disparity, target, mask), fitted.determined)
        what = "disparity" if module.network.output == "relative" else "1 / depth"
        return fitted.depth, error, f"The prediction is {what}, with scale and shift fitted to the truth of its image."
    given = converted(module.network, prediction, to_disparity=protocol.alignment == "scale_shift_disparity")
    depth, valid, aligned = prepare(given, target, mask, protocol)
    error = _ranked(ERRORS["abs_rel"](depth, target, valid), aligned.determined)
    if protocol.alignment != "none":
        how = ALIGNED[protocol.alignment]
        return depth, error, f"The prediction is aligned to the truth of its image: {how}."
    if kind == DepthKind.UP_TO_SCALE:
        depth = like_truth(module.network, prediction, target, mask, kind).depth
        how = "The truth is up to scale: the prediction is multiplied by one factor for this picture, and not scored."
        return depth, torch.full_like(error, torch.nan), how
    return depth, error, "The prediction is what the network gives, in metres."


def _ranked(error: Tensor, scored: Tensor) -> Tensor:
    """NaN if not scored, and infinite if a scored prediction is NaN: worse than any other."""
    return error.nan_to_num(torch.inf).where(scored, torch.nan)


ALIGNED: Final = {
    "scale_median_of_ratios": "multiplied by the median of truth / prediction",
    "scale_ratio_of_medians": "multiplied by the ratio of the medians",
    "scale_least_squares": "multiplied by the factor of least squares",
    "scale_shift_depth": "scale and shift by least squares in depth",
    "scale_shift_disparity": "scale and shift by least squares in disparity, then 1 / disparity",
}


def _photo(image: Tensor) -> np.ndarray:
    """(3, h, w) uint8 or float in [0, 1] → (h, w, 3) uint8."""
    pixels = image if image.dtype == torch.uint8 else (image.float().clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())

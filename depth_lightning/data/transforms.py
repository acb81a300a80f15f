"""From a sample on disk to the network's size: random for training, exact for evaluation.

Sizes follow MiDaS and Depth Anything: the shorter side becomes `size` or slightly more, the aspect is kept, and both
sides are multiples of the encoder's patch. The image is resized bicubically without antialiasing, the depth with
nearest neighbour. Sparse depth, as from LiDAR, keeps its points instead.
"""

import math
import os
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np

from depth_lightning import camera
from depth_lightning.data.canonical import Canonical
from depth_lightning.data.photometric import check_share
from depth_lightning.data.reading import BrokenError, naming
from depth_lightning.data.rotation import rotated
from depth_lightning.data.sparse import is_sparse, scattered
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import SettingError, number, several, whole_number

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise importing it checks online for an update

import albumentations as A

PATCH = 14
"""Side of a patch of Depth Anything's own encoders, the default."""
MAX_TOKENS = 16_384
"""Most tokens per image, as many as 1792×1792 takes; or those of four squares of `size`, if that is more."""
CROP_DRAWS = 8
MAX_ZOOM = 10
MAX_SIZE = 4096
"""Largest shorter side. Attention is between all patches, and a square image of this size has 85,000."""
check_size = partial(whole_number, least=PATCH, most=MAX_SIZE)
"""Check of the shorter side, as in `settings`."""


check_rotation = partial(number, least=0, most=45)
"""Check of the largest rotation, in degrees, as in `settings`."""


def check_zoom(name: str, value: Any) -> tuple[float, float]:
    """Check of a range of zooms, as in `settings`."""
    what = f"[smallest, largest] factor, 1 to {MAX_ZOOM}"
    smallest, largest = several(name, value, 2, what, partial(number, least=1, most=MAX_ZOOM))
    if smallest > largest:
        raise SettingError(name, f"is {what}, found {list(value)}.")
    return smallest, largest


def network_size(height: int, width: int, size: int, patch: int = PATCH) -> tuple[int, int]:
    """The size (h, w) at which the network sees an image of `height` × `width`.

    Both sides are multiples of `patch` and at least `size`; the aspect is as close to the image's as rounding allows.
    """
    scale = size / min(height, width)
    sides = (patch * round(scale * side / patch) for side in (height, width))
    h, w = (side if side >= size else side + patch for side in sides)
    return h, w


def crop_of(size: int, crop: Sequence[int] | Literal["square"] | None, patch: int = PATCH) -> tuple[int, int] | None:
    """The crop (h, w) that is meant: "square" is the largest square that fits into every image at network size.

    Raises:
        SettingError: `crop` is neither a size in multiples of `patch`, nor "square" or None.
    """
    if crop is None:
        return None
    if isinstance(crop, str) and crop == "square":
        return network_size(1, 1, size, patch)
    what = f"[height, width] in multiples of {patch}, square for the size's own, or null for the whole image"
    height, width = several("crop", crop, 2, what, partial(whole_number, least=patch, multiple_of=patch))
    return height, width


def check_cost(height: int, width: int, size: int, patch: int = PATCH) -> None:
    """Refuse an image so narrow that a shorter side of `size` makes it huge: attention is quadratic in its tokens.

    Raises:
        BrokenError: it takes more than `MAX_TOKENS`.
    """
    h, w = network_size(height, width, size, patch)
    tokens, most = h * w // patch**2, max(MAX_TOKENS, 4 * math.ceil(size / patch) ** 2)
    if tokens > most:
        rounded_down = MAX_TOKENS - math.isqrt(MAX_TOKENS)  # since the longer side may be rounded up by a patch
        enough = patch * math.isqrt(rounded_down * min(height, width) // max(height, width))
        lower = f"Choose data.size={enough} or less, or" if enough else "Leave it out, or"
        raise BrokenError(
            f"expected an image that takes the network at most {most:,} tokens, found {tokens:,}: data.size={size} "
            f"resizes {height}×{width} to {h}×{w} (h×w). {lower} cut it into pieces."
        )


def network_image(image: np.ndarray, size: int, patch: int = PATCH) -> np.ndarray:
    """Resize an (h, w, 3) uint8 image as the reference does: (h', w', 3) float32, in [0, 1] except for overshoot.

    Raises:
        BrokenError: see `check_cost`; NumPy's and OpenCV's own errors pass through.
    """
    height, width = image.shape[:2]
    check_cost(height, width, size, patch)
    h, w = network_size(height, width, size, patch)
    scaled = np.divide(image, 255, dtype=np.float32)
    resized: np.ndarray = cv2.resize(scaled, (w, h), interpolation=cv2.INTER_CUBIC)
    return resized


class EvaluationTransform:
    """Resize the image to the network's size; the ground truth is unchanged, and the prediction is resized to it.

    The intrinsics follow the image.
    """

    def __init__(self, size: int = 518, patch: int = PATCH, canonical: Canonical | None = None) -> None:
        self.size, self.patch, self.canonical = check_size("size", size), patch, canonical

    def __call__(self, sample: DepthSample) -> DepthSample:
        """Replace the uint8 image by a float32 one at `network_size`.

        Raises:
            ValueError: see `network_image`; a camera that `canonical` needs is unknown.
        """
        if self.canonical is not None:
            sample = self.canonical.known(sample)
        with naming(sample.id, "an image that can be resized"):
            image = network_image(sample.image, self.size, self.patch)
        intrinsics = camera.rescaled(sample.intrinsics, sample.image.shape[:2], image.shape[:2])
        return sample._replace(image=image, intrinsics=intrinsics)


class TrainTransform:
    """Resize, random crop, flip and custom transforms, determined by the seed alone.

    Args:
        size: what the shorter side is resized to, see `network_size`.
        crop: (h, w) of the crop in network pixels, multiples of `patch`; "square" for the size's own square, see
            `crop_of`; None for the whole image.
        flip_probability: share of the samples that are mirrored.
        transforms: albumentations transforms or compatible ones, applied after the flip. Geometric ones move image and
            depth together; areas that they uncover should be filled with 0, which is a hole. After these the camera
            is unknown. `ColourNoise` changes the colours of a whole batch at once, on the device.
        patch: side of the encoder's patches.
        canonical: the canonical camera at whose focal length metres are given; None for metres as they are.
        zoom: (smallest, largest) factor, 1 or above, by which a random part of the image is enlarged; uniform in its
            logarithm. Metres are divided by it, as they must look, unless there is a canonical camera.
        rotation_deg: the camera turns about its optical axis by up to ± this angle, see `rotated`.

    Raises:
        SettingError: an argument is out of range, or a transform loses the camera that `canonical` needs.
        ValueError: for a sample, a crop larger than the resized image, or a transform that returns another type.
    """

    def __init__(
        self,
        size: int = 518,
        crop: Sequence[int] | Literal["square"] | None = "square",
        flip_probability: float = 0.5,
        transforms: Sequence[A.BasicTransform] = (),
        patch: int = PATCH,
        canonical: Canonical | None = None,
        zoom: Sequence[float] = (1, 1),
        rotation_deg: float = 0,
    ) -> None:
        self.size, self.patch = check_size("size", size), patch
        self.zoom, self.rotation_deg = check_zoom("zoom", zoom), check_rotation("rotation_deg", rotation_deg)
        self.crop = crop_of(self.size, crop, patch)
        self.flip_probability = check_share("flip_probability", flip_probability)
        self.transforms = transforms
        self.augment = _compose(transforms) if transforms else None
        moving = [type(transform).__name__ for transform in transforms if _is_geometric(transform)]
        self.keeps_camera, self.canonical = not moving, canonical
        if moving and canonical is not None:
            raise SettingError(
                "transforms",
                f"may not move pixels with camera=canonical, which needs the focal length; found {moving[0]}. "
                "augmentation=camera zooms, crops and rotates with a known camera.",
            )

    def __call__(self, sample: DepthSample, seed: int) -> DepthSample:
        """An (h, w, 3) uint8 image with its target and mask at the crop's size."""
        rng = np.random.default_rng(seed)
        if self.canonical is not None:
            sample = self.canonical.known(sample)
        smallest, largest = self.zoom
        zoom = float(np.exp(rng.uniform(np.log(smallest), np.log(largest)))) if largest > 1 else 1.0
        sample = resized_crop(sample, self.size, self.crop, rng, self.patch, zoom)._replace(seed=seed)
        if self.canonical is None and zoom > 1 and sample.kind == DepthKind.METRES:
            sample = sample._replace(target=sample.target / np.float32(zoom))
        if self.rotation_deg:
            sample = rotated(sample, rng.uniform(-self.rotation_deg, self.rotation_deg))
        if self.flip_probability and rng.random() < self.flip_probability:
            # A view; collating copies it.
            image, target, mask = (array[:, ::-1] for array in (sample.image, sample.target, sample.mask))
            intrinsics = camera.mirrored(sample.intrinsics, image.shape[1])
            sample = sample._replace(image=image, target=target, mask=mask, intrinsics=intrinsics)
        if self.canonical is not None:
            sample = self.canonical.target(sample)
        if self.augment is None:
            return sample
        # All transforms share one pair of generators: set_random_seed would give each its own with the same seed, and
        # those with the same p would all be applied or all be left out.
        self.augment.set_random_state(rng, random.Random(seed))
        image, target, mask = map(np.ascontiguousarray, sample[:3])  # OpenCV does not accept mirrored views
        augmented = self.augment(image=image, target=target, valid=mask.astype(np.uint8))
        image, target, valid = augmented["image"], augmented["target"], augmented["valid"]
        self._check(image, target, valid)
        intrinsics = sample.intrinsics if self.keeps_camera else camera.UNKNOWN
        return sample._replace(image=image, target=target, mask=valid.astype(bool), intrinsics=intrinsics)

    def _check(self, image: Any, target: Any, valid: Any) -> None:
        """Refuse what a transform returns that the network would take for another image.

        Raises:
            ValueError: the image is not (h, w, 3) uint8, or target and mask have another size.
        """
        names = ", ".join(type(transform).__name__ for transform in self.transforms)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise ValueError(
                "data.augmentation needs transforms that return an image as (h, w, 3) uint8, found "
                f"{tuple(image.shape)} {image.dtype} after {names}. Leave out those that normalise or convert it: the "
                "network normalises its input itself."
            )
        if not image.shape[:2] == target.shape == valid.shape:
            raise ValueError(
                "data.augmentation needs transforms that change image, target and mask alike, found sizes of "
                f"{image.shape[:2]}, {target.shape} and {valid.shape} after {names}."
            )


def is_augmentation(name: str) -> bool:
    """Whether an import path names a transform or composition of albumentations."""
    package, _, attribute = name.partition(".")
    named = getattr(A, attribute, None) if package == "albumentations" else None
    return isinstance(named, type) and issubclass(named, A.BasicTransform | A.BaseCompose)


def _is_geometric(transform: A.BasicTransform | A.BaseCompose) -> bool:
    """Whether a transform may move pixels: all but those of albumentations that change colours alone."""
    if isinstance(transform, A.BaseCompose):
        return any(map(_is_geometric, transform.transforms))
    return not isinstance(transform, A.ImageOnlyTransform)


def _compose(transforms: Sequence[A.BasicTransform]) -> A.Compose:
    return A.Compose(list(transforms), additional_targets={"target": "mask", "valid": "mask"})


def resized_crop(
    sample: DepthSample,
    size: int,
    crop: Sequence[int] | None,
    rng: np.random.Generator,
    patch: int = PATCH,
    zoom: float = 1.0,
) -> DepthSample:
    """A random crop of the sample at network size, made by resizing only that part of the image.

    The crop starts at a whole pixel of the original. Its scale is exactly that of resizing the full image, times
    `zoom`, 1 or above, which multiplies the focal length and leaves the depth as it is. The target may differ in size
    from the image if the aspect is the same. A crop without a valid pixel is drawn again, up to `CROP_DRAWS` times; the
    last one is kept regardless.
    """
    height, width = sample.image.shape[:2]
    full_h, full_w = network_size(height, width, size, patch)
    if crop is None:
        with naming(sample.id, "an image that can be resized"):
            check_cost(height, width, size, patch)
    h, w = crop or (full_h, full_w)
    if h > full_h or w > full_w:
        raise ValueError(
            f"{sample.id}: a crop of {h}×{w} does not fit into {full_h}×{full_w}, to which data.size={size} resizes "
            f"this image of {height}×{width}. Choose a smaller data.crop or a larger data.size."
        )
    zoomed_h, zoomed_w = full_h * zoom, full_w * zoom
    scale_y, scale_x = zoomed_h / height, zoomed_w / width
    source_h, source_w = math.ceil(h * height / zoomed_h), math.ceil(w * width / zoomed_w)
    ratio_y, ratio_x = sample.target.shape[0] / height, sample.target.shape[1] / width
    for _ in range(CROP_DRAWS):
        top, left = rng.integers(height - source_h + 1), rng.integers(width - source_w + 1)
        corner, scale = (top * ratio_y, left * ratio_x), (scale_y / ratio_y, scale_x / ratio_x)
        target, mask = _resized_target(sample, corner, scale, (h, w))
        if mask.any():
            break
    source = sample.image[top : top + source_h, left : left + source_w]
    image = cv2.resize(source, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_CUBIC)[:h, :w]
    intrinsics = camera.resized(camera.cropped(sample.intrinsics, left, top), scale_x, scale_y)
    return sample._replace(image=image, target=target, mask=mask, intrinsics=intrinsics)


def _resized_target(
    sample: DepthSample, corner: tuple[float, float], scale: tuple[float, float], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Target and mask of `size` (h, w): the part of the sample's target from `corner` (y, x) on, resized by `scale`.

    Nearest neighbour. Each sparse point goes to the pixel it falls into; none is duplicated, and of two in one pixel
    the nearer is kept.
    """
    (y0, x0), (scale_y, scale_x), (h, w) = corner, scale, size
    if not is_sparse(sample.mask):
        rows = (y0 + (np.arange(h) + 0.5) / scale_y).astype(int)
        columns = (x0 + (np.arange(w) + 0.5) / scale_x).astype(int)
        # All indices are in range; "wrap" is merely the fastest mode.
        target, mask = (array.take(rows, 0).take(columns, 1, mode="wrap") for array in (sample.target, sample.mask))
        return target, mask
    y, x = np.nonzero(sample.mask)
    row, column = np.floor((y + 0.5 - y0) * scale_y).astype(int), np.floor((x + 0.5 - x0) * scale_x).astype(int)
    return scattered(sample.target[y, x], row, column, size, sample.kind)

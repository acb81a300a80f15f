"""The data passed from files to the loss: samples, batches, and the kinds of depth."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from depth_lightning import camera


class DepthKind(IntEnum):
    """What the values of a ground truth mean. A data set declares it once; loss and protocol use it."""

    METRES = 0
    UP_TO_SCALE = 1
    """Depth times an unknown factor, as from structure from motion."""
    DISPARITY = 2
    """a / depth + b with unknown a > 0 and b, as from uncalibrated stereo and Depth Anything."""


class DepthSample(NamedTuple):
    """One image with its ground truth, as NumPy arrays."""

    image: np.ndarray
    """(h, w, 3) RGB: uint8, or float32 in [0, 1]. Once transformed for evaluation, smaller than the target."""
    target: np.ndarray
    """(h, w) float32, in what `kind` says; 0 where unknown."""
    mask: np.ndarray
    """(h, w) bool, True where the target is valid."""
    kind: DepthKind
    id: str
    """The image's name in reports: its path below the data set's root. Loaders pass it on as `printable`."""
    scene: str = ""
    """Frames of one scene are not independent; empty if scenes are not known."""
    seed: int = 0
    """Seed of the random changes that are applied on the device; set by the training transform."""
    intrinsics: np.ndarray = camera.UNKNOWN
    """(4,) float32: fx, fy, cx, cy in pixels of `image`, see `camera`; NaN where unknown. Those of a target of another
    size are `camera.resized` by the ratio of the sizes."""


class DepthBatch(NamedTuple):
    """Samples of one size, stacked, as tensors."""

    image: Tensor
    """(b, 3, h, w) RGB: uint8, or float32 in [0, 1]; not yet ImageNet-normalised."""
    target: Tensor
    """(b, h, w) float32, in what `kind` says; 0 where unknown."""
    mask: Tensor
    """(b, h, w) bool."""
    intrinsics: Tensor
    """(b, 4) float32: fx, fy, cx, cy in pixels of `image`, see `camera`; NaN where unknown."""
    kind: Sequence[DepthKind]
    """One per image, on the host, so that choosing a loss by kind needs no device sync."""
    id: Sequence[str]
    scene: Sequence[str]
    seed: Sequence[int] = ()

    @property
    def target_intrinsics(self) -> Tensor:
        """(b, 4) float32: fx, fy, cx, cy in pixels of `target`, which may be larger than `image`."""
        (h, w), (target_h, target_w) = self.image.shape[-2:], self.target.shape[-2:]
        return camera.rescaled(self.intrinsics, (h, w), (target_h, target_w))


class DepthDataset(Protocol):
    """The interface of data sets: a length, and samples as on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> DepthSample:
        """The image as (h, w, 3) uint8 RGB and its target, untransformed; files are opened here, in the worker."""
        ...


def collate(samples: Sequence[DepthSample]) -> DepthBatch:
    """Stack samples into a batch; no samples give an empty batch.

    Raises:
        ValueError: the images or the targets differ in size; the message lists the sizes with their ids.
    """
    for field in ("image", "target"):
        shapes = {getattr(sample, field).shape for sample in samples}
        if len(shapes) > 1:
            sizes = ", ".join(f"{sample.id} {getattr(sample, field).shape}" for sample in samples[:4])
            raise ValueError(
                f"A batch needs {field}s of one size, found {sizes}. Set a data.crop for training, "
                "or data.eval_batch_size=1 for evaluation."
            )
    if not samples:
        nothing = torch.empty(0, 1, 1)
        image = nothing[:, None].expand(-1, 3, -1, -1)
        return DepthBatch(image, nothing, nothing.bool(), torch.empty(0, 4), (), (), ())
    return DepthBatch(
        image=torch.stack([torch.from_numpy(np.ascontiguousarray(s.image.transpose(2, 0, 1))) for s in samples]),
        target=torch.stack([torch.from_numpy(np.ascontiguousarray(s.target)) for s in samples]),
        mask=torch.stack([torch.from_numpy(np.ascontiguousarray(s.mask)) for s in samples]),
        intrinsics=torch.from_numpy(np.stack([s.intrinsics for s in samples])),
        kind=tuple(s.kind for s in samples),
        id=tuple(s.id for s in samples),
        scene=tuple(s.scene for s in samples),
        seed=tuple(s.seed for s in samples),
    )

"""How an export changes the metrics: the same images scored with the network and with its export."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from depth_lightning import camera
from depth_lightning.data import DepthDataModule
from depth_lightning.inference.export import Runner, network_runner
from depth_lightning.metrics import DepthMetrics
from depth_lightning.models import DepthAnythingV2
from depth_lightning.sample import collate
from depth_lightning.training import DepthModule
from depth_lightning.training.module import in_metres


class Rescored(NamedTuple):
    """Name → error, of the network and its export."""

    network: dict[str, float]
    export: dict[str, float]
    images: int


@torch.inference_mode()
def rescore(
    network: DepthAnythingV2,
    exported: Runner,
    data: DepthDataModule,
    metrics: Callable[[], DepthMetrics],
    images: int,
    only_size: Sequence[int] | None = None,
) -> Rescored:
    """Score both on up to `images` validation images, evenly spaced.

    Args:
        network: on the CPU; it gets the images as in evaluation.
        exported: runs the export.
        data: its validation split is used.
        metrics: creates new metrics under the protocol.
        images: the largest number of images.
        only_size: the (h, w) to which images are resized for the export, if it accepts only that size.
    """
    images = min(len(data.val_data), images)
    modules = [DepthModule(network, metrics()).eval() for _ in range(2)]
    for index in torch.linspace(0, len(data.val_data) - 1, images).long().tolist():
        batch = collate([data.val_data[index]])
        resized = batch.image if only_size is None else F.interpolate(batch.image, tuple(only_size), mode="bicubic")
        (old_h, old_w), (h, w) = batch.image.shape[-2:], resized.shape[-2:]
        seen = batch._replace(intrinsics=camera.rescaled(batch.intrinsics, (old_h, old_w), (h, w)))
        predictions = (
            in_metres(network, network_runner(network)(batch.image), batch),
            in_metres(network, exported(resized), seen),
        )
        for module, prediction in zip(modules, predictions, strict=True):
            upsampled = module.metrics.protocol.upsampled(prediction, *batch.target.shape[-2:])
            module.score_depth(module.metrics, batch, upsampled)
    ours, theirs = ({name: float(e) for name, e in module.metrics.compute().items()} for module in modules)
    return Rescored(ours, theirs, images)

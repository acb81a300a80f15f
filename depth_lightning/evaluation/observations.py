"""Predictions beside the measured truth of a few pixels per image."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch

from depth_lightning.camera import fov_of
from depth_lightning.sample import DepthBatch, DepthKind, DepthSample, collate
from depth_lightning.training import DepthModule

PIXELS = 512
"""Most pixels of an image, drawn at random; of fewer valid ones, all."""


class Observations(NamedTuple):
    """Pixels with a prediction and its truth."""

    prediction: np.ndarray
    """(n,) metres, or disparity."""
    depth_m: np.ndarray
    """(n,) truth."""
    image: np.ndarray
    """(n,) which image, from 0."""
    scene: Sequence[str]
    """Of every image; empty where unknown."""
    fov_deg: np.ndarray
    """(images,) field of view across the longer side; NaN where the camera is unknown."""
    id: Sequence[str]
    """Of every image."""

    def of_images(self, images: np.ndarray) -> "Observations":
        """Those of the images of a (images,) bool mask; images keep their numbers."""
        kept = images[self.image]
        return self._replace(prediction=self.prediction[kept], depth_m=self.depth_m[kept], image=self.image[kept])


@torch.inference_mode()
def observe(module: DepthModule, samples: Iterable[DepthSample], device: torch.device) -> Observations:
    """Predict samples one by one, and keep up to `PIXELS` pixels of each that count under the module's protocol.

    Args:
        module: with a network that predicts metres or disparity.
        samples: transformed for evaluation. Those without a pixel that counts are left out.
        device: on which to predict.

    Raises:
        ValueError: the truth of a sample is not in metres.
    """
    module = module.eval().to(device)
    rng = np.random.default_rng(0)
    parts, scenes, fovs_deg = list[tuple[np.ndarray, np.ndarray]](), list[str](), list[float]()
    ids = list[str]()
    for sample in samples:
        if sample.kind != DepthKind.METRES:
            kind = sample.kind.name.lower()
            raise ValueError(f"{sample.id}: expected truth in metres, found data.kind={kind}. Choose other data.")
        batch = cast(DepthBatch, module.transfer_batch_to_device(collate([sample]), device, 0))
        valid = module.metrics.protocol.valid(batch.target, batch.mask).flatten().nonzero().cpu().numpy()[:, 0]
        if not valid.size:
            continue
        pixels = rng.choice(valid, min(PIXELS, len(valid)), replace=False)
        predicted = module.predict_batch(batch).flatten()[torch.from_numpy(pixels).to(device)]
        parts.append((predicted.double().cpu().numpy(), sample.target.ravel()[pixels].astype(float)))
        scenes.append(sample.scene)
        ids.append(sample.id)
        fovs_deg.append(fov_of(sample.intrinsics, sample.image.shape[:2]))
    predictions, depths = (np.concatenate([np.empty(0), *(part[which] for part in parts)]) for which in (0, 1))
    image = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    return Observations(predictions, depths, image, scenes, np.array(fovs_deg), ids)

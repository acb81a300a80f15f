"""Alternative implementations, with our weights loaded."""

import sys
import tempfile
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from depth_lightning.models import DepthAnythingV2, save_weights


class TransformersDepth(nn.Module):
    """transformers' DepthAnythingForDepthEstimation, from image to (b, h, w)."""

    def __init__(self, network: DepthAnythingV2) -> None:
        super().__init__()
        from transformers import DepthAnythingForDepthEstimation
        from transformers.utils import logging

        logging.disable_progress_bar()

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peer"
            save_weights(network, path, layout="transformers")
            self.model = DepthAnythingForDepthEstimation.from_pretrained(path)

    def forward(self, image: Tensor) -> Tensor:
        """Depth of ImageNet-normalised images, at their resolution."""
        return cast(Tensor, self.model(pixel_values=image).predicted_depth)


class OfficialDepth(nn.Module):
    """The official repository's model, from image to (b, h, w).

    Args:
        checkout: a clone of github.com/DepthAnything/Depth-Anything-V2.
        network: provides the weights; relative, like the repository's top-level code.
    """

    def __init__(self, checkout: Path, network: DepthAnythingV2) -> None:
        super().__init__()
        sys.path.insert(0, str(checkout))
        from depth_anything_v2.dpt import DepthAnythingV2 as Official  # type: ignore[import-not-found]

        out_channels = [project.out_channels for project in network.head.projects]
        features = network.head.scratch.output_conv1.in_channels
        self.model = Official(encoder=network.encoder_name, features=features, out_channels=out_channels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peer.pth"
            save_weights(network, path, layout="official")
            self.model.load_state_dict(torch.load(path, weights_only=True))

    def forward(self, image: Tensor) -> Tensor:
        """Disparity of ImageNet-normalised images, at their resolution."""
        return cast(Tensor, self.model(image))

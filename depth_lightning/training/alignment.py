"""Alignment of a student's features to those of a frozen encoder, which is no part of what is trained or saved."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from depth_lightning.losses import FeatureAlignmentLoss
from depth_lightning.models import DepthAnythingV2, LoadReport, load_weights, resolve_weights
from depth_lightning.models.encoders import outline
from depth_lightning.settings import SettingError, number, text


class FeatureAlignment(nn.Module):
    """`FeatureAlignmentLoss` between a student's last features and a frozen encoder's of the same image.

    The frozen encoder has random weights until `load`. It is in neither `parameters()` nor `state_dict()`, so that
    checkpoints, optimizers and DDP do not see it, and copies of this module share it.

    Args:
        student: name of the trained encoder.
        encoder: name of the frozen encoder.
        weights: of the frozen encoder: a path or hub id, see `load_weights`.
        weight: factor of the loss.
        tolerance: see `FeatureAlignmentLoss`.

    Raises:
        SettingError: an argument is out of range, or there are no weights.
    """

    def __init__(
        self, student: str, encoder: str, weights: str | None, weight: float = 1.0, tolerance: float = 0.85
    ) -> None:
        super().__init__()
        if weights is None:
            raise SettingError(
                "weights", "is missing: random features are nothing to align to. Or type loss.alignment=null."
            )
        self.weights = text("weights", weights, "a path or a hub id")
        self.weight = number("weight", weight, above=0, most=1e6)
        ours, frozen = outline(student), outline(encoder)
        if ours.patch != frozen.patch:
            raise SettingError(
                "encoder",
                f"has patches of {frozen.patch} pixels, and {student} of {ours.patch}: choose one of {ours.patch}.",
            )
        self.loss = FeatureAlignmentLoss(ours.width, frozen.width, tolerance)
        network = DepthAnythingV2(encoder, output="relative").eval().requires_grad_(False)
        self._frozen: Callable[[], DepthAnythingV2] = lambda: network  # a module as an attribute would be registered

    def load(self) -> LoadReport:
        """Load the frozen encoder's weights.

        Raises:
            OSError, ValueError: see `resolve_weights` and `load_weights`.
        """
        return load_weights(self._frozen(), resolve_weights(self.weights), init="encoder")

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """The weighted loss of the student's (b, patches, width) features.

        `image` is what the student has seen: (b, 3, h, w), ImageNet-normalised.
        """
        encoder = self._frozen().encoder.to(image.device)
        with torch.no_grad():
            frozen = encoder(image)[-1][:, encoder.prefix_tokens :]
        value: Tensor = self.weight * self.loss(features, frozen)
        return value

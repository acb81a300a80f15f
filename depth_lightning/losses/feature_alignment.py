"""Feature alignment (Depth Anything, Yang et al., 2024, arXiv:2401.10891, section 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_lightning.settings import number, whole_number


class FeatureAlignmentLoss(nn.Module):
    """1 − cos(f, f′) between the features of two encoders of the same image, averaged over its patches.

    Patches whose cosine already exceeds `tolerance` do not count: a part of an object may have another depth than the
    rest, and its features must be free to differ. Every image is averaged over its remaining patches; an image without
    any counts as 0. Cosines are computed in float32 under any autocast.

    Args:
        width: channels of the trained encoder's features.
        frozen_width: of the frozen encoder's; where it differs, a linear projector that learns maps `width` to it.
        tolerance: α, in (0, 1].

    Raises:
        SettingError: an argument is out of range.

    >>> features = torch.eye(3)[None]
    >>> FeatureAlignmentLoss(3, 3)(features, features.flip(1)).item()
    1.0
    """

    def __init__(self, width: int, frozen_width: int, tolerance: float = 0.85) -> None:
        super().__init__()
        width, frozen_width = whole_number("width", width), whole_number("frozen_width", frozen_width)
        self.tolerance = number("tolerance", tolerance, above=0, most=1)
        self.projector = nn.Linear(width, frozen_width) if width != frozen_width else nn.Identity()

    def forward(self, features: Tensor, frozen: Tensor) -> Tensor:
        """Loss of (b, patches, width) features against (b, patches, frozen_width) ones, which get no gradient."""
        projected = self.projector(features)
        with torch.autocast(features.device.type, enabled=False):
            cosine = F.cosine_similarity(projected.float(), frozen.detach().float(), dim=-1)
            counted = cosine <= self.tolerance
            per_image = torch.where(counted, 1 - cosine, 0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
            return per_image.mean()

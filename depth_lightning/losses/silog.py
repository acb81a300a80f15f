"""Scale-invariant logarithmic loss (Eigen, Puhrsch and Fergus, 2014), in the form Depth Anything V2 trains with."""

import torch
from torch import Tensor, nn

from depth_lightning.settings import boolean, number


class SiLogLoss(nn.Module):
    """√(E[d²] − λ·E[d]²) with d = log target − log prediction, over all valid pixels of the batch together.

    λ = 0 is the root mean square log error, λ = 1 ignores a common factor of the prediction entirely, and the
    usual λ = 0.5 lies between. Computed in float32 under any autocast. With no valid pixel, or an exact
    prediction, both the loss and its gradient are 0.

    Pooled like this, the average over parts of a batch (devices, accumulated batches) is not the loss of the full
    batch; see `Objective` for an exact form. Per image it is, but then λ forgives each image its own factor.

    Args:
        variance_focus: λ, in [0, 1]. BTS and ZoeDepth train with 0.85.
        factor: factor of the loss; 10 in BTS and ZoeDepth. Matters only beside other losses and for gradient clipping.
        per_image: take the root per image and average over the images; those without a valid pixel count as 0.

    Raises:
        SettingError: an argument is out of range.

    >>> depth_m = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    >>> loss = SiLogLoss(variance_focus=1.0)
    >>> loss(1.1 * depth_m + (depth_m == 0), depth_m, depth_m > 0).item() < 1e-3
    True
    """

    def __init__(self, variance_focus: float = 0.5, factor: float = 1.0, per_image: bool = False) -> None:
        super().__init__()
        self.variance_focus = number("variance_focus", variance_focus, least=0, most=1)
        self.factor = number("factor", factor, above=0, most=1e6)
        self.per_image = boolean("per_image", per_image)

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of (b, h, w) positive predictions against positive targets, where mask is True."""
        with torch.autocast(prediction.device.type, enabled=False):
            # Filling instead of indexing keeps shapes static: no host sync, and a graph that compiles.
            one = prediction.new_ones((), dtype=torch.float32)
            difference = torch.where(mask, target, one).log() - torch.where(mask, prediction.float(), one).log()
            over = (1, 2) if self.per_image else (0, 1, 2)
            count = mask.sum(dim=over, keepdim=True).clamp(min=1)
            mean = difference.sum(dim=over, keepdim=True) / count
            # E[d²] − E[d]² as a sum of squares: at λ = 1 the difference would suffer from cancellation.
            variance = torch.where(mask, (difference - mean).square(), 0).sum(dim=over, keepdim=True) / count
            return self.factor * _root(variance + (1 - self.variance_focus) * mean.square()).mean()


def _root(square: Tensor) -> Tensor:
    """√x with a gradient of 0, not infinity, at 0; NaN stays NaN."""
    positive = ~(square <= 1e-12)
    return torch.where(positive, square, 1).sqrt() * positive

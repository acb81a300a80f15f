"""The plain losses on metric depth used as baselines in papers, over all valid pixels of the batch together.

All compute in float32 under any autocast; with no valid pixel, both the loss and its gradient are 0.
"""

import torch
from torch import Tensor, nn

from depth_lightning.losses.terms import with_terms


class L1Loss(nn.Module):
    """E[|p − t|], in the unit of the target.

    >>> depth_m = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    >>> L1Loss()(depth_m + 0.5, depth_m, depth_m > 0)
    tensor(0.5000)
    """

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of (b, h, w) predictions against targets, where mask is True."""
        prediction, target = _filled(prediction, target, mask)
        return _mean((prediction - target).abs(), mask)


class L2Loss(nn.Module):
    """E[(p − t)²], the mean square without a root, in the square of the target's unit.

    >>> depth_m = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    >>> L2Loss()(depth_m + 0.5, depth_m, depth_m > 0)
    tensor(0.2500)
    """

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of (b, h, w) predictions against targets, where mask is True."""
        prediction, target = _filled(prediction, target, mask)
        return _mean((prediction - target).square(), mask)


class LogL1Loss(nn.Module):
    """E[|ln p − ln t|]: near and far count alike.

    >>> depth_m = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]])
    >>> LogL1Loss()(depth_m * torch.e, depth_m, depth_m > 0)
    tensor(1.)
    """

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of (b, h, w) positive predictions against positive targets, where mask is True."""
        prediction, target = _filled(prediction, target, mask)
        return _mean((prediction.log() - target.log()).abs(), mask)


class OfInverse(nn.Module):
    """Applies another loss to 1 / prediction and 1 / target: a disparity loss for networks and ground truth in depth.

    Args:
        loss: called with (b, h, w) disparities (larger is nearer), 0 where mask is False, and the mask.

    >>> from depth_lightning.losses import AffineInvariantLoss
    >>> depth_m = torch.rand(2, 8, 8) + 1
    >>> loss = OfInverse(AffineInvariantLoss())
    >>> loss(1 / (3 / depth_m + 5), depth_m, depth_m > 0).item() < 1e-4
    True
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of (b, h, w) positive predictions against positive targets, where mask is True."""
        return self.with_terms(prediction, target, mask)[0]

    def with_terms(self, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the terms of the other loss."""
        disparity, target_disparity = (torch.where(mask, 1 / depth, 0) for depth in _filled(prediction, target, mask))
        return with_terms(self.loss, disparity, target_disparity, mask)


def _filled(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, and 1 in holes: filled, not indexed, so that shapes stay static and no sync is needed."""
    # Autocast runs none of the operations that follow in 16 bits.
    return torch.where(mask, prediction.float(), 1), torch.where(mask, target.float(), 1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid pixels of values that are 0 elsewhere; 0 without a valid pixel."""
    return values.sum() / mask.sum().clamp(min=1)

"""Scale- and shift-invariant loss with gradient matching (Ranftl et al., MiDaS, 2020), for relative depth."""

import torch
from torch import Tensor, nn

from depth_lightning.affine import normalised
from depth_lightning.settings import number, whole_number


class AffineInvariantLoss(nn.Module):
    """L1 between two disparity maps, each normalised per image to median 0 and mean absolute deviation 1.

    Gradient matching is added: the L1 norm of the gradient of their difference at several scales. The loss is
    unchanged if the prediction is replaced by a·prediction + b with a > 0. Images without a valid pixel do not
    count; an image with a single valid pixel, or a constant one, gives finite values. Computed in float32
    under any autocast, since sums over 518² pixels overflow in float16.

    Args:
        gradient_weight: weight of the gradient matching term; Depth Anything V2 weighs it 2 : 1. 0 disables it.
        scales: number of scales in gradient matching, with strides 1, 2, 4, …
        trim: share of each image's largest residuals that the L1 term leaves out, in [0, 1). Depth Anything V2 drops
            0.1 on pseudo-labels; measured ground truth is better kept in full.

    Raises:
        SettingError: an argument is out of range.

    >>> disparity = torch.rand(2, 8, 8)
    >>> loss = AffineInvariantLoss()
    >>> loss(3 * disparity + 5, disparity, torch.ones(2, 8, 8, dtype=torch.bool)).item() < 1e-4
    True
    """

    def __init__(self, gradient_weight: float = 2.0, scales: int = 4, trim: float = 0.0) -> None:
        super().__init__()
        self.gradient_weight = number("gradient_weight", gradient_weight, least=0, most=1e6)
        self.scales = whole_number("scales", scales, most=16)
        self.trim = number("trim", trim, least=0, below=1)

    def forward(self, disparity: Tensor, target_disparity: Tensor, mask: Tensor) -> Tensor:
        """Mean over the images that have a valid pixel, of (b, h, w) disparities; larger is nearer."""
        return self.with_terms(disparity, target_disparity, mask)[0]

    def with_terms(self, disparity: Tensor, target_disparity: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms "l1" and "gradient", weighted and detached, which add up to it."""
        with torch.autocast(disparity.device.type, enabled=False):
            residual = normalised(disparity.float(), mask) - normalised(target_disparity.float(), mask)
            residual = torch.where(mask, residual, 0)
            per_image = {"l1": l1_per_image(residual, mask, self.trim)}
            if self.gradient_weight:
                matching = gradient_matching_per_image(residual, mask, self.scales)
                per_image["gradient"] = self.gradient_weight * matching
            images = mask.flatten(1).any(dim=1)

            def mean(values: Tensor) -> Tensor:
                return torch.where(images, values, 0).sum() / images.sum().clamp(min=1)

            loss = mean(torch.stack([*per_image.values()]).sum(dim=0))
            return loss, {name: mean(values.detach()) for name, values in per_image.items()}


def l1_per_image(residual: Tensor, mask: Tensor, trim: float = 0.0) -> Tensor:
    """(b,) mean absolute residual over valid pixels, without the `trim` share of each image's largest."""
    absolute = residual.abs().flatten(1)
    count = mask.flatten(1).sum(dim=1)
    if trim:
        kept = (count * (1 - trim)).ceil().long()
        ascending = absolute.masked_fill(~mask.flatten(1), torch.inf).sort(dim=1).values
        rank = torch.arange(ascending.shape[1], device=ascending.device)
        absolute = torch.where(rank < kept[:, None], ascending, 0)
        count = kept
    return absolute.sum(dim=1) / count.clamp(min=1)


def gradient_matching_per_image(residual: Tensor, mask: Tensor, scales: int) -> Tensor:
    """(b,) sum over scales of |∂x r| + |∂y r| where both neighbours are valid, over that scale's valid pixels."""
    total = residual.new_zeros(residual.shape[0])
    for scale in range(scales):
        stride = 2**scale
        r, valid = residual[:, ::stride, ::stride], mask[:, ::stride, ::stride]
        across = torch.where(valid[:, :, 1:] & valid[:, :, :-1], r[:, :, 1:] - r[:, :, :-1], 0).abs()
        down = torch.where(valid[:, 1:] & valid[:, :-1], r[:, 1:] - r[:, :-1], 0).abs()
        total = total + (across.sum(dim=(1, 2)) + down.sum(dim=(1, 2))) / valid.sum(dim=(1, 2)).clamp(min=1)
    return total

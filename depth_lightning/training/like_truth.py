"""Predictions in the unit of their truth, for pictures and for errors."""

from torch import Tensor

from depth_lightning.metrics import align
from depth_lightning.metrics.alignment import Aligned
from depth_lightning.models import DepthAnythingV2
from depth_lightning.sample import DepthKind


def converted(network: DepthAnythingV2, prediction: Tensor, to_disparity: bool) -> Tensor:
    """Predictions of the network as disparity or as depth, whichever of the two it gives."""
    return prediction if to_disparity == (network.output == "relative") else 1 / prediction.clamp(min=1e-6)


def like_truth(network: DepthAnythingV2, prediction: Tensor, target: Tensor, mask: Tensor, kind: DepthKind) -> Aligned:
    """Predictions in the unit of their truth; fitted to it where the two have no unit in common.

    Args:
        network: of which they are.
        prediction: (b, h, w), as the network gives it.
        target: (b, h, w).
        mask: (b, h, w) bool.
        kind: of all targets.
    """
    if kind == DepthKind.DISPARITY:  # the same fit as in depth, of disparities
        return align(converted(network, prediction, to_disparity=True), target, mask, "scale_shift_depth")
    if network.output == "relative":
        return align(prediction, target, mask, "scale_shift_disparity")
    return align(prediction, target, mask, "scale_median_of_ratios" if kind == DepthKind.UP_TO_SCALE else "none")

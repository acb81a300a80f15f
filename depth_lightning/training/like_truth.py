"""Predictions in the unit of their ground truth, for pictures and errors."""

from torch import Tensor

from depth_lightning.metrics import align
from depth_lightning.metrics.alignment import Aligned
from depth_lightning.models import DepthAnythingV2
from depth_lightning.sample import DepthKind


def converted(network: DepthAnythingV2, prediction: Tensor, to_disparity: bool) -> Tensor:
    """The network's predictions as disparity or as depth, inverted if the network's output is the other one."""
    return prediction if to_disparity == (network.output == "relative") else 1 / prediction.clamp(min=1e-6)


def like_truth(network: DepthAnythingV2, prediction: Tensor, target: Tensor, mask: Tensor, kind: DepthKind) -> Aligned:
    """Predictions in the unit of their ground truth; aligned to it where the two share no unit.

    Args:
        network: that made the predictions.
        prediction: (b, h, w), the network's raw output.
        target: (b, h, w).
        mask: (b, h, w) bool, True = valid.
        kind: shared by all targets.
    """
    if kind == DepthKind.DISPARITY:  # the scale-and-shift fit is the same for disparities as for depths
        return align(converted(network, prediction, to_disparity=True), target, mask, "scale_shift_depth")
    if network.output == "relative":
        return align(prediction, target, mask, "scale_shift_disparity")
    return align(prediction, target, mask, "scale_median_of_ratios" if kind == DepthKind.UP_TO_SCALE else "none")

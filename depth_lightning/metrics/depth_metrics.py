"""The depth metrics as a torchmetrics class: per-image errors under a protocol, averaged over images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from depth_lightning.metrics.alignment import align
from depth_lightning.metrics.errors import ERRORS, ErrorFunction
from depth_lightning.metrics.per_image import PerImageMetrics
from depth_lightning.metrics.protocol import Protocol


class DepthMetrics(PerImageMetrics):
    """Errors of depth maps against truth in metres (or depth up to scale, with an alignment that finds it).

    `update` takes depth in the target's unit, and disparity for the alignment `scale_shift_disparity`.

    Args:
        protocol: what counts and how it is aligned.
        errors: names and functions to report; the standard eleven by default.

    >>> metrics = DepthMetrics(Protocol(max_depth=10.0))
    >>> target = torch.rand(2, 4, 4) + 1
    >>> metrics.update(1.1 * target, target, target > 0)
    >>> round(metrics.compute()["abs_rel"].item(), 3)
    0.1
    """

    def __init__(self, protocol: Protocol, errors: Mapping[str, ErrorFunction] = ERRORS, **kwargs: Any) -> None:
        super().__init__(errors, **kwargs)
        self.protocol = protocol

    def image_rows(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """One row an image: aligned, bounded and scored as the protocol says."""
        valid = self.protocol.valid(target, mask)
        aligned = align(prediction, target, valid, self.protocol.alignment)
        depth = self.protocol.bound(aligned.depth)
        errors = torch.stack([function(depth, target, valid) for function in self.errors.values()], dim=1)
        return self.with_status(errors, valid.flatten(1).any(dim=1), aligned.determined)

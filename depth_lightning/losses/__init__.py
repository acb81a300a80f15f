"""Training losses: called as loss(prediction, target, mask), with (b, h, w) tensors, and return a scalar."""

from depth_lightning.losses.affine_invariant import AffineInvariantLoss
from depth_lightning.losses.feature_alignment import FeatureAlignmentLoss
from depth_lightning.losses.plain import L1Loss, L2Loss, LogL1Loss, OfInverse
from depth_lightning.losses.silog import SiLogLoss
from depth_lightning.losses.terms import with_terms

__all__ = [
    "AffineInvariantLoss",
    "FeatureAlignmentLoss",
    "L1Loss",
    "L2Loss",
    "LogL1Loss",
    "OfInverse",
    "SiLogLoss",
    "with_terms",
]

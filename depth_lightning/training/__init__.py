"""Training: the LightningModule, its objective, its optimiser and schedules."""

from depth_lightning.training.alignment import FeatureAlignment
from depth_lightning.training.module import DepthModule
from depth_lightning.training.objective import Objective

__all__ = ["DepthModule", "FeatureAlignment", "Objective"]

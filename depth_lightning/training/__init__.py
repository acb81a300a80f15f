"""Training: the LightningModule, its objective, its optimiser and schedules, its callbacks."""

from depth_lightning.training.module import DepthModule, ValidationCounts, ValidationTables
from depth_lightning.training.objective import Objective

__all__ = ["DepthModule", "Objective", "ValidationCounts", "ValidationTables"]

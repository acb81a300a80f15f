"""Depth metrics: the arithmetic in pure functions, the protocol in one object, the state in one class."""

from depth_lightning.metrics.alignment import align
from depth_lightning.metrics.baseline import best_constant
from depth_lightning.metrics.depth_metrics import DepthMetrics, ImageCounts
from depth_lightning.metrics.errors import ERRORS, ErrorFunction
from depth_lightning.metrics.protocol import Protocol, crop_mask

__all__ = ["ERRORS", "DepthMetrics", "ErrorFunction", "ImageCounts", "Protocol", "align", "best_constant", "crop_mask"]

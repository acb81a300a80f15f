"""Depth metrics: the arithmetic in pure functions, the protocol in one object, the state in torchmetrics classes."""

from depth_lightning.metrics.affine_metrics import AffineMetrics
from depth_lightning.metrics.alignment import align
from depth_lightning.metrics.baseline import best_constant
from depth_lightning.metrics.boundary import boundary_f1
from depth_lightning.metrics.breakdowns import Breakdowns, PartMetrics, group_rows
from depth_lightning.metrics.depth_metrics import POOLED, DepthMetrics
from depth_lightning.metrics.errors import ERRORS, ErrorFunction, directions
from depth_lightning.metrics.intervals import Intervals, mean_intervals, units_of
from depth_lightning.metrics.normals import normals_mean
from depth_lightning.metrics.per_image import FACTS, ImageCounts, ImageTable, PerImageMetrics
from depth_lightning.metrics.points import points_chamfer, points_f1
from depth_lightning.metrics.protocol import Protocol, crop_mask, usual_crops

__all__ = [
    "ERRORS",
    "FACTS",
    "POOLED",
    "AffineMetrics",
    "Breakdowns",
    "DepthMetrics",
    "ErrorFunction",
    "ImageCounts",
    "ImageTable",
    "Intervals",
    "PartMetrics",
    "PerImageMetrics",
    "Protocol",
    "align",
    "best_constant",
    "boundary_f1",
    "crop_mask",
    "directions",
    "group_rows",
    "mean_intervals",
    "normals_mean",
    "points_chamfer",
    "points_f1",
    "units_of",
    "usual_crops",
]

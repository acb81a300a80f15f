"""From files to batches."""

from depth_lightning.data.datamodule import DepthDataModule
from depth_lightning.data.nyu import NYUDepthV2

__all__ = ["DepthDataModule", "NYUDepthV2"]

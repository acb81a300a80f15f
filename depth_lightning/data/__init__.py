"""From files to batches."""

from depth_lightning.data.datamodule import DepthDataModule
from depth_lightning.data.nyu import NYUDepthV2
from depth_lightning.data.rooms import RenderedRooms

__all__ = ["DepthDataModule", "NYUDepthV2", "RenderedRooms"]

"""From files to batches."""

from depth_lightning.data.datamodule import DepthDataModule
from depth_lightning.data.encoding import DepthEncoding
from depth_lightning.data.mixture import Mixture
from depth_lightning.data.nyu import NYUDepthV2
from depth_lightning.data.pairs import DepthPairs
from depth_lightning.data.rooms import RenderedRooms
from depth_lightning.data.shards import DepthShards

__all__ = ["DepthDataModule", "DepthEncoding", "DepthPairs", "DepthShards", "Mixture", "NYUDepthV2", "RenderedRooms"]

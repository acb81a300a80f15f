from depth_lightning.models.adapters import LoRA
from depth_lightning.models.checkpoints import LoadReport, load_weights, official_state_dict, save_weights
from depth_lightning.models.depth_anything import IMAGENET_MEAN, IMAGENET_STD, DepthAnythingV2, normalize
from depth_lightning.models.hub import RELEASES, Release, find_release, resolve_weights
from depth_lightning.models.provenance import Provenance, find_provenance

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RELEASES",
    "DepthAnythingV2",
    "LoRA",
    "LoadReport",
    "Provenance",
    "Release",
    "find_provenance",
    "find_release",
    "load_weights",
    "normalize",
    "official_state_dict",
    "resolve_weights",
    "save_weights",
]

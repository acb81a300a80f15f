"""An encoder by its name: one of Depth Anything V2, or of timm."""

from collections.abc import Sequence
from functools import cache

import torch

from depth_lightning.models.dinov2 import PATCH, DINOv2
from depth_lightning.models.encoder import Encoder
from depth_lightning.models.sizes import SIZES
from depth_lightning.models.timm_encoder import NAMED, TimmEncoder, timm_names
from depth_lightning.settings import SettingError, nearest


def is_encoder(name: object) -> bool:
    """Whether `build_encoder` takes this name."""
    return isinstance(name, str) and (name in SIZES or name.partition(".")[0] in timm_names())


def build_encoder(name: str, taps: Sequence[int] | None = None) -> Encoder:
    """The encoder with random weights.

    Args:
        name: one of `SIZES` or `timm_encoder.NAMED`, or of a vision transformer in timm.
        taps: the blocks to read, of an encoder of timm; by default chosen by its depth.

    Raises:
        SettingError: the name is unknown, or the encoder does not have such blocks.
    """
    if not is_encoder(name):
        own = [*SIZES, *NAMED]
        known = f"one of {', '.join(own)}, or the name of a vision transformer in timm"
        raise SettingError("encoder", f"is {known}, found {name!r}.{nearest(str(name), [*own, *timm_names()])}")
    if name not in SIZES:
        return TimmEncoder(name, taps)
    if taps is not None:
        published = list(SIZES[name].taps)
        raise SettingError("taps", f"are for encoders of timm; those of {name} are {published}, found {list(taps)}.")
    return DINOv2(SIZES[name])


@cache
def outline(name: str) -> Encoder:
    """The encoder without memory for its weights, on the meta device: for its patch, grid, width and blocks.

    Raises:
        SettingError: the name is unknown.
    """
    with torch.device("meta"):
        return build_encoder(name)


def patch_of(name: str) -> int:
    """The side of an encoder's patches in pixels.

    Raises:
        SettingError: the name is unknown.
    """
    return PATCH if name in SIZES else outline(name).patch

"""Dtypes under autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor

HALF: Final = (torch.float16, torch.bfloat16)


def own_dtypes(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast off. On a GPU, an elementwise operation then converts what it reads, instead of a converted copy."""
    device = x.device.type
    # No context unless it is needed: it would stand in exported graphs.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a matrix product with `x` is computed."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

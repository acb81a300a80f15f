"""The arithmetic of a run: what `trainer.precision=auto` becomes, and float32 without TF32."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

log = logging.getLogger(__name__)


def settle_precision(cfg: DictConfig) -> None:
    """Write into `trainer.precision` what "auto" becomes on this machine, and log it."""
    if cfg.trainer.get("precision") == "auto":
        cfg.trainer.precision, device = _fastest(cfg.trainer)
        rank_zero_only(log.info)(f"trainer.precision=auto: {cfg.trainer.precision} ({device}).")


def _fastest(trainer: Mapping[str, Any]) -> tuple[str, str]:
    """The fastest precision that training can use, and the device that decides."""
    if trainer.get("accelerator") in ("cpu", "mps") or not torch.cuda.is_available():
        return "32-true", "no CUDA GPU is used"
    oldest = min(range(torch.cuda.device_count()), key=torch.cuda.get_device_capability)
    if torch.cuda.get_device_capability(oldest) >= (8, 0):  # the first with bfloat16 in hardware
        precision = "bf16-mixed"
    else:  # sharded gradients have no loss scaling, which float16 needs
        precision = "16-mixed" if isinstance(trainer.get("strategy", "auto"), str) else "32-true"
    return precision, torch.cuda.get_device_name(oldest)


def exact_float32() -> None:
    """From now on, compute convolutions in TF32 only where matrix products are, too: by default, nowhere.

    PyTorch itself would do so for convolutions alone. The variable TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 asks for both.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32

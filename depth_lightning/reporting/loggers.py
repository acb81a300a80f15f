"""Loggers that differ from Lightning's, and pictures for those that take them."""

import logging
import netrc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)


def wandb_logger(save_dir: str | Path, offline: bool | None = None, **arguments: Any) -> "WandbLogger":
    """Weights & Biases; offline without an account, unless `offline` says otherwise.

    Args:
        save_dir: where the run's files go, in its folder wandb/.
        offline: None looks for WANDB_MODE, WANDB_API_KEY and a login.
        **arguments: Lightning's WandbLogger's.

    Raises:
        ModuleNotFoundError: wandb is not installed.
    """
    from lightning.pytorch.loggers import WandbLogger

    if offline is None:
        offline = "WANDB_MODE" not in os.environ and not _has_wandb_account()
        if offline:
            log.warning(
                "logger=wandb: no account found (`wandb login` or WANDB_API_KEY), so this run is recorded offline. "
                "`wandb sync` uploads it later."
            )
    return WandbLogger(save_dir=str(save_dir), offline=offline, **arguments)


def log_image(logger: Logger, name: str, image: np.ndarray, step: int) -> None:
    """Give an (h, w, 3) uint8 RGB picture to a logger; those that take no pictures are passed over."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, step, dataformats="HWC")
    elif hasattr(logger, "log_image"):
        logger.log_image(name, [image], step=step)


def _has_wandb_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)

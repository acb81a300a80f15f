"""What a network starts from: a checkpoint, `model.weights`, or for a new last layer, the training images."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from depth_lightning.data import DepthDataModule
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.models import DepthAnythingV2, LoadReport, load_weights, resolve_weights
from depth_lightning.models.checkpoints import load_run_state
from depth_lightning.models.depth_anything import MIN_DEPTH_M
from depth_lightning.sample import DepthKind
from depth_lightning.training import DepthModule
from depth_lightning.wording import counted, significant

log = logging.getLogger(__name__)


def start_weights(network: DepthAnythingV2, model: DictConfig) -> LoadReport | None:
    """Load `model.weights` as configured by `model.init`, and log what was loaded, or a warning if nothing was."""
    if model.weights is None:
        message = (
            f"NO PRETRAINED WEIGHTS: this network ({model.encoder}) starts from random weights (model.weights=null). "
            "It takes far more data and time than fine-tuning."
        )
        rank_zero_only(log.warning)(message)
        return None
    report = load_weights(network, resolve_weights(model.weights), init=model.init, force=model.force)
    rank_zero_only(log.info)(str(report))
    return report


def load_chosen(network: DepthAnythingV2, cfg: DictConfig, state: Mapping[str, Any] | None) -> None:
    """Load the state of `cfg.checkpoint`, or without one, `start_weights`."""
    if state is not None:
        load_run_state(network, state, cfg.checkpoint)
    else:
        start_weights(network, cfg.model)


def start_alignment(module: DepthModule) -> None:
    """Load the frozen encoder of `loss.alignment`, which no checkpoint holds, if there is one."""
    if module.objective is not None and module.objective.alignment is not None:
        report = module.objective.alignment.load()
        rank_zero_only(log.info)(f"loss.alignment: the frozen encoder is that of {report.path}.")


def start_head(network: DepthAnythingV2, data: DepthDataModule, loaded: LoadReport | None) -> None:
    """Start a new last layer, but that of head=sigmoid, at the median of several training images' depth."""
    is_loaded = loaded is not None and loaded.init != "encoder" and not loaded.left_out
    if is_loaded or network.head_name == "sigmoid":
        return
    samples = [data.train_data[index] for index in evenly_spread(range(len(data.train_data)), 16)]
    depths = [sample.target[sample.mask] for sample in samples if sample.kind == DepthKind.METRES]
    valid = np.concatenate([*depths, np.empty(0, np.float32)])
    if (valid := valid[(valid >= MIN_DEPTH_M) & (valid <= network.max_depth)]).size:
        median_m = float(np.median(valid))
        network.start_at(median_m)
        rank_zero_only(log.info)(
            f"The head starts at {significant(median_m)} m, the median of {counted(len(depths), 'training image')}."
        )

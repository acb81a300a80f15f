"""The configuration's groups as the objects they describe."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning
from hydra.errors import InstantiationException
from hydra.utils import get_method, get_object, instantiate
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from depth_lightning.data import DepthDataModule, Mixture
from depth_lightning.data.augmentation import augmentation_options
from depth_lightning.data.da2k import DA2K
from depth_lightning.data.photometric import ColourNoise
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.metrics import ERRORS, DepthMetrics, Protocol
from depth_lightning.models import DepthAnythingV2, LoadReport, load_weights, resolve_weights
from depth_lightning.runs.checkpoint import describe
from depth_lightning.runs.earlier import current
from depth_lightning.settings import SettingError, whole_number, within
from depth_lightning.training import DepthModule, Objective

log = logging.getLogger(__name__)


def build(path: str, node: Any, **arguments: Any) -> Any:
    """The object that a node of the configuration describes.

    Args:
        path: of the settings that it is made of, for messages.
        node: with a `_target_`, or a list of such.
        arguments: beside those of the node.

    Raises:
        SettingError: a setting that cannot be right, under its whole path.
    """
    described = current(OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node)
    with within(path):
        try:
            return instantiate(described, **arguments)
        except InstantiationException as error:
            if isinstance(error.__cause__, SettingError):
                raise error.__cause__ from error
            raise


def build_network(model: DictConfig) -> DepthAnythingV2:
    """The network of `model`, untrained: its weights are loaded by `start_weights`, or come from a checkpoint."""
    arguments = {key: value for key, value in plain(model).items() if key not in ("weights", "init", "force")}
    return cast(DepthAnythingV2, build("model", arguments))


def start_weights(network: DepthAnythingV2, model: DictConfig) -> LoadReport | None:
    """Load `model.weights` as `model.init` says, and say what was loaded; say it loudly where nothing is."""
    if model.weights is None:
        message = (
            f"NO PRETRAINED WEIGHTS: this {model.encoder} starts from random (model.weights=null). "
            "It takes far more data and time than fine-tuning."
        )
        rank_zero_only(log.warning)(message)
        return None
    report = load_weights(network, resolve_weights(model.weights), init=model.init, force=model.force)
    rank_zero_only(log.info)(str(report))
    return report


def build_data(cfg: DictConfig) -> DepthDataModule:
    """The data module of `data`."""
    data = cfg.data
    on_error = data.get("on_error", "raise")  # a checkpoint may be older than the option
    if on_error not in ("raise", "skip"):
        raise ValueError(f"data.on_error is 'raise' or 'skip', found {on_error!r}.")
    geometry, colour = _augmentation(cfg)
    size, workers = whole_number("data.size", data.size), data.num_workers
    return DepthDataModule(
        dataset=_mixture(data) if "parts" in data else build("data", data.dataset, _partial_=True),
        train_transform=TrainTransform(size, data.crop, **geometry),
        eval_transform=EvaluationTransform(size),
        batch_size=whole_number("data.batch_size", data.batch_size),
        eval_batch_size=whole_number("data.eval_batch_size", data.eval_batch_size),
        num_workers=min(8, os.cpu_count() or 1)
        if workers is None
        else whole_number("data.num_workers", workers, least=0),
        seed=cfg.seed,
        colour=colour,
        bad_samples=Path(cfg.run_dir) / "bad_samples.csv" if on_error == "skip" else None,
    )


def _augmentation(cfg: DictConfig) -> tuple[dict[str, Any], ColourNoise | None]:
    """What the transform does in the workers, and what is done on the device."""
    written = (cfg.data.augmentation, cfg.get("augmentation"))
    options = augmentation_options(*(plain(node) if OmegaConf.is_config(node) else node for node in written))
    transforms = build("augmentation.transforms", options.pop("transforms"))
    geometry = {"flip_probability": options.pop("flip_probability"), "transforms": transforms}
    colour = ColourNoise(**options)
    return geometry, colour if colour.jitter_probability or colour.noise_probability else None


def _mixture(data: DictConfig) -> Callable[[str], Mixture]:
    def open_split(split: str) -> Mixture:
        names = list(data.parts if split == "train" or data.validate_on is None else data.validate_on)
        if unknown := set(names) - set(data.parts):
            raise ValueError(f"data.validate_on: {', '.join(sorted(unknown))} is none of {', '.join(data.parts)}.")
        parts = {name: build(f"data.parts.{name}", data.parts[name].dataset, split=split) for name in names}
        if split == "train":
            return Mixture(parts, plain(data.weights), data.samples_per_epoch)
        return Mixture(parts)

    return open_split


def is_point_pairs(data: DictConfig) -> bool:
    """Whether a data set holds point pairs, which can score a network, and no depth maps."""
    dataset = data.get("dataset")  # a mixture has none
    return dataset is not None and get_object(dataset._target_) is DA2K


def require_depth_maps(data: DictConfig) -> None:
    """Refuse point pairs.

    Raises:
        ValueError: the data set has no depth maps.
    """
    if is_point_pairs(data):
        raise ValueError("DA-2K has pairs of points and no depth maps. Choose other data.")


def build_metrics(cfg: DictConfig) -> DepthMetrics:
    """The standard errors and those of `metrics`, under `protocol`."""
    protocol: Protocol = build("protocol", cfg.protocol)
    own = {name: get_method(path) for name, path in cfg.metrics.items()}
    return DepthMetrics(protocol, {**ERRORS, **own})


def build_module(cfg: DictConfig, network: DepthAnythingV2) -> DepthModule:
    """The module for training.

    Raises:
        ValueError: from optimizer or schedule, which are tried here since the trainer calls them when all is loaded.
    """
    across_devices = bool(cfg.loss.get("across_devices"))
    losses = {kind: build(f"loss.{kind}", loss) for kind, loss in cfg.loss.items() if kind != "across_devices"}
    module = DepthModule(
        network,
        metrics=build_metrics(cfg),
        objective=Objective(
            **losses, output=network.output, max_depth=network.max_depth, across_devices=across_devices
        ),
        optimizer=build("optimizer", cfg.optimizer),
        schedule=build("scheduler", cfg.scheduler),
        config=describe(cfg),
    )
    with within("optimizer"):
        module.optimizer(network.parameter_groups())
    with within("scheduler"):
        module.schedule(0, 100)
    return module


def build_trainer(cfg: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> lightning.Trainer:
    """Lightning's trainer; samples are shared between processes by the data module alone, which pads nothing.

    Raises:
        ValueError: a count below 1, with which Lightning trains nothing, or fails when training has begun; or a
            precision in which the truth would be rounded, too.
    """
    counts = {"max_epochs": -1, "max_steps": -1, "accumulate_grad_batches": None, "check_val_every_n_epoch": None}
    for name, no_limit in counts.items():
        value = cfg.trainer.get(name)
        if value is not None and value != no_limit:
            whole_number(f"trainer.{name}", value)
    if str(cfg.trainer.precision) not in ("32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16"):
        raise ValueError(
            f"trainer.precision is 32-true, bf16-mixed or 16-mixed, found {cfg.trainer.precision!r}. With "
            "others Lightning converts the truth as well: bf16-true would round it to 8 bits."
        )
    if cfg.trainer.get("limit_train_batches") == 0:
        raise ValueError("trainer.limit_train_batches=0 trains nothing: evaluate.py scores a network as it is.")
    return cast(
        lightning.Trainer,
        build(
            "trainer",
            cfg.trainer,
            callbacks=callbacks,
            logger=loggers,
            default_root_dir=cfg.run_dir,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        ),
    )


def build_all(cfg: DictConfig, group: str) -> list[Any]:
    """Every object of a group of named objects, such as "callbacks"; an entry that is null is left out."""
    named = cfg[group] or {}
    return [build(f"{group}.{name}", entry) for name, entry in named.items() if entry is not None]


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists and scalars."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))

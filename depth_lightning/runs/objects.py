"""Builds the objects that the configuration's groups describe."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_method, get_object, instantiate
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from depth_lightning.data import DepthDataModule, DepthPairs, Mixture
from depth_lightning.data.augmentation import augmentation_options
from depth_lightning.data.canonical import Canonical
from depth_lightning.data.da2k import DA2K
from depth_lightning.data.photometric import ColourNoise
from depth_lightning.data.transforms import PATCH, EvaluationTransform, TrainTransform
from depth_lightning.metrics import ERRORS, DepthMetrics, ErrorFunction, Protocol
from depth_lightning.metrics.errors import with_intrinsics
from depth_lightning.models import DepthAnythingV2
from depth_lightning.models.encoders import patch_of
from depth_lightning.runs.checkpoint import describe
from depth_lightning.runs.earlier import current
from depth_lightning.runs.options import CORES, MOST_WORKERS, argument_names, import_problem
from depth_lightning.runs.overrides import typed_key
from depth_lightning.runs.precision import settle_precision
from depth_lightning.runs.processes import check_processes
from depth_lightning.settings import SettingError, one_of, several, within
from depth_lightning.training import DepthModule, Objective
from depth_lightning.training.module import MEAN_OF_PARTS

log = logging.getLogger(__name__)

LOADER = ("size", "crop", "augmentation", "batch_size", "eval_batch_size", "num_workers", "on_error")
"""Keys of `data` that are not passed to data sets unless a data set's node says so."""


def build(path: str, node: Any, **arguments: Any) -> Any:
    """The object that a node of the configuration describes.

    Args:
        path: its key.
        node: a node with a `_target_`, or a list or group of such nodes.
        arguments: passed in addition to the node's.

    Raises:
        SettingError: an invalid setting, named by the key under which it was typed.
        Exception: any other error of the object's class or function, without Hydra's wrapper.
    """
    raw, described = (
        OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node
        for resolve in (False, True)
    )
    try:
        return instantiate(current(described), **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None:
            raise
        inner = str(error).partition("\nfull_key: ")[2]  # the path of a node within this one, in Hydra's message
        if isinstance(cause, TypeError) and "required positional argument" in str(cause) and path:
            raise SettingError(f"{path}.{inner}".rstrip("."), f"cannot be built: {cause}.") from cause
        if not isinstance(cause, SettingError):
            raise cause from None
        raise SettingError(typed_key(path, raw, f"{inner}.{cause.name}".lstrip(".")), cause.problem) from cause


def build_network(model: DictConfig, adapter: DictConfig | None = None) -> DepthAnythingV2:
    """The network of `model` with random weights; see `runs.weights`."""
    arguments = {key: value for key, value in plain(model).items() if key not in ("weights", "init", "force")}
    if adapter is not None and "_target_" not in adapter:
        raise SettingError("adapter", f"is none or lora, found {plain(adapter)}. Type adapter=lora adapter.rank=…")
    own = {} if adapter is None else {"adapter": build("adapter", adapter)}
    try:
        return cast(DepthAnythingV2, build("model", arguments, **own))
    except SettingError as error:
        if error.name.startswith("model.adapter."):
            raise SettingError(error.name.removeprefix("model."), error.problem) from error
        raise


def canonical(cfg: DictConfig) -> Canonical | None:
    """The canonical camera of `camera`; None with camera=none, and for relative networks, which have no use for it.

    Raises:
        SettingError: an option is out of range, or the network has no canonical focal length.
    """
    settings: dict[str, Any] = plain(cfg.camera) if cfg.get("camera") else {}
    focal_px, model = settings.get("focal_px"), cfg.get("model") or {}
    if focal_px is None and "focal_px" in model:
        raise SettingError("camera.focal_px", "is missing, which camera=canonical needs. Type camera.focal_px=…")
    if focal_px is None or model.get("output") == "relative":
        return None
    if model and "focal_px" not in model:
        raise SettingError("camera.focal_px", f"is for camera=canonical, found {focal_px} with camera=none.")
    with within("camera"):
        return Canonical(focal_px, settings.get("default_fov_deg"))


def build_data(cfg: DictConfig, eval_split: str = "val") -> DepthDataModule:
    """The data module of `data`, which evaluates on `eval_split`, for the encoder of `model`, if there is one."""
    data, patch = cfg.data, patch_size(cfg)
    geometry, colour = _augmentation(cfg)
    known = canonical(cfg)
    skip = data.get("on_error") == "skip"  # a checkpoint may be older than the option
    with within("data"):
        return DepthDataModule(
            dataset=_mixture(data) if "parts" in data else dataset_of(data),
            train_transform=TrainTransform(data.size, data.crop, **geometry, patch=patch, canonical=known),
            eval_transform=EvaluationTransform(data.size, patch, known),
            batch_size=data.batch_size,
            eval_batch_size=data.eval_batch_size,
            num_workers=worker_count(data.num_workers),
            seed=cfg.seed,
            colour=colour,
            bad_samples=Path(cfg.run_dir) / "bad_samples.csv" if skip else None,
            eval_split=eval_split,
        )


def patch_size(cfg: DictConfig) -> int:
    """The side of the patches of the network's encoder, in pixels."""
    if "model" not in cfg:
        return PATCH
    try:
        return patch_of(cfg.model.encoder)
    except SettingError as error:
        raw = OmegaConf.to_container(cfg.model, resolve=False)
        raise SettingError(typed_key("model", raw, error.name), error.problem) from error


def worker_count(count: int | None) -> int:
    """How many workers `data.num_workers` means on this machine; a checkpoint may be of one with many more cores."""
    return min(8, CORES) if count is None else min(count, MOST_WORKERS)


def dataset_of(data: DictConfig, path: str = "data") -> Callable[..., Any]:
    """A function that opens a split of a data set, called with `split`; "all" is every sample of it.

    Args:
        data: the configuration of a single data set, not a mixture.
        path: of `data` in the configuration, for messages.
    """
    return partial(_open_split, data, path)


def _open_split(data: DictConfig, path: str, **arguments: Any) -> Any:
    if arguments.get("split") == "all" and not issubclass(get_object(data.dataset._target_), DepthPairs):
        return Mixture({split: _open_split(data, path, split=split) for split in ("train", "val")})
    try:
        return build("", dataset_node(data), **arguments)
    except SettingError as error:
        name = error.name.lstrip(".")
        if name == "split":
            raise SettingError(name, error.problem) from None
        if (own := name.rpartition(".")[2]) in data:
            raise SettingError(f"{path}.{own}", error.problem) from None
        raw = OmegaConf.to_container(data.dataset, resolve=False)
        raise SettingError(typed_key(f"{path}.dataset", raw, name), error.problem) from None


def dataset_node(data: DictConfig) -> dict[str, Any]:
    """The node `data.dataset`, with every omitted argument taken from the key of the same name in `data`.

    So an option of a data set is written once, where users type it: `data.root`, not `data.dataset.root`.
    """
    keys = plain(data)
    node = keys.pop("dataset")
    return _completed(node, {key: value for key, value in keys.items() if key not in LOADER})


def _completed(node: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    taken = argument_names(get_object(current(node)["_target_"]))
    own = {
        key: _completed(value, keys) if isinstance(value, dict) and "_target_" in value else value
        for key, value in node.items()
    }
    return {key: value for key, value in keys.items() if key in taken} | own


def settle(cfg: DictConfig, data: DepthDataModule) -> None:
    """Write into `data` of the configuration what its data sets decided when they were opened for training.

    So the checkpoint holds it, and evaluation, prediction and a resumed run read images in the same way.
    """
    source = data.train_data.dataset.source
    parts = source.parts if isinstance(source, Mixture) else {"": source}
    for name, part in parts.items():
        for key, value in getattr(part, "settled", {}).items():
            OmegaConf.update(cfg, f"data.parts.{name}.{key}" if name else f"data.{key}", value, force_add=True)


def _augmentation(cfg: DictConfig) -> tuple[dict[str, Any], ColourNoise | None]:
    """The geometric augmentation, done by the transform in the workers, and the colour augmentation, on the device."""
    written = (cfg.data.augmentation, cfg.get("augmentation"))
    options = augmentation_options(*(plain(node) if OmegaConf.is_config(node) else node for node in written))
    transforms = build("augmentation.transforms", options.pop("transforms"))
    geometry = {key: options.pop(key) for key in ("flip_probability", "zoom", "rotation_deg")}
    geometry["transforms"] = transforms
    colour = ColourNoise(**options)
    return geometry, colour if colour.jitter_probability or colour.noise_probability else None


def _mixture(data: DictConfig) -> Callable[[str], Mixture]:
    if data.validate_on is not None:
        what = f"a list of parts ({', '.join(data.parts)}), or null for all"
        several("validate_on", data.validate_on, None, what, partial(one_of, choices=data.parts))

    def open_split(split: str) -> Mixture:
        names = data.parts if split == "train" or data.validate_on is None else data.validate_on
        parts = {name: dataset_of(data.parts[name], f"data.parts.{name}")(split=split) for name in names}
        with within("data"):
            if split != "train":
                return Mixture(parts)
            # A checkpoint may be older than the last option.
            return Mixture(parts, plain(data.weights), data.samples_per_epoch, data.get("every_batch", False))

    return open_split


def is_point_pairs(data: DictConfig) -> bool:
    """Whether a data set holds point pairs, which can only score a network, instead of depth maps."""
    dataset = data.get("dataset")  # a mixture has none
    return dataset is not None and get_object(dataset._target_) is DA2K


def require_depth_maps(data: DictConfig) -> None:
    """Refuse point pairs.

    Raises:
        ValueError: the data set has no depth maps.
    """
    if is_point_pairs(data):
        raise ValueError("DA-2K has point pairs and no depth maps. Choose other data.")


def build_metrics(cfg: DictConfig) -> DepthMetrics:
    """The standard metrics and those of `metrics`, under `protocol`."""
    protocol: Protocol = build("protocol", cfg.protocol)
    own = {name: _own_metric(f"metrics.{name}", path) for name, path in (cfg.metrics or {}).items()}
    if known := ERRORS.keys() & own:
        raise SettingError(f"metrics.{min(known)}", "is the name of a standard metric. Give yours another name.")
    return DepthMetrics(protocol, {**ERRORS, **own})


def _own_metric(key: str, path: str) -> ErrorFunction:
    """The function at the import path, tried on an image now, since its first real call comes after an epoch."""
    depth_m = torch.linspace(1, 2, 48 * 64).view(1, 48, 64)
    try:
        metric: ErrorFunction = get_method(path)
    except Exception as error:  # a user's module may raise anything
        problem = f"is the import path of a function, found {path!r}, which {import_problem(error)}"
        raise SettingError(key, problem) from error
    try:
        cameras = [torch.tensor([[50.0, 50.0, 31.5, 23.5]])] if with_intrinsics(metric) else []
        errors = metric(1.1 * depth_m, depth_m, depth_m > 1, *cameras)
    except Exception as error:  # a user's function may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SettingError(key, f"is f(prediction, target, mask) → (b,), but {path} failed: {reason}") from error
    if not isinstance(errors, torch.Tensor) or errors.shape != (1,):
        raise SettingError(key, f"is f(prediction, target, mask) → (b,), but {path} gave {errors!r} for one image.")
    return metric


def build_module(cfg: DictConfig, network: DepthAnythingV2) -> DepthModule:
    """The module for training.

    Raises:
        ValueError: from the optimizer or schedule, tried here since the trainer calls them only after loading all data.
    """
    losses = build("loss", cfg.loss)
    with within("loss"):
        objective = Objective(**losses, output=network.output, max_depth=network.max_depth)
    module = DepthModule(
        network,
        metrics=build_metrics(cfg),
        objective=objective,
        optimizer=build("optimizer", cfg.optimizer),
        schedule=build("scheduler", cfg.scheduler),
        config=describe(cfg),
    )
    random_head = cfg.model.weights is None or cfg.model.init == "encoder"
    if network.adapter is not None and network.adapter.head and random_head:
        raise SettingError(
            "adapter.head", "is true, which keeps the head's own weights, and those are random. Type model.init=all."
        )
    with within("optimizer"):
        module.optimizer(network.parameter_groups())
    with within("scheduler"):
        module.schedule(0, 100)
    return module


def build_trainer(cfg: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> lightning.Trainer:
    """Lightning's trainer; only the data module distributes samples over processes, without padding.

    `trainer.precision=auto` of the configuration becomes what it means on this machine.

    Raises:
        SettingError: the run has no end, or its devices or nodes do not exist.
        ValueError: Lightning rejects an option.
    """
    if cfg.trainer.get("max_epochs", -1) == -1 and cfg.trainer.get("max_steps", -1) == -1:
        raise SettingError(
            "trainer.max_epochs", "is -1, no limit. Then set trainer.max_steps, since a schedule needs an end."
        )
    check_processes(plain(cfg.trainer))
    settle_precision(cfg)
    try:
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
    except SettingError:
        raise
    except (MisconfigurationException, TypeError, ValueError) as error:  # Lightning's messages do not name the key
        raise ValueError(f"trainer: {error}") from error


def build_all(cfg: DictConfig, group: str) -> dict[str, Any]:
    """All objects of a group of named objects, such as "callbacks", without entries that are null."""
    return {name: built for name, built in build(group, cfg.get(group) or {}).items() if built is not None}


def check_monitors(cfg: DictConfig, module: DepthModule) -> None:
    """Reject callbacks that monitor a metric under val/ which validation does not compute.

    They would fail only after an epoch. With a callback of the user's own, which may log others, all names are taken.

    Raises:
        SettingError: a monitor is not a validation metric.
    """
    validated = [f"val/{name}" for name in (*module.metrics.errors, *module.affine_metrics.errors)]
    if parts := cfg.data.get("parts"):
        validated += [f"{name}_{part}" for part in (*parts, MEAN_OF_PARTS) for name in validated]
    nodes = {name: node for name, node in (plain(cfg).get("callbacks") or {}).items() if node is not None}
    if not all(current(node)["_target_"].startswith(("depth_lightning.", "lightning.")) for node in nodes.values()):
        return
    for name, node in nodes.items():
        monitor = node.get("monitor")
        if isinstance(monitor, str) and (monitor.startswith("val/") or f"val/{monitor}" in validated):
            one_of(f"callbacks.{name}.monitor", monitor, validated)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists and scalars."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))

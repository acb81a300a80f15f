"""The options of every command, and checks for the values that no object of this package checks.

An object checks its own arguments when it is built, and `objects.build` names them by their keys. Everything else that
a user may type is declared here: the commands' own options, and the arguments of Lightning's classes.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Union, cast, get_args

import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig, OmegaConf

from depth_lightning.data.images import check_exif, check_range
from depth_lightning.data.transforms import check_size
from depth_lightning.evaluation.saved_predictions import PredictionKind
from depth_lightning.invocation import command_line
from depth_lightning.models.checkpoints import Init
from depth_lightning.reporting.loggers import MetricsFile
from depth_lightning.runs.earlier import current
from depth_lightning.runs.overrides import is_below, references
from depth_lightning.settings import (
    Check,
    SettingError,
    boolean,
    nearest,
    number,
    one_of,
    optional,
    several,
    text,
    unknown,
    whole_number,
)

Options = Mapping[str, Union[Check, "Options", None]]
"""Name → the check of its value; None if the object that receives it checks it. "*" stands for any other name."""

PATH = partial(text, what="a path")
PATH_OR_NONE = partial(optional, check=PATH)
FROM_0 = partial(whole_number, least=0)

NAMES = partial(several, count=None, check=partial(text, what="a name"))
TRUST = partial(NAMES, what="a list of packages")
OBJECT: Options = {}
"""A node with a `_target_`, whose arguments are its options."""
ANYTHING: Options = {"*": None}
OWN_PROCESSES = re.compile("_(spawn|fork|notebook)")
"""Strategies of Lightning for interactive use."""
HYDRAS: Options = {
    "_target_": partial(text, what="an import path"),
    **dict.fromkeys(("_partial_", "_recursive_"), boolean),
    "_convert_": partial(one_of, choices=("none", "partial", "object", "all")),
    "_args_": partial(several, count=None, what="a list", check=lambda name, value: value),
}
"""Keys of a node that tell Hydra how to build it."""

CORES = os.cpu_count() or 1
MOST_WORKERS = max(32, 8 * CORES)
"""Workers may wait for storage, but more of them only take memory."""
NUM_WORKERS = f" This machine has {CORES} cores; null: one for each, at most 8."

MODEL: Options = {
    "weights": partial(optional, check=partial(text, what="a path or a hub id")),
    "init": partial(one_of, choices=get_args(Init)),
    "force": boolean,
    "max_depth": partial(number, above=1e-3, most=1e6),
}
DATA: dict[str, Any] = {
    "size": check_size,
    **dict.fromkeys(("crop", "augmentation", "batch_size", "eval_batch_size")),
    "num_workers": partial(optional, check=partial(FROM_0, most=MOST_WORKERS, otherwise=NUM_WORKERS)),
    "on_error": partial(one_of, choices=("raise", "skip")),
    "dataset": OBJECT,
    **dict.fromkeys(("weights", "samples_per_epoch", "every_batch", "validate_on")),
}
DATA["parts"] = {"*": DATA}
COMMON: Options = {
    "seed": partial(whole_number, least=0, most=2**32 - 1),
    "run_dir": PATH,
    "metrics": {"*": partial(text, what="the import path of a function")},
    "trust": TRUST,
}
ENCODER: Options = {"name": partial(text, what="the name of a vision transformer in timm")}
"""Of encoder=timm; the others have no options."""
FOV_DEG = partial(optional, check=partial(number, above=0, below=180))
CAMERA: Options = {"focal_px": partial(optional, check=partial(number, above=0)), "default_fov_deg": FOV_DEG}
NETWORK: Options = {
    **COMMON,
    "checkpoint": PATH_OR_NONE,
    "model": MODEL,
    "encoder": ENCODER,
    "data": DATA,
    "camera": CAMERA,
}
TRAIN: Options = {
    **NETWORK,
    **dict.fromkeys(("protocol", "optimizer", "scheduler", "trainer"), OBJECT),
    "loss": {
        **dict.fromkeys(("metres", "up_to_scale", "disparity"), OBJECT),
        "alignment": None,
        "across_devices": None,
    },
    **{group: {"*": OBJECT} for group in ("callbacks", "logger")},
    **dict.fromkeys(("augmentation", "adapter")),
    **dict.fromkeys(("compile", "self_check", "baseline", "report"), boolean),
}
REMOTE: Options = {
    **dict.fromkeys(("url", "file", "bytes", "hash")),
    "names": {"*": None},
    "only": partial(optional, check=partial(NAMES, what="a list of patterns")),
    "unpacked_bytes": partial(optional, check=FROM_0),
}
COMMANDS: Mapping[str, Options] = {
    "train": TRAIN,
    "batch_size": {
        **TRAIN,
        "memory_gib": partial(optional, check=partial(number, above=0)),
        "max_batch_size": whole_number,
    },
    "evaluate": {
        **NETWORK,
        **dict.fromkeys(("protocol", "trainer"), OBJECT),
        **dict.fromkeys(("compile", "baseline", "explain", "breakdowns", "report"), boolean),
        "panels": FROM_0,
        "predictions": PATH_OR_NONE,
        "predictions_kind": partial(optional, check=partial(one_of, choices=get_args(PredictionKind))),
        "predictions_scale": partial(optional, check=partial(number, above=0)),
        "split": partial(one_of, choices=("train", "val", "test", "all")),
    },
    "calibrate": {
        **NETWORK,
        "protocol": OBJECT,
        "split": partial(one_of, choices=("train", "val", "test", "all")),
        "images": partial(optional, check=whole_number),
        "points": PATH_OR_NONE,
        "camera": {**CAMERA, **dict.fromkeys(("intrinsics", "size", "fov_deg"))},
        "output": PATH,
        "device": partial(optional, check=partial(text, what="cuda, cuda:1, mps or cpu")),
    },
    "predict": {
        **NETWORK,
        "data": {"size": check_size, "exif": check_exif, "image_range": check_range},
        "camera": {**CAMERA, **dict.fromkeys(("intrinsics", "size", "fov_deg"))},
        "input": partial(text, what="one path or pattern (several go into a .txt file, a line each)"),
        "output": PATH,
        "batch_size": whole_number,
        **dict.fromkeys(("save", "overwrite", "device", "precision", "png_scale", "range")),
        "cloud": dict.fromkeys(("intrinsics", "calibrated_size", "fov_deg", "max_range_m", "remove_flying")),
    },
    "label": {
        **NETWORK,
        "data": {"size": check_size, "exif": check_exif, "image_range": check_range},
        "input": partial(text, what="one path or pattern (several go into a .txt file, a line each)"),
        "output": PATH,
        "batch_size": whole_number,
        **dict.fromkeys(("format", "flip_average", "max_disagreement", "device", "precision")),
        "sky": PATH_OR_NONE,
    },
    "export": {
        **NETWORK,
        "protocol": OBJECT,
        **dict.fromkeys(("layout", "size", "batch_size", "opset", "precision")),
        "output": PATH,
        "metrics_file": PATH_OR_NONE,
        "score_images": whole_number,
    },
    "doctor": {
        **COMMON,
        "data": DATA,
        "images": partial(optional, check=whole_number),
        "detailed": partial(optional, check=FROM_0),
        "fov_deg": FOV_DEG,
        "pictures": FROM_0,
    },
    "show": {
        **COMMON,
        "model": {**MODEL, "encoder": None},
        "encoder": ENCODER,
        "data": DATA,
        "camera": CAMERA,
        "augmentation": None,
        "split": partial(one_of, choices=("train", "val")),
        **dict.fromkeys(("images", "draws"), whole_number),
    },
    "pack": {
        **COMMON,
        "data": DATA,
        "output": PATH,
        "shard_mb": partial(number, above=0),
        "compress": boolean,
        "endpoint_url": None,
    },
    "download": {
        **COMMON,
        "output": PATH,
        "parts": partial(optional, check=partial(NAMES, what="a list of names of download.files, or null for all")),
        "download": {
            **dict.fromkeys(("title", "page", "licence", "citation", "next"), partial(text, what="a text")),
            "note": partial(optional, check=partial(text, what="a text")),
            "prepare": partial(optional, check=partial(text, what="the import path of a function")),
            "files": {"*": REMOTE},
        },
    },
}


def _or_no_limit(name: str, value: Any) -> None:
    if not (type(value) is int and value == -1):
        whole_number(name, value, otherwise=" -1: no limit.")


def _batches(name: str, value: Any, otherwise: str = "") -> None:
    if isinstance(value, float):
        number(
            name,
            value,
            above=0,
            most=1,
            otherwise=f" With a decimal point it is a share; a number of batches has none.{otherwise}",
        )
    elif value is not None:
        whole_number(name, value, otherwise=f" For a share of the batches, use a decimal point: 0.5.{otherwise}")


def _interval(name: str, value: Any) -> None:
    if not isinstance(value, str | Mapping):  # a time
        _batches(name, value)


def _overfit(name: str, value: Any) -> None:
    if isinstance(value, bool) or value != 0:
        _batches(name, value)


def _fast_dev_run(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        whole_number(name, value, otherwise=" Or true, for one batch of everything.")


def _accelerator(name: str, value: Any) -> None:
    known = ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators()))
    accelerators = ("cuda", "mps") if one_of(name, value, known) == "gpu" else (value,)
    if value != "auto" and not any(AcceleratorRegistry[each]["accelerator"].is_available() for each in accelerators):
        raise SettingError(name, f"is {value}, which this machine does not have. Use trainer=cpu, or auto.")


def _devices(name: str, value: Any) -> None:
    if type(value) is int and value != -1:
        whole_number(name, value, otherwise=" auto: all available.")
    elif not (isinstance(value, list) and value) and not re.fullmatch(r"auto|-1|[\d, ]+", str(value)):
        raise SettingError(name, f"is a number of devices, a list of their numbers, or auto, found {value!r}.")


def _strategy(name: str, value: Any) -> None:
    if not (isinstance(value, Mapping) and "_target_" in value):
        # Others fork or spawn, and what they have measured is lost with their processes.
        known = [each for each in StrategyRegistry.available_strategies() if not OWN_PROCESSES.search(each)]
        one_of(name, value, ("auto", *known))


def _precision(name: str, value: Any) -> None:
    if str(value) not in ("32", "bf16", "16"):
        others = " With others, Lightning converts the ground truth as well: bf16-true would round it to 8 bits."
        one_of(name, value, ("auto", "32-true", "bf16-mixed", "16-mixed"), others)


def _set_by_the_command(name: str, value: Any) -> None:
    raise SettingError(name, "is set by the command: callbacks, loggers and the run's folder have keys of their own.")


LIGHTNING: Mapping[Any, Mapping[str, Check]] = {
    lightning.Trainer: {
        "accelerator": _accelerator,
        "devices": _devices,
        "num_nodes": whole_number,
        "strategy": _strategy,
        "precision": _precision,
        **dict.fromkeys(("max_epochs", "max_steps"), _or_no_limit),
        **dict.fromkeys(("min_epochs", "min_steps"), partial(optional, check=whole_number)),
        **dict.fromkeys(("accumulate_grad_batches", "log_every_n_steps"), whole_number),
        "check_val_every_n_epoch": partial(optional, check=whole_number),
        "gradient_clip_val": partial(optional, check=partial(number, least=0, otherwise=" null: no clipping.")),
        "gradient_clip_algorithm": partial(optional, check=partial(one_of, choices=("norm", "value"))),
        "limit_train_batches": partial(
            _batches, otherwise=f" {command_line('evaluate')} scores a network without training it."
        ),
        "limit_val_batches": partial(_batches, otherwise=" Without validation there is no best checkpoint."),
        "val_check_interval": _interval,
        "overfit_batches": _overfit,
        "fast_dev_run": _fast_dev_run,
        "num_sanity_val_steps": partial(whole_number, least=-1, otherwise=" -1: the full validation."),
        "reload_dataloaders_every_n_epochs": FROM_0,
        "deterministic": partial(optional, check=partial(one_of, choices=(True, False, "warn"))),
        **dict.fromkeys(("benchmark", "enable_checkpointing"), partial(optional, check=boolean)),
        **dict.fromkeys(("inference_mode", "detect_anomaly", "barebones", "sync_batchnorm"), boolean),
        **dict.fromkeys(("logger", "callbacks", "default_root_dir", "use_distributed_sampler"), _set_by_the_command),
        **dict.fromkeys(("enable_model_summary", "enable_progress_bar"), _set_by_the_command),
    },
    EarlyStopping: {
        "monitor": partial(text, what="the name of a validation metric, such as val/abs_rel"),
        "mode": partial(one_of, choices=("min", "max")),
        "patience": FROM_0,
        "min_delta": partial(number, least=0),
        **dict.fromkeys(("verbose", "strict", "check_finite", "log_rank_zero_only"), boolean),
        **dict.fromkeys(("stopping_threshold", "divergence_threshold"), partial(optional, check=number)),
        "check_on_train_epoch_end": partial(optional, check=boolean),
    },
    MetricsFile: {"save_dir": PATH, "flush_logs_every_n_steps": whole_number},
    TensorBoardLogger: {"save_dir": PATH, **dict.fromkeys(("log_graph", "default_hp_metric"), boolean)},
}
"""Class → checks of arguments whose invalid values it accepts, or rejects only after training has begun."""


def check(cfg: DictConfig, command: str, is_typed: Callable[[str], bool] = lambda key: True) -> None:
    """Reject keys that nothing reads, and invalid values, except those that objects check themselves.

    A key is read if the command or the object at its place takes it, or, outside of objects, if another key refers to
    it.

    Args:
        cfg: of the command.
        command: one of `COMMANDS`.
        is_typed: whether a key is to be checked; those of a checkpoint, which may be older, are not.

    Raises:
        SettingError: for the first such key or value.
    """
    raw = OmegaConf.to_container(cfg, resolve=False)
    referring = [raw]
    if HydraConfig.initialized():
        referring.append(OmegaConf.to_container(cast(DictConfig, HydraConfig.get()), resolve=False))
    read = frozenset(key for each in referring for key in references(each))
    _Checked(read, is_typed).node("", raw, OmegaConf.to_container(cfg, resolve=True), COMMANDS[command])


class _Checked(NamedTuple):
    """The check of a configuration, whose nodes are given unresolved (`raw`) and resolved (`value`)."""

    references: frozenset[str]
    is_typed: Callable[[str], bool]

    def node(self, path: str, raw: Any, value: Any, options: Options) -> None:
        """Check a node and everything below it."""
        if isinstance(raw, list):
            for index, entry in enumerate(raw):
                self.node(f"{path}.{index}", entry, value[index], ANYTHING)
        if not isinstance(raw, dict):
            return
        names = options
        if "_target_" in raw and any(self.is_typed(f"{path}.{key}") for key in raw):
            own = {name: rule for name, rule in options.items() if name != "*"}
            names = {**_arguments(path, raw), **own}
        if isinstance(raw.get("dataset"), dict):  # its arguments are the keys beside it
            names = {**dict.fromkeys(_names_below(f"{path}.dataset", raw["dataset"])), **names}
        for key, rule in options.items():
            at = f"{path}.{key}" if path else key
            # A mixture has parts in the place of a data set.
            if rule is OBJECT and key not in raw and key != "*" and "parts" not in raw and self.is_typed(at):
                raise SettingError(at, "is missing: it cannot be left out.")
        # A data set first: the keys beside it are its arguments.
        for key, entry in sorted(raw.items(), key=lambda item: options.get(item[0]) is not OBJECT):
            at = f"{path}.{key}" if path else str(key)
            if key in HYDRAS:
                if self.is_typed(at):
                    cast(Check, HYDRAS[key])(at, value[key])
                continue
            rule = names.get(key, names.get("*"))
            if self.is_typed(at):
                if key not in names and "*" not in names and not self._is_read(at, raw):
                    raise unknown(at, [name for name in names if name != "*"])
                if rule is OBJECT and isinstance(entry, dict) and "_target_" not in entry:
                    beside = [name for name, other in raw.items() if isinstance(other, dict) and "_target_" in other]
                    raise SettingError(at, f"has no _target_, the class that it is to be.{nearest(at, beside)}")
                self._entry(at, value[key], rule, may_be_none="*" in names)
            self.node(at, entry, value[key], rule if isinstance(rule, Mapping) else ANYTHING)

    def _entry(self, path: str, value: Any, rule: Check | Options | None, may_be_none: bool) -> None:
        if value == "???":
            raise SettingError(path, f"is missing. Type {path}=…")
        if callable(rule):
            rule(path, value)
        elif isinstance(rule, Mapping):
            if value is None and (may_be_none or "*" in rule):
                return
            if not isinstance(value, dict):
                raise SettingError(path, f"is a group of settings, found {value!r}.")

    def _is_read(self, path: str, node: Mapping[str, Any]) -> bool:
        """Whether another key refers to this one."""
        refers = is_below(path, self.references) or any(is_below(key, [path]) for key in self.references)
        return "_target_" not in node and refers


def _names_below(path: str, node: Any) -> Iterator[str]:
    """The arguments of a data set and of the objects within it, which may be set by the keys beside it."""
    if isinstance(node, dict):
        yield from argument_names(_called(path, node)) - {"split", "patch"} if "_target_" in node else ()
        for key, entry in node.items():
            yield from _names_below(f"{path}.{key}", entry)


def argument_names(called: Any) -> set[str]:
    """The argument names of a class or function; if a class takes **kwargs, those of its base class as well."""
    parameters = inspect.signature(called).parameters
    passes_on = isinstance(called, type) and any(each.kind == each.VAR_KEYWORD for each in parameters.values())
    return {*parameters, *(argument_names(called.__base__) if passes_on else ())}


def _called(path: str, node: Mapping[str, Any]) -> Any:
    try:
        return get_object(current(node)["_target_"])
    except (ImportError, ValueError, AttributeError) as error:
        raise SettingError(f"{path}._target_", import_problem(error)) from error


def import_problem(error: Exception) -> str:
    """What is wrong with an import path that Hydra could not load, and what to type."""
    cause = error.__cause__ or error
    if isinstance(cause, ModuleNotFoundError) and cause.name and f"Error loading '{cause.name}" in str(error):
        owner, _, missing = cause.name.rpartition(".")
        if owner:
            return f"cannot be imported: {owner} has no {missing!r}."
        return f"cannot be imported: no module named {missing!r}. Install it, or type PYTHONPATH=. before the command."
    return f"cannot be imported: {' '.join(str(cause).split())}"


def _arguments(path: str, node: Mapping[str, Any]) -> Options:
    """The arguments of a node's class or function, as options; without those that the command passes."""
    called = _called(path, node)
    checks = LIGHTNING.get(called, {})
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # raised for classes and functions written in C
        return {"*": None, **checks}
    optional_ones = [each for each in parameters if each.default is not each.empty or each.name in node]
    names = dict.fromkeys(each.name for each in optional_ones)
    takes_any = any(each.kind == each.VAR_KEYWORD for each in parameters)
    return {**names, **checks, **({"*": None} if takes_any else {})}

"""The configuration in a file is untrusted data: it may only name the objects allowed at each place.

A checkpoint and the folder of an incident hold the configuration of their run, and commands build the network, the data
set and the protocol from it. Hydra would call whatever a `_target_` names, and OmegaConf's resolvers read the
environment. To make it safe to evaluate a stranger's file, every such configuration is checked here first. Overrides
that the user types are trusted.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from depth_lightning.data.transforms import is_augmentation
from depth_lightning.metrics import ERRORS
from depth_lightning.runs.earlier import current
from depth_lightning.runs.overrides import is_below

DATASETS = (
    *("DepthPairs", "DepthShards", "NYUDepthV2", "RenderedRooms"),
    *("da2k.DA2K", "eth3d.ETH3D", "hub.HubDepth", "sunrgbd.SUNRGBD", "tum.TUM"),
)
LOSSES = ("AffineInvariantLoss", "L1Loss", "L2Loss", "LogL1Loss", "OfInverse", "SiLogLoss")
BELONGS: Mapping[str, tuple[str, ...]] = {
    r"model": ("depth_lightning.models.DepthAnythingV2",),
    r"adapter": ("depth_lightning.models.LoRA",),
    r"data(\.parts\.\w+)?\.dataset": tuple(f"depth_lightning.data.{name}" for name in DATASETS),
    r"data(\.parts\.\w+)?\.dataset\.encoding": ("depth_lightning.data.DepthEncoding",),
    r"protocol": ("depth_lightning.metrics.Protocol",),
    r"loss\.\w+(\.loss)?": tuple(f"depth_lightning.losses.{name}" for name in LOSSES),
    r"loss\.alignment": ("depth_lightning.training.alignment.FeatureAlignment",),
    r"optimizer": ("depth_lightning.training.optimizer.adamw",),
    r"scheduler": tuple(f"depth_lightning.training.scheduler.{name}" for name in ("poly", "cosine", "constant")),
}
"""A place in the configuration, as a pattern → the targets allowed there."""
AUGMENTATION = re.compile(r"data\.augmentation(\.\d+|\.transforms)+")
"""Where albumentations transforms are allowed."""
HUB_ID = re.compile(r"data(\.parts\.\w+)?(\.dataset)?\.path")
"""Where a text that is no folder names a data set of the Hugging Face hub."""
_BELOW = ("below_11", "below_22", "below_30")
METRICS = (
    *(f"depth_lightning.metrics.errors.{name}" for name in ERRORS),
    *(f"depth_lightning.metrics.boundary.boundary_{name}" for name in ("f1", "precision", "recall")),
    *(f"depth_lightning.metrics.normals.normals_{name}" for name in ("mean", "median", *_BELOW)),
    *(f"depth_lightning.metrics.points.points_{name}" for name in ("chamfer", "f1", "f1_25cm")),
)
OWN_KEYS = {
    "loss": {"metres", "up_to_scale", "disparity", "alignment", "across_devices"},
    "camera": {"focal_px", "default_fov_deg", "intrinsics", "size", "fov_deg"},
}
"""The keys of a group that names no target itself."""
BESIDE = {"model": {"weights", "init", "force"}}
"""Keys allowed beside a target's arguments."""
_OWN_KEY = re.compile(r"\$\{[\w.\[\]-]*\}")


class UntrustedConfigError(ValueError):
    """The configuration in a file names something that is not allowed at its place."""


def calls_resolver(text: str) -> bool:
    """Whether an interpolation in it is more than a reference to another key."""
    return "${" in _OWN_KEY.sub("", text)


def refuse_resolvers(config: Mapping[str, Any], source: str) -> None:
    """Check that a configuration refers only to its own keys.

    Args:
        config: plain and unresolved, from a file.
        source: the file, for the message.

    Raises:
        UntrustedConfigError: an interpolation with a resolver, such as ${oc.env:HOME}; a key with a dot.
    """
    # As OmegaConf sees it: a tuple becomes a list.
    written = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=False)
    for path, node in _mappings(written, ""):
        if dotted := [key for key in node if "." in str(key)]:  # it could pass for a key that is typed
            key = f"{path}.{dotted[0]}".strip(".")
            raise UntrustedConfigError(f"{source}: {key} in its configuration has a dot in its name. No key does.")
    for path, value in _leaves(written, ""):
        if isinstance(value, str) and calls_resolver(value):
            raise UntrustedConfigError(
                f"{source}: {path} in its configuration is {value!r}. A file may only refer to other keys of its "
                f"configuration, as in ${{data.root}}. Type {path}=… to replace it."
            )


def refuse_strangers(
    cfg: DictConfig, parts: Sequence[str], source: str, typed: Sequence[str] = (), trust: Sequence[str] = ()
) -> None:
    """Check that a file's configuration names only what is allowed at each place, before anything is built from it.

    Args:
        cfg: the file's configuration with the typed overrides on top.
        parts: those that come from the file.
        source: the file, for the message.
        typed: keys and groups that were typed, whose values are the user's own.
        trust: packages whose classes and functions are allowed as well.

    Raises:
        UntrustedConfigError: a target, an argument, a function or a network address that the file may not choose; a
            part that is missing.
    """
    for part in parts:
        node = cfg.get(part)
        if node is None and part in ("adapter", "camera"):
            continue
        right = type(node) is int and 0 <= node < 2**32 if part == "seed" else isinstance(node, DictConfig)
        if not right and not is_below(part, typed):
            expected = "a whole number, 0 to 4294967295" if part == "seed" else "a group of settings"
            raise UntrustedConfigError(f"{source}: {part} in its configuration is {expected}, found {node!r:.80}.")
        if OmegaConf.is_config(node):
            values = current(OmegaConf.to_container(node, resolve=True, throw_on_missing=False))
            _refuse_addresses(dict(_leaves(values, part)), dict(_leaves(_unresolved(node), part)), source, typed)
            for path, mapping in _mappings(values, part):
                if not is_below(path, typed):
                    _check(path, mapping, source, typed, trust)


def _refuse_addresses(values: Mapping[str, Any], written: Mapping[str, Any], source: str, typed: Sequence[str]) -> None:
    for path, value in values.items():
        on_hub = HUB_ID.fullmatch(path) and isinstance(value, str) and not Path(value).expanduser().is_dir()
        if on_hub or (isinstance(value, str) and ("://" in value or value.startswith(("//", "\\\\")))):
            # The key that it refers to is checked itself, unless it is only an address at this place.
            refers = _OWN_KEY.fullmatch(str(written.get(path))) and not on_hub
            if not refers and not is_below(path, typed):
                raise UntrustedConfigError(
                    f"{source}: {path} in its configuration is the address {value}. An address is only contacted "
                    f"if you type it: {path}=…"
                )


def _check(path: str, node: Mapping[str, Any], source: str, typed: Sequence[str], trust: Sequence[str]) -> None:
    own = {key: value for key, value in node.items() if not is_below(f"{path}.{key}", typed)}
    if path == "metrics":
        for name, function in own.items():
            if not (isinstance(function, str) and (function in METRICS or _trusted(function, trust))):
                raise _stranger(source, f"metrics.{name}", function)
    special = {key for key in own if isinstance(key, str) and key.startswith("_")}
    if unknown := own.keys() - OWN_KEYS.get(path, own.keys()):
        raise UntrustedConfigError(f"{source}: {path}.{min(unknown)} in its configuration does not belong there.")
    if "_target_" not in node:
        if special:
            raise UntrustedConfigError(f"{source}: {path}.{min(special)} in its configuration does not belong there.")
        return
    target = node["_target_"]
    if "_target_" in own and not _trusted(target, trust) and not _belongs(path, target):
        raise _stranger(source, path, target)
    allowed = {"_target_", "_convert_"} | ({"_partial_"} if path in ("optimizer", "scheduler") else set())
    if special - allowed:
        raise UntrustedConfigError(
            f"{source}: {path}.{min(special - allowed)} in its configuration does not belong there."
        )
    if _belongs(path, target):
        parameters = inspect.signature(get_object(target)).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            unknown = own.keys() - special - parameters.keys() - BESIDE.get(path, set())
            if unknown:
                raise UntrustedConfigError(
                    f"{source}: {path}.{min(unknown)} in its configuration is not an argument of {target}."
                )


def _belongs(path: str, target: Any) -> bool:
    if not isinstance(target, str):
        return False
    if AUGMENTATION.fullmatch(path):
        return is_augmentation(target)
    return any(re.fullmatch(place, path) and target in names for place, names in BELONGS.items())


def _trusted(target: Any, trust: Sequence[str]) -> bool:
    return isinstance(target, str) and any(target == name or target.startswith(f"{name}.") for name in trust)


def _stranger(source: str, path: str, target: Any) -> UntrustedConfigError:
    package = str(target).partition(".")[0]
    return UntrustedConfigError(
        f"{source}: {path} in its configuration names {target}, which is not of this project. Code that a file names "
        f"only runs if you trust it: if it is yours, type trust=[{package}], or set {path} yourself."
    )


def _unresolved(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=False)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping | list):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node


def _mappings(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in a tree, the outer ones first."""
    if isinstance(node, Mapping):
        yield path, node
    if isinstance(node, Mapping | list):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _mappings(value, f"{path}.{key}")

"""Configurations of earlier versions, in checkpoints, run folders and users' own YAML files, in today's form."""

from collections.abc import Mapping
from typing import Any

from depth_lightning.data.augmentation import augmentation_options
from depth_lightning.data.transforms import network_size
from depth_lightning.models.encoders import is_encoder, patch_of

MOVED = {
    "depth_lightning.training.callbacks.LearningRates": "depth_lightning.training.display.learning_rates.LearningRates",
    "depth_lightning.training.callbacks.StepSeed": "depth_lightning.training.saving.step_seed.StepSeed",
    "depth_lightning.training.callbacks": "depth_lightning.training.display.panels",
    "depth_lightning.training.checkpointing": "depth_lightning.training.saving.checkpointing",
    "depth_lightning.training.progress": "depth_lightning.training.display.progress",
    "depth_lightning.training.pruning": "depth_lightning.runs.pruning",
    "depth_lightning.training.throughput": "depth_lightning.training.display.throughput",
    "depth_lightning.training.validation_pictures": "depth_lightning.training.display.validation_pictures",
    "depth_lightning.training.watch": "depth_lightning.training.health.watch",
}
"""Former path of a module or class that a configuration may name → present path."""

UNSET: Mapping[str, Any] = {"exif": "auto", "image_range": [0, 65535]}
"""Keys of `DepthPairs` that earlier versions did not have → a value that means what they did."""

UNSET_ROOMS: Mapping[str, Any] = {"look": "usual", "off_centre": 0.0, "sky": "ignore"}
"""The same for `RenderedRooms`, which takes these values by default."""
CAMERA = ("intrinsics", "intrinsics_size", "calibration")
"""Keys of data sets that decide what is learned only with camera=canonical or augmentation=camera."""

NEW: Mapping[str, Mapping[str, Any]] = {
    "model": {"head": "sigmoid"},
    "data": {"every_batch": False},
    "optimizer": {"no_decay": []},
}
"""Part → its keys that earlier versions did not have → a value that means what they did; others are null."""


def current(node: Any) -> Any:
    """Plain values of a configuration, with every `_target_` under its present path."""
    if isinstance(node, Mapping):
        return {key: _present_path(value) if key == "_target_" else current(value) for key, value in node.items()}
    return [current(value) for value in node] if isinstance(node, list) else node


def with_unset(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` of a configuration, with what an earlier version did where it lacks a key."""
    values = {**data}
    if str((data.get("dataset") or {}).get("_target_")).endswith(".DepthPairs"):
        values = {**UNSET, **values}
    if "parts" in data:
        values["parts"] = {name: with_unset(part) for name, part in data["parts"].items()}
    return values


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's resolved configuration in a canonical form, so that configurations of the same meaning are equal.

    The augmentation, which may be chosen by `augmentation`, `data.augmentation` or both, becomes `data.augmentation`
    with all its options, and a square crop its size. Arguments of a data set's node that repeat a key of `data` are
    dropped, and so is what is set to what earlier versions did.
    """
    values: dict[str, Any] = current(config)
    chosen = values.pop("augmentation", None)
    canonical = values.pop("camera", None) or {}
    if canonical.get("focal_px") is not None:
        values["camera"] = canonical
    if "data" in values:
        encoder = values.get("model", {}).get("encoder")
        patch = patch_of(encoder if is_encoder(encoder) else "vits")
        data = _without_repetition(values["data"], patch, decisive="camera" in values)
        data["augmentation"] = augmentation_options(data["augmentation"], chosen)
        values["data"] = data
    for part, new in NEW.items():
        if part in values:
            values[part] = {key: value for key, value in values[part].items() if key not in new or value != new[key]}
    return values


def _without_repetition(data: Mapping[str, Any], patch: int, decisive: bool) -> dict[str, Any]:
    """Without what repeats or means nothing; the camera's keys only count if they are `decisive`."""
    unset = {**UNSET, **UNSET_ROOMS}
    values = {
        key: value
        for key, value in data.items()
        if (decisive or key not in CAMERA) and (key not in unset or value != unset[key])
    }
    if data.get("crop") == "square":
        values["crop"] = list(network_size(1, 1, data["size"], patch))
    if "dataset" in data:
        values["dataset"] = _own_arguments(data["dataset"], data)
    if "parts" in data:
        values["parts"] = {name: _without_repetition(part, patch, decisive) for name, part in data["parts"].items()}
    return values


def _own_arguments(node: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _own_arguments(value, data) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key not in data or value != data[key]
    }


def _present_path(target: Any) -> Any:
    for old, new in MOVED.items():
        if isinstance(target, str) and (target == old or target.startswith(f"{old}.")):
            return new + target.removeprefix(old)
    return target

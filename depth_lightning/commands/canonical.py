"""Configurations of different versions, and spellings, in one form."""

from collections.abc import Mapping
from typing import Any

from depth_lightning.data.augmentation import augmentation_options


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's resolved configuration in the form in which two of the same meaning are equal.

    The augmentation, which may be chosen by `augmentation`, `data.augmentation` or both, is `data.augmentation` with
    all its options. A data set's node holds no argument that is a key of `data`, too.
    """
    data = _canonical_data(config["data"])
    data["augmentation"] = augmentation_options(data["augmentation"], config.get("augmentation"))
    return {**{key: value for key, value in config.items() if key != "augmentation"}, "data": data}


def _canonical_data(data: Mapping[str, Any]) -> dict[str, Any]:
    canonical = {**data}
    if "dataset" in data:
        canonical["dataset"] = _without_repeated(data["dataset"], data)
    if "parts" in data:
        canonical["parts"] = {name: _canonical_data(part) for name, part in data["parts"].items()}
    return canonical


def _without_repeated(node: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_repeated(value, data) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key not in data or value != data[key]
    }

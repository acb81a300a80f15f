"""Configurations of different versions, and spellings, in one form."""

from collections.abc import Mapping
from typing import Any

from depth_lightning.data.augmentation import augmentation_options


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's resolved configuration in the form in which two of the same meaning are equal.

    The augmentation, which may be chosen by `augmentation`, `data.augmentation` or both, is `data.augmentation` with
    all its options.
    """
    data = {**config["data"]}
    data["augmentation"] = augmentation_options(data["augmentation"], config.get("augmentation"))
    return {**{key: value for key, value in config.items() if key != "augmentation"}, "data": data}

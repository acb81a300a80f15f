"""The options of conf/augmentation, parsed from every accepted form."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from depth_lightning.data.photometric import ColourNoise, check_share
from depth_lightning.data.transforms import check_rotation, check_zoom
from depth_lightning.settings import SettingError, several, unknown, within

COLOURS = asdict(ColourNoise())
ARTICLE: dict[str, Any] = {
    "flip_probability": 0.5,
    "zoom": [1, 1],
    "rotation_deg": 0,
    "transforms": [],
    **COLOURS,
    "noise_std": [0, 5],
}
AUTHORS = {**ARTICLE, "jitter_probability": 0, "noise_probability": 0}
NONE = {**AUTHORS, "flip_probability": 0}
CAMERA = {
    **ARTICLE,
    "zoom": [1, 2],
    "rotation_deg": 5,
    "transforms": [
        {"_target_": "albumentations.Defocus", "radius": [1, 3], "alias_blur": [0.1, 0.3], "p": 0.1},
        {"_target_": "albumentations.ShotNoise", "scale_range": [0.005, 0.03], "p": 0.2},
        {"_target_": "albumentations.RandomGamma", "gamma_limit": [70, 140], "p": 0.3},
        {
            "_target_": "albumentations.PlanckianJitter",
            "mode": "blackbody",
            "temperature_limit": [5000, 9000],
            "p": 0.3,
        },
        {"_target_": "albumentations.ImageCompression", "quality_range": [40, 95], "p": 0.3},
    ],
}
BY_NAME = {"article": ARTICLE, "authors": AUTHORS, "none": NONE, "camera": CAMERA}


def augmentation_options(own: Any, chosen: Any = None) -> dict[str, Any]:
    """All options of conf/augmentation.

    Both arguments are a name, one of `BY_NAME`, a list of transforms, which then replaces everything else, or a subset
    of the options.

    Args:
        own: the data set's, `data.augmentation`.
        chosen: the group's, `augmentation`, which take precedence; None if not set.

    Raises:
        SettingError: another form, an unknown option, or an invalid value.
    """
    options = ARTICLE | _written("data.augmentation", own)
    if chosen is not None:
        options |= _written("augmentation", chosen)
    return options


def augmentation_in_words(options: Mapping[str, Any]) -> str:
    """The name of a recipe, or its differences from the article's."""
    changed = ", ".join(f"{key}={value}" for key, value in options.items() if value != ARTICLE[key])
    return next((name for name, recipe in BY_NAME.items() if recipe == options), f"article with {changed}")


def _written(place: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value in BY_NAME:
        return BY_NAME[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = {**NONE, "transforms": list(value)}
    if not isinstance(value, Mapping):
        raise SettingError(
            place,
            f"is one of {', '.join(BY_NAME)}, a list of transforms, or the options of conf/augmentation, "
            f"found {value!r}.",
        )
    for key in value:
        if key not in ARTICLE:
            raise unknown(f"{place}.{key}", ARTICLE)
    options = {**ARTICLE, **value}
    with within(place):
        ColourNoise(**{key: option for key, option in options.items() if key in COLOURS})
        check_share("flip_probability", options["flip_probability"])
        check_zoom("zoom", options["zoom"])
        check_rotation("rotation_deg", options["rotation_deg"])
        several("transforms", options["transforms"], None, "a list of transforms, each with its _target_", _transform)
    return dict(value)


def _transform(name: str, value: Any) -> None:
    if not (isinstance(value, Mapping) and "_target_" in value):
        raise SettingError(name, f"has no _target_, found {value!r}.")

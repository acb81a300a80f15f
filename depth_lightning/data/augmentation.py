"""The options of conf/augmentation, parsed from every accepted form."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from depth_lightning.data.photometric import ColourNoise
from depth_lightning.settings import SettingError

ARTICLE: dict[str, Any] = {"flip_probability": 0.5, "transforms": [], **asdict(ColourNoise()), "noise_std": [0, 5]}
AUTHORS = {**ARTICLE, "jitter_probability": 0, "noise_probability": 0}
NONE = {**AUTHORS, "flip_probability": 0}
BY_NAME = {"article": ARTICLE, "authors": AUTHORS, "none": NONE}
PROBABILITIES = ("flip_probability", "jitter_probability", "noise_probability")
LARGEST = {**dict.fromkeys((*PROBABILITIES, "brightness", "contrast", "saturation"), 1), "hue": 0.5}


def augmentation_options(own: Any, chosen: Any = None) -> dict[str, Any]:
    """All options of conf/augmentation.

    Both arguments are a name ("article", "authors", "none"), a list of transforms, which then replaces everything
    else, or a subset of the options.

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
    if _is_list(value):
        return {**NONE, "transforms": list(value)}
    if not isinstance(value, Mapping):
        raise SettingError(
            place,
            f"is one of {', '.join(BY_NAME)}, a list of transforms, or the options of conf/augmentation, "
            f"found {value!r}.",
        )
    for key, option in value.items():
        if expected := _expected(key, option):
            raise SettingError(f"{place}.{key}", f"is {expected}, found {option!r}.")
    return dict(value)


def _expected(key: str, option: Any) -> str | None:
    """What an option should have been; None if it is right."""
    if key in LARGEST:
        return None if _is_number(option) and 0 <= option <= LARGEST[key] else f"a number from 0 to {LARGEST[key]}"
    if key == "transforms":
        return None if _is_list(option) else "a list of transforms"
    if key == "noise_std":
        fits = _is_list(option) and len(option) == 2 and all(map(_is_number, option))
        return None if fits and 0 <= option[0] <= option[1] else "[smallest, largest] in grey levels of 255"
    return f"no option: there are {', '.join(ARTICLE)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

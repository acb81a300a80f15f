"""Every form of data.augmentation and augmentation comes to the same options, and what cannot be right is named."""

import math

import pytest

from depth_lightning.data.augmentation import (
    ARTICLE,
    AUTHORS,
    BY_NAME,
    NONE,
    augmentation_in_words,
    augmentation_options,
)

OWN = [{"_target_": "albumentations.Rotate", "limit": 5}]


@pytest.mark.parametrize(
    ("own", "chosen", "expected"),
    [
        ("article", None, ARTICLE),
        ("authors", None, AUTHORS),
        ("none", None, NONE),
        (OWN, None, {**NONE, "transforms": OWN}),
        ({"hue": 0}, None, {**ARTICLE, "hue": 0}),
        ("authors", "none", NONE),
        (OWN, ARTICLE, ARTICLE),
        ("authors", {"noise_probability": 1}, {**AUTHORS, "noise_probability": 1}),
        ("article", {"transforms": OWN}, {**ARTICLE, "transforms": OWN}),
    ],
)
def test_forms(own, chosen, expected):
    assert augmentation_options(own, chosen) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "paper",
            r" is one of article, authors, none, camera, a list of transforms, or the options .*, found 'paper'\.",
        ),
        ({"jitter_probability": 1.5}, r"\.jitter_probability is a number from 0 to 1, found 1\.5\."),
        ({"flip_probability": True}, r"\.flip_probability is a number from 0 to 1, found True\."),
        ({"noise_probability": "often"}, r"\.noise_probability is a number from 0 to 1, found 'often'\."),
        ({"brightness": -0.1}, r"\.brightness is a number from 0 to 1, found -0\.1\."),
        ({"zoom": [0.5, 1]}, r"\.zoom is \[smallest, largest\] factor, 1 to 10, found \[0\.5, 1\]\."),
        ({"zoom": [2, 1]}, r"\.zoom is \[smallest, largest\] factor, 1 to 10, found \[2, 1\]\."),
        ({"rotation_deg": 90}, r"\.rotation_deg is a number from 0 to 45, found 90\."),
        ({"hue": 0.6}, r"\.hue is a number from 0 to 0\.5, found 0\.6\."),
        ({"noise_std": 5}, r"\.noise_std is \[smallest, largest\] in grey levels of 255, found 5\."),
        ({"noise_std": [5, 1]}, r"\.noise_std is \[smallest, largest\] .*, found \[5, 1\]\."),
        ({"noise_std": [0, math.nan]}, r"\.noise_std is \[smallest, largest\] .*, found \[0, nan\]\."),
        ({"transforms": "flip"}, r"\.transforms is a list of transforms, each with its _target_, found 'flip'\."),
        ({"transforms": [3]}, r"\.transforms is a list of transforms, each with its _target_, found \[3\]\."),
        ({"flip": 0.5}, r"\.flip is not an option\. Options of .*: brightness, contrast, flip_probability, "),
    ],
)
def test_what_cannot_be_right_is_named(value, message):
    with pytest.raises(ValueError, match=f"^data\\.augmentation{message}"):
        augmentation_options(value)
    with pytest.raises(ValueError, match=f"^augmentation{message}"):
        augmentation_options("none", value)


def test_words():
    for name, recipe in BY_NAME.items():
        assert augmentation_in_words(recipe) == name
    assert augmentation_in_words({**ARTICLE, "hue": 0, "noise_std": [0, 9]}) == "article with hue=0, noise_std=[0, 9]"

"""What is composed stays what earlier versions composed, and every way of choosing an augmentation builds it."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from depth_lightning.data.augmentation import BY_NAME
from depth_lightning.data.photometric import ColourNoise
from depth_lightning.runs import objects
from depth_lightning.runs.earlier import comparable

RECORDED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("compositions.json").read_text())
"""By overrides of train.py: parts of the configuration, as composed before augmentation was a group."""
OWN = "[{_target_: albumentations.Rotate, limit: 5}]"


@pytest.fixture
def composed(compose_config, monkeypatch):
    """composed(overrides): train.py's configuration, on a machine where no data set has a place of its own."""
    for name in ("NYU", "KITTI", "DIODE", "HYPERSIM", "MIDDLEBURY", "VKITTI2", "DA2K", "SHARDS"):
        monkeypatch.delenv(f"{name}_ROOT", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return lambda *overrides: compose_config("train", list(overrides))


def augmentation(cfg: DictConfig) -> tuple[float, int, ColourNoise | None]:
    """What is done: the probability of a flip, how many transforms of one's own, and the colours."""
    data = objects.build_data(cfg)
    transforms = data.train_transform.augment.transforms if data.train_transform.augment else []
    return data.train_transform.flip_probability, len(transforms), data.colour


@pytest.mark.parametrize("overrides", RECORDED)
def test_what_earlier_versions_composed(overrides, composed):
    cfg = objects.plain(composed(*overrides.split()))
    assert {part: cfg[part] for part in RECORDED[overrides]} == RECORDED[overrides]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_recipes_file_holds_what_its_name_stands_for(name, composed):
    assert objects.plain(composed(f"augmentation={name}").augmentation) == BY_NAME[name]


@pytest.mark.parametrize(
    "overrides, expected",
    [
        ([], (0.5, 0, ColourNoise(noise_std=[0, 5]))),
        (["data=rooms"], (0.5, 0, None)),
        (["data=rooms", "augmentation=article"], (0.5, 0, ColourNoise(noise_std=[0, 5]))),
        (["augmentation=none"], (0, 0, None)),
        (["augmentation=authors", "data.augmentation=none"], (0.5, 0, None)),
        (
            ["experiment=nyu_paper", "augmentation=article", "augmentation.noise_std=[2,9]"],
            (0.5, 0, ColourNoise(noise_std=[2, 9])),
        ),
        (["data=rooms", "+augmentation.flip_probability=0.1"], (0.1, 0, None)),
        (
            ["augmentation=article", "augmentation.jitter_probability=0", f"augmentation.transforms={OWN}"],
            (0.5, 1, ColourNoise(jitter_probability=0, noise_std=[0, 5])),
        ),
        ([f"data.augmentation={OWN}"], (0, 1, None)),
        (["debug=overfit"], (0, 0, None)),
        (["debug=overfit", "augmentation=article"], (0, 0, None)),
        (["debug=overfit", "data.augmentation=authors"], (0.5, 0, None)),
    ],
)
def test_every_way_of_choosing_an_augmentation(overrides, expected, composed):
    assert augmentation(composed(*overrides)) == expected


def test_a_yaml_of_ones_own_may_hold_a_list_a_name_or_some_options(composed, tmp_path):
    (tmp_path / "data").mkdir()
    held = {"listed": OWN, "named": "authors", "some": "{hue: 0}"}
    for name, value in held.items():
        (tmp_path / "data" / f"{name}.yaml").write_text(f"defaults: [pairs]\naugmentation: {value}\n")
    found = {name: composed(f"hydra.searchpath=[file://{tmp_path}]", f"data={name}") for name in held}
    assert augmentation(found["listed"]) == (0, 1, None)
    assert augmentation(found["named"]) == (0.5, 0, None)
    assert augmentation(found["some"]) == (0.5, 0, ColourNoise(hue=0, noise_std=[0, 5]))


def test_a_value_that_cannot_be_right_is_refused_with_its_key(composed):
    with pytest.raises(ValueError, match=r"^data\.augmentation is one of article, .*found 'paper'\.$"):
        augmentation(composed("data.augmentation=paper"))
    with pytest.raises(ValueError, match=r"^augmentation\.noise_std is .*, found \[5\]\.$"):
        augmentation(composed("augmentation=article", "augmentation.noise_std=[5]"))


@pytest.mark.parametrize(
    "earlier, overrides",
    [
        ("data=rooms", ["data=rooms", "augmentation=authors"]),
        ("data=rooms data.augmentation=none", ["data=rooms", "augmentation=none"]),
        ("experiment=rooms data.augmentation=article", ["experiment=rooms", "augmentation=article"]),
        ("experiment=nyu_paper data.augmentation=none", ["experiment=nyu_paper", "augmentation=none"]),
    ],
)
def test_the_same_augmentation_is_equal_however_it_was_chosen(earlier, overrides, composed):
    before = comparable(RECORDED[earlier])
    now = comparable(objects.plain(composed(*overrides)))
    assert now["data"] == before["data"] and "augmentation" not in now
    other = comparable(objects.plain(composed(*overrides, "augmentation.hue=0.2")))
    assert other["data"] != before["data"]

"""What is composed stays what earlier versions composed, and every way of choosing an augmentation builds it."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from depth_lightning.data import DepthPairs
from depth_lightning.data.augmentation import BY_NAME
from depth_lightning.data.photometric import ColourNoise
from depth_lightning.runs import objects
from depth_lightning.runs.earlier import CAMERA, comparable

RECORDED = json.loads(Path(__file__).with_name("compositions.json").read_text())
"""By overrides of train.py: parts of the configuration, from when data.dataset held every option of data again."""
LATER = {"exif": "auto", "image_range": None, "packing": None, "min_confidence": None} | dict.fromkeys(CAMERA)
"""Keys of data=pairs that came later, with their defaults."""
LATER_ROOMS = {"look": "usual", "fov_deg": None, "val_fov_deg": None, "off_centre": 0.0, "val_off_centre": None} | {
    "sky": "ignore"
}
"""The same of data=rooms."""
LATER_MIXTURE = {"every_batch": False}
"""The same of data=mixture."""
OWN = "[{_target_: albumentations.Rotate, limit: 5}]"


@pytest.fixture
def composed(compose_config, monkeypatch):
    """composed(overrides): train.py's configuration, on a machine where no data set has a place of its own."""
    for name in ("NYU", "KITTI", "DIODE", "HYPERSIM", "MIDDLEBURY", "VKITTI2", "DA2K", "SHARDS"):
        monkeypatch.delenv(f"{name}_ROOT", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return lambda *overrides: compose_config("train", list(overrides))


def augmentation(cfg):
    """What is done: the probability of a flip, how many transforms of one's own, and the colours."""
    data = objects.build_data(cfg)
    transforms = data.train_transform.augment.transforms if data.train_transform.augment else []
    return data.train_transform.flip_probability, len(transforms), data.colour


def without_later(node):
    """Without the keys that came later, if they have their defaults; without those of the camera in any case."""
    if not isinstance(node, dict):
        return node
    later = LATER | LATER_MIXTURE | (LATER_ROOMS if "fov_deg" in node else {})
    return {
        key: without_later(value) for key, value in node.items() if key not in CAMERA and later.get(key, later) != value
    }


def dataset_nodes(data):
    """What each data set was built from, by its part of the mixture."""
    return {name: part["dataset"] for name, part in data.get("parts", {"": data}).items()}


@pytest.mark.parametrize("overrides", RECORDED)
def test_what_earlier_versions_composed(overrides, composed):
    cfg, recorded = composed(*overrides.split()), RECORDED[overrides]
    now = without_later(objects.plain(cfg))
    assert {part: comparable(now)[part] for part in recorded} == comparable(recorded)
    data = dict(cfg.data.parts) if "parts" in cfg.data else {"": cfg.data}
    nodes = {name: without_later(objects.dataset_node(part)) for name, part in data.items()}
    assert nodes == dataset_nodes(recorded["data"])
    kept = OmegaConf.create({"parts": recorded["data"].get("parts", {"": recorded["data"]})}).parts
    assert {name: objects.dataset_node(part) for name, part in kept.items()} == dataset_nodes(recorded["data"])


def test_what_is_typed_reaches_the_data_set_of_an_earlier_checkpoint():
    """Its node refers to every key of `data`, as the yaml of that version did."""
    encoding = {"_target_": "depth_lightning.data.DepthEncoding", "depth_scale": "${...depth_scale}"}
    dataset = {"_target_": "depth_lightning.data.DepthPairs", "root": "${..root}", "encoding": encoding}
    saved = OmegaConf.create({"data": {"root": "there", "depth_scale": 1, "dataset": dataset}})
    OmegaConf.update(saved, "data.root", "here")
    OmegaConf.update(saved, "data.depth_scale", 1000)
    node = objects.dataset_node(saved.data)
    assert node["root"] == "here" and node["encoding"]["depth_scale"] == 1000


class OwnPairs(DepthPairs):
    def __init__(self, split, **options):
        super().__init__(split, **options)


def test_a_class_of_ones_own_takes_what_it_has_arguments_for(composed, tmp_path):
    """Not what is the loader's, nor what the yaml names for itself; and what its node says wins."""
    (tmp_path / "data").mkdir()
    for name, dataset in {
        "pairs_of_ones_own": f"{{_target_: {__name__}.OwnPairs, val_share: 0.5}}",
        "encoded": "{encoding: {depth_scale: 5}}",
        "other": "{_target_: depth_lightning.data.da2k.DA2K}",  # has an argument `size`
    }.items():
        text = f"defaults: [pairs]\nsubfolder: here\nroot: data/${{.subfolder}}\ndataset: {dataset}\n"
        (tmp_path / "data" / f"{name}.yaml").write_text(text)

    def built(name):
        data = composed(f"hydra.searchpath=[file://{tmp_path}]", f"data={name}", "data.depth_scale=1000").data
        return objects.dataset_node(data)

    pairs = {**RECORDED["data=pairs"]["data"]["dataset"], **LATER, **dict.fromkeys(CAMERA)}
    thousand = {**pairs["encoding"], "depth_scale": 1000}
    own = {"_target_": f"{__name__}.OwnPairs", "root": "data/here", "val_share": 0.5, "encoding": thousand}
    assert built("pairs_of_ones_own") == {**pairs, **own}
    assert built("encoded") == {**pairs, "root": "data/here", "encoding": {**thousand, "depth_scale": 5}}
    assert "size" not in built("other") and built("other")["root"] == "data/here"


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


@pytest.mark.parametrize(("overrides", "crop"), [("data.size=126", (126, 126)), ("data.size=126 data.crop=null", None)])
def test_the_crop_follows_the_size_unless_typed(overrides, crop, composed):
    cfg = composed("data=nyu", *overrides.split())
    assert objects.build_data(cfg).train_transform.crop == crop
    earlier = composed("data=nyu", "data.size=126", f"data.crop={[*crop] if crop else 'null'}".replace(" ", ""))
    assert comparable(objects.plain(cfg)) == comparable(objects.plain(earlier))


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
    assert without_later(now["data"]) == before["data"] and "augmentation" not in now
    other = comparable(objects.plain(composed(*overrides, "augmentation.hue=0.2")))
    assert other["data"] != before["data"]

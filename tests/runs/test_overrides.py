import pytest
from omegaconf import OmegaConf

from depth_lightning.runs.checkpoint import overlay
from depth_lightning.runs.overrides import references, typed, typed_key


@pytest.mark.parametrize(
    "override, expected",
    [
        ("optimizer.lr=5e-6", {"optimizer.lr": "5e-6"}),
        ("+metrics.mine=a.b", {"metrics.mine": "a.b"}),
        ("++data.size=84", {"data.size": "84"}),
        ("data.root='a=b, c'", {"data.root": "a=b, c"}),
        ('data.root="it\'s"', {"data.root": "it's"}),
        ("data.crop=[84,112]", {"data.crop": "[84,112]"}),
        ("checkpoint=", {"checkpoint": ""}),
        ("model=vits", {"model": "vits"}),
        ("seed=1,2", {"seed": "1,2"}),
        ("~callbacks.panels", {"callbacks.panels": None}),
        ("~model.features=16", {"model.features": None}),
    ],
)
def test_overrides_are_read_as_hydra_reads_them(override, expected):
    assert typed([override]) == expected


def test_the_last_counts():
    assert typed(["seed=1", "data=nyu", "seed=2"]) == {"seed": "2", "data": "nyu"}


def test_a_key_is_followed_to_the_one_it_refers_to():
    raw = {"root": "${..root}", "count": {"train": "${...train_images}"}, "depth": {"kind": "metres"}}
    assert typed_key("data.dataset", raw, "root") == "data.root"
    assert typed_key("data.dataset", raw, "count.train") == "data.train_images"
    assert typed_key("data.dataset", raw, "depth.kind") == "data.dataset.depth.kind"
    assert typed_key("callbacks.step_seed", {"seed": "${seed}"}, "seed") == "seed"
    loss = {"metres": {"loss": "${..disparity}"}, "up_to_scale": "${.metres}"}
    assert typed_key("loss", loss, "up_to_scale.variance_focus") == "loss.metres.variance_focus"
    assert typed_key("loss", loss, "metres.loss.trim") == "loss.disparity.trim"
    assert set(references({"a": "${b}/x", "c": {"d": ["${..e}", "${oc.env:HOME}"]}})) == {"b", "c.e"}


def test_what_was_deleted_is_deleted_from_what_the_run_says():
    model = {"encoder": "tiny", "features": 16}
    rest = {"data": {"size": 84}, "protocol": {"clip": True}, "metrics": {}, "seed": 1}
    saved = OmegaConf.create({"model": model, **rest})
    composed = OmegaConf.create({"model": {}, "data": {"size": 518}, "protocol": {}, "metrics": {}, "seed": 0})
    composed.update(checkpoint="a.ckpt", trust=[])
    merged = overlay(saved, composed, ["~model.features", "~protocol.clip", "data.size=518"])
    assert merged.model == {"encoder": "tiny"} and merged.protocol == {} and merged.data.size == 518
    assert merged.seed == 1 and saved.model == model

"""Runs with encoders of timm: trained, scored, predicted, shown and exported at multiples of their own patch."""

import json

import cv2
import numpy as np
import pytest

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.export import export
from depth_lightning.commands.train import train
from depth_lightning.inference import load
from depth_lightning.models import resolve_weights
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network, read_run_checkpoint
from depth_lightning.runs.options import check
from depth_lightning.runs.record import Origin, find_origin
from depth_lightning.runs.weights import start_weights
from depth_lightning.settings import SettingError

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
SHALLOW = "+model.taps=[0,1,2,3]"


@pytest.fixture(scope="module")
def typed(small):
    return [*small, "encoder=dinov3_vitt", "model.weights=null", "data.size=44", "report=false", SHALLOW]


@pytest.fixture(scope="module")
def run(typed, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dinov3")
    train(compose_config("train", [*typed, "trainer.max_epochs=1"], folder))
    return folder / "checkpoints/best.ckpt"


def test_every_step_uses_the_networks_patch(run, typed, compose_config):
    data = objects.build_data(compose_config("train", [*typed, "data.crop=square"]))
    data.setup("fit")
    assert data.train_transform.crop == (48, 48)
    assert data.train_data[0].image.shape[:2] == (48, 48) and data.val_data[0].image.shape[:2] == (48, 64)
    predictor = load(run, device="cpu")
    assert predictor.prepare(IMAGE).shape == (48, 64, 3) and predictor.network.encoder.taps == (0, 1, 2, 3)
    assert predictor.predict(IMAGE).shape == (60, 80)


def test_a_checkpoint_describes_its_encoder(run, compose_config, tmp_path):
    given = [f"checkpoint={run}"]
    result = evaluate(compose_config("evaluate", given, tmp_path), given)
    assert result.counts.depth.scored == 5
    assert json.loads((tmp_path / "metrics.json").read_text())["model"]["encoder"] == "dinov3_vitt"


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_official_layouts_are_refused(layout, run, compose_config, tmp_path):
    given = [f"checkpoint={run}", f"layout={layout}", f"output={tmp_path}/out"]
    with pytest.raises(ValueError, match=rf"^layout={layout} is read by code .* this network has dinov3_vitt: use "):
        export(compose_config("export", given, tmp_path), given)
    assert not (tmp_path / "out").exists()


def test_the_own_layout_is_exported_and_read(run, compose_config, tmp_path):
    given = [f"checkpoint={run}", "layout=safetensors", f"output={tmp_path}/out"]
    export(compose_config("export", given, tmp_path), given)
    read = load(tmp_path / "out/model.safetensors", device="cpu")
    np.testing.assert_array_equal(read.predict(IMAGE), load(run, device="cpu").predict(IMAGE))
    more = [f"model.weights={tmp_path}/out/model.safetensors", "encoder=dinov3_vitt", "data.size=44"]
    network = objects.build_network(compose_config("evaluate", [*more, SHALLOW]).model)
    assert "(all)" in str(start_weights(network, compose_config("evaluate", [*more, SHALLOW]).model))


def test_the_sheet_shows_crops_of_the_networks_patch(small, compose_config, tmp_path):
    rooms = ["data=rooms", *(override for override in small if override.startswith("data."))]
    cfg = compose_config("show", [*rooms, "encoder=dinov3_vits", "data.crop=[32,48]"], tmp_path)
    check(cfg, "show")
    assert objects.build_data(cfg).train_transform.crop == (32, 48)
    assert objects.build_data(compose_config("show", [*rooms, "data.crop=[28,42]"])).train_transform.crop == (28, 42)


def test_point_pairs_are_read_at_multiples_of_the_patch(compose_config, tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), IMAGE)
    pairs = {"images/a.png": [{"point1": [1, 1], "point2": [50, 70], "closer_point": "point1"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(pairs))
    given = ["data=da2k", f"data.root={tmp_path}", "data.size=44", "encoder=dinov3_vits"]
    cfg = compose_config("evaluate", given)
    assert objects.dataset_of(cfg.data)(patch=objects.patch_size(cfg))[0].image.shape == (3, 48, 64)


def test_the_origin_of_an_encoder_is_its_hub_id_and_licence():
    assert find_origin("timm/vit_small_patch16_dinov3") == Origin(
        "timm/vit_small_patch16_dinov3.lvd1689m", "dinov3-license"
    )


def test_any_vision_transformer_of_timm_by_name(small, compose_config, tmp_path):
    given = [*small, "encoder=timm", "encoder.name=vit_tiny_patch16_224.augreg_in21k", SHALLOW, "report=false"]
    assert compose_config("train", given).model.weights == "timm/vit_tiny_patch16_224.augreg_in21k"
    more = ["model.weights=null", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "callbacks=unfreeze"]
    train(compose_config("train", [*given, *more], tmp_path))
    config, state = read_run_checkpoint(tmp_path / "checkpoints/best.ckpt")
    assert config.model.encoder == "vit_tiny_patch16_224.augreg_in21k"
    assert "network.encoder.vit.blocks.3.mlp.fc2.weight" in state
    assert load(tmp_path / "checkpoints/best.ckpt", device="cpu").network.encoder.patch == 16
    typed = [f"checkpoint={tmp_path}/checkpoints/best.ckpt", "encoder=dinov3_vits"]
    with pytest.raises(ValueError, match=r"holds a vit_tiny_patch16_224\.augreg_in21k, but dinov3_vits was requested"):
        chosen_network(compose_config("evaluate", typed), typed, "evaluate")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder=dinov3_vits", "data.crop=[518,518]"], r"^data\.crop is \[height, width\] in multiples of 16, .*518"),
        (
            ["encoder=timm", "encoder.name=null"],
            r"^encoder\.name is the name of a vision transformer in timm, found None\.$",
        ),
        (["encoder=timm", "encoder.name=resnet50"], r"^encoder\.name is one of vits, .* in timm, found 'resnet50'\.$"),
        (
            ["model.encoder=dinov3_vit"],
            r"^model\.encoder is one of vits, .*found 'dinov3_vit'\. Did you mean dinov3_vit",
        ),
        (
            ["encoder=dinov3_vits", "+model.taps=[1,2,3]"],
            r"^model\.taps is four blocks, counted from 0, found \[1, 2, 3\]",
        ),
        (
            ["encoder=dinov3_vits", "+model.taps=[3,2,1,0]"],
            r"^model\.taps are blocks of dinov3_vits, 0 to 11, in ascending",
        ),
        (
            ["encoder=vits", "model.weights=null", "+model.taps=[8,9,10,11]"],
            r"^model\.taps are for encoders of timm; .* \[2, 5",
        ),
        (
            ["encoder=dinov3_vits_plus", "adapter=lora"],
            r"^adapter\.linears are some of qkv, proj, fc2 with encoder=dinov3_vits_plus, found ",
        ),
        (
            ["encoder=dinov3_vitt", "optimizer.layer_decay=1.5"],
            r"^optimizer\.layer_decay is a number above 0 and at most 1",
        ),
        (["encoder=dinov3_vitt", "model.init=neck"], r"^model\.init is one of all, encoder, head, found 'neck'\.$"),
    ],
)
def test_wrong_choices_are_refused_before_training(overrides, message, small, compose_config, tmp_path):
    cfg = compose_config("train", [*small, "model.weights=null", *overrides], tmp_path)
    with pytest.raises(SettingError, match=message):
        check(cfg, "train")
        objects.build_data(cfg)
        objects.build_module(cfg, objects.build_network(cfg.model, cfg.adapter))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm/vit_small_patch16_dinov3.other", "neither a file nor a hub id"),
        ("timm/resnet50", "timm/<name> for an encoder"),
    ],
)
def test_unknown_weights_of_timm_are_refused(source, message):
    with pytest.raises(FileNotFoundError, match=message):
        resolve_weights(source)

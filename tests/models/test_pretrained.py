"""The package's own weights, which need no download."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from depth_lightning.commands.train import train
from depth_lightning.data.rooms import RenderedRooms
from depth_lightning.inference import load
from depth_lightning.metrics import DepthMetrics, Protocol
from depth_lightning.models import (
    DepthAnythingV2,
    find_provenance,
    find_release,
    load_weights,
    resolve_weights,
)


def test_the_file_is_small_whole_and_described():
    path = resolve_weights("rooms_tiny")
    assert path.name == "rooms_tiny.safetensors" and path.stat().st_size <= 10e6
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert find_release("rooms_tiny").sha256 == sha256
    card = path.with_name("README.md").read_text()
    assert sha256 in card and "license: apache-2.0" in card and "experiment=rooms_tiny" in card
    with safe_open(path, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_name_means_it_whatever_the_folder_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rooms_tiny").mkdir()
    assert find_provenance(Path("rooms_tiny")).size == 84
    (tmp_path / "rooms_tiny").rmdir()
    (tmp_path / "rooms_tiny").write_bytes(b"mine")
    assert resolve_weights("rooms_tiny").name == "rooms_tiny.safetensors"
    assert resolve_weights("./rooms_tiny").read_bytes() == b"mine"


def test_a_damaged_installation_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("depth_lightning.models.hub.PRETRAINED", tmp_path)
    (tmp_path / "rooms_tiny.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"is not the published rooms_tiny\.safetensors: .* Install the package again"):
        resolve_weights("rooms_tiny")


def test_it_loads_whole_into_a_relative_network_and_its_encoder_into_a_metric_one():
    path = resolve_weights("rooms_tiny")
    relative, metric = DepthAnythingV2("tiny", "relative"), DepthAnythingV2("tiny", "metric")
    report = load_weights(relative, path)
    assert not report.dropped and not report.missing and report.provenance.output == "relative"
    load_weights(metric, path, init="encoder")
    for name, tensor in metric.encoder.state_dict().items():
        assert torch.equal(tensor, relative.encoder.state_dict()[name])
    with pytest.raises(ValueError, match=r"holds a relative network .* type model\.output=relative"):
        load_weights(metric, path)


@pytest.mark.parametrize("look", ["usual", "mixed"])
def test_it_sees_depth_in_scenes_that_it_was_not_trained_on(look):
    """AbsRel after scale and shift in disparity; a ramp from the top down, fitted in the same way, has far more."""
    model = load("rooms_tiny")
    scored, ramp = (DepthMetrics(Protocol(max_depth=200, alignment="scale_shift_disparity")) for _ in range(2))
    for sample in RenderedRooms(None, "val", 24, seed=1, look=look):
        target, mask = torch.from_numpy(sample.target)[None], torch.from_numpy(sample.mask)[None]
        disparity = torch.from_numpy(model.predict(sample.image))[None]
        scored.update(disparity, target, mask)
        ramp.update(torch.linspace(1, 2, disparity.shape[1])[None, :, None].expand_as(disparity), target, mask)
    assert scored.compute()["abs_rel"] < 0.75 * ramp.compute()["abs_rel"]


def test_the_quick_start_begins_with_it(compose_config, tmp_path, caplog):
    few = ("data.train_images=8", "data.val_images=3", "data.size=42", "data.batch_size=4", "data.eval_batch_size=2")
    short = ("trainer.max_epochs=1", "trainer.log_every_n_steps=1", "callbacks.panels.images=1", "report=false")
    cfg = compose_config(
        "train", ["experiment=quick_start", f"data.root={tmp_path}/rooms", *few, *short], tmp_path / "run"
    )
    with caplog.at_level("INFO", "depth_lightning"):
        train(cfg)
    assert "(encoder) from" in caplog.text and "The head keeps its random start" in caplog.text
    assert "rooms_tiny.safetensors is licensed under Apache-2.0" in caplog.text

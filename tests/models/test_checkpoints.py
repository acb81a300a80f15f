import errno
import json
import logging
import os
import pickle
from pathlib import Path

import pytest
import torch

from depth_lightning.models import DepthAnythingV2, load_weights, official_state_dict, save_weights


@pytest.fixture(scope="module")
def tiny_state():
    torch.manual_seed(1)
    return {key: torch.randn_like(tensor) for key, tensor in official_state_dict(DepthAnythingV2("tiny")).items()}


@pytest.fixture
def save(tmp_path):
    def write(content, name="weights.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write


def held(network):
    return {key: tensor.clone() for key, tensor in official_state_dict(network).items()}


def assert_same(state, expected):
    assert set(state) == set(expected)
    assert [key for key in state if not torch.equal(state[key], expected[key])] == []


@pytest.mark.parametrize("encoder", ["vits", "vitb", "vitl", "vitg"])
def test_keys_and_shapes_are_the_published_ones(encoder, golden):
    with torch.device("meta"):
        network = DepthAnythingV2(encoder)
    shapes = {key: list(tensor.shape) for key, tensor in official_state_dict(network).items()}
    assert shapes == json.loads((golden / f"state_dict_metric_{encoder}.json").read_text())


def test_load_then_save_changes_nothing(vits_file, tmp_path):
    network = DepthAnythingV2("vits")
    report = load_weights(network, vits_file)
    assert (report.layout, report.loaded, report.dropped, report.missing) == ("official", 239, (), ())
    assert str(report) == f"Loaded 239 tensors (all) from {vits_file} in the official layout."
    save_weights(network, tmp_path / "new" / "saved.pth")
    saved = torch.load(tmp_path / "new" / "saved.pth", weights_only=True)
    assert_same(saved, torch.load(vits_file, weights_only=True))
    assert all(tensor.is_contiguous() for tensor in saved.values())


def test_save_overwrites_nothing_and_leaves_no_partial_file(tmp_path, monkeypatch):
    network = DepthAnythingV2("tiny")
    path = tmp_path / "weights.pth"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=str(path)):
        save_weights(network, path)
    assert path.read_text() == "mine"
    path.unlink()

    def break_off(path, content):
        with path.open("wb") as file:
            file.write(content[:1000])
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "write_bytes", break_off)
    for layout, file in {"official": "", "safetensors": "", "transformers": "/model.safetensors"}.items():
        network = DepthAnythingV2("vits" if layout == "transformers" else "tiny")
        with pytest.raises(OSError, match=rf"{path}{file} could not be written\. disk full: it takes \d+\.\d MB"):
            save_weights(network, path, layout)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["module.", "model", "legacy file", "mask_token (1, 1, c)"])
def test_variants_of_the_published_layout_load(variant, tiny_state, save):
    content, options = dict(tiny_state), {}
    if variant == "module.":
        content = {f"module.{key}": tensor for key, tensor in content.items()}
    elif variant == "model":
        content = {"model": content, "epoch": 3}
    elif variant == "legacy file":
        options = {"_use_new_zipfile_serialization": False}
    else:
        content["pretrained.mask_token"] = content["pretrained.mask_token"][None]
    network = DepthAnythingV2("tiny")
    report = load_weights(network, save(content, **options))
    assert report.loaded == len(tiny_state)
    assert_same(held(network), tiny_state)


@pytest.mark.parametrize("complete", [True, False])
def test_encoder_alone_leaves_the_head(complete, tiny_state, save):
    network = DepthAnythingV2("tiny")
    before = held(network)
    head = {key for key in tiny_state if key.startswith("depth_head.")}
    content = tiny_state if complete else {key: t for key, t in tiny_state.items() if key not in head}
    report = load_weights(network, save(content), init="encoder")
    assert report.loaded == len(tiny_state) - len(head)
    assert set(report.dropped) == (head if complete else set())
    assert "The head keeps its random start" in str(report)
    assert_same(held(network), {key: (before if key in head else tiny_state)[key] for key in tiny_state})


def test_reports_every_dropped_and_missing_key(tiny_state, save):
    content = {**tiny_state, "pretrained.extra": torch.zeros(1), "other": torch.zeros(1)}
    del content["pretrained.mask_token"]
    report = load_weights(DepthAnythingV2("tiny"), save(content), init="encoder")
    assert report.missing == ("pretrained.mask_token",)
    assert {"pretrained.extra", "other"} < set(report.dropped)
    for key in ("pretrained.extra", "other", "pretrained.mask_token"):
        assert key in str(report)


@pytest.mark.parametrize(
    ("init", "lacking", "hint"),
    [
        ("all", ["pretrained.mask_token"], ""),
        ("all", ["depth_head.projects.0.bias", "depth_head.scratch.layer1_rn.weight"], "model.init=encoder"),
        ("encoder", ["pretrained.blocks.3.attn.qkv.bias"], ""),
    ],
)
def test_missing_keys_are_an_error_and_change_nothing(init, lacking, hint, tiny_state, save):
    network = DepthAnythingV2("tiny")
    before = held(network)
    with pytest.raises(ValueError, match=f"lacks {len(lacking)} of .*{hint}") as error:
        load_weights(network, save({key: t for key, t in tiny_state.items() if key not in lacking}), init)
    assert all(key in str(error.value) for key in lacking)
    assert ("model.init=encoder" in str(error.value)) == bool(hint)
    assert_same(held(network), before)


def test_wrong_encoder_names_both(vits_file):
    with pytest.raises(ValueError, match=r"holds vits \(width 384, 12 blocks\), and the network is tiny .*model=vits"):
        load_weights(DepthAnythingV2("tiny"), vits_file)


def test_encoder_of_the_same_width_and_another_depth_is_wrong(tiny_state, save):
    shallow = {key: t for key, t in tiny_state.items() if not key.startswith("pretrained.blocks.7.")}
    with pytest.raises(ValueError, match=r"an unknown encoder \(width 192, 7 blocks\), and the network is tiny"):
        load_weights(DepthAnythingV2("tiny"), save(shallow))


def test_other_shapes_are_listed(tiny_state, save):
    network = DepthAnythingV2("tiny", features=16)
    with pytest.raises(ValueError, match=r"layer1_rn.weight is \(32, 24, 3, 3\), not \(16, 24, 3, 3\)"):
        load_weights(network, save(tiny_state))


def test_unknown_init_is_an_error(vits_file):
    with pytest.raises(ValueError, match="'neck'"):
        load_weights(DepthAnythingV2("tiny"), vits_file, init="neck")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_nothing_is_unpickled(kind, tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "was-run"
    content = {"pretrained.cls_token": Malicious(str(trace))}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match=r"weights.pth was refused"):
        load_weights(DepthAnythingV2("tiny"), path)
    assert not trace.exists()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"none.pth does not exist; .* resolve_weights\(…\) fetches the weights of a hub id, such as ",
    ):
        load_weights(DepthAnythingV2("tiny"), tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_weights(DepthAnythingV2("tiny"), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "torn"),
        (lambda whole: b"<!DOCTYPE html><html>", "starts with b'<!DOCTYPE"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "starts with b'version"),
        (lambda whole: b"", "is empty"),
        (lambda whole: b"\x80\x02", "is torn or damaged"),
    ],
)
def test_not_a_checkpoint(make, message, tiny_state, save):
    path = save(tiny_state)
    path.write_bytes(make(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        load_weights(DepthAnythingV2("tiny"), path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds Tensor, expected a state dict"),
        ({"epoch": 3, "weight": torch.zeros(3)}, "epoch hold no tensors"),
        ({"encoder.layer.0.weight": torch.zeros(3)}, "its keys are in none of the layouts official"),
        ({"pretrained.norm.weight": torch.zeros(3)}, "lacks pretrained.cls_token"),
    ],
)
def test_not_weights_of_a_depth_anything(content, message, save):
    with pytest.raises(ValueError, match=message):
        load_weights(DepthAnythingV2("tiny"), save(content))


def test_released_relative_file_does_not_become_metric(vits_file, tmp_path, caplog):
    released = tmp_path / "depth_anything_v2_vits.pth"
    released.symlink_to(vits_file)
    with pytest.raises(ValueError, match=r"type model.output=relative, or model.init=encoder"):
        load_weights(DepthAnythingV2("vits", "metric"), released)
    load_weights(DepthAnythingV2("vits", "relative"), released)
    load_weights(DepthAnythingV2("vits", "metric"), released, init="encoder")
    assert caplog.records == []


def test_released_metric_file_does_not_become_relative_and_tells_its_max_depth(vits_file, tmp_path, caplog):
    released = tmp_path / "depth_anything_v2_metric_hypersim_vits.pth"
    released.symlink_to(vits_file)
    with pytest.raises(ValueError, match=r"type model.output=metric"):
        load_weights(DepthAnythingV2("vits", "relative"), released)
    with caplog.at_level(logging.WARNING):
        load_weights(DepthAnythingV2("vits", "metric", max_depth=20.0), released)
        assert caplog.records == []
        load_weights(DepthAnythingV2("vits", "metric", max_depth=10.0), released)
    assert "0.5 times as large" in caplog.text
    assert "model.max_depth=20" in caplog.text

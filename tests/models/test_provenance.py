import json
import logging

import pytest
import torch

from depth_lightning.models import DepthAnythingV2, load_weights, official_state_dict, save_weights
from depth_lightning.models.provenance import find_provenance

V2_TAPS = {"out_indices": [3, 6, 9, 12]}


@pytest.fixture
def weights(tmp_path):
    """weights(name) is a file or, without a suffix, a folder of tiny weights that say nothing."""

    def write(name):
        path = tmp_path / name
        file = path if path.suffix else path / "pytorch_model.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(official_state_dict(DepthAnythingV2("tiny")), file)
        return path

    return write


def test_a_file_that_tells_nothing_is_taken_as_what_the_network_is(weights):
    for output in ("metric", "relative"):
        assert load_weights(DepthAnythingV2("tiny", output), weights("mine.pth")).provenance is None


@pytest.mark.parametrize(
    ("name", "beside", "content", "output", "max_depth"),
    [
        ("a.pth", "a.pth.json", {"output": "relative"}, "relative", None),
        ("a.pth", "a.pth.json", {"output": "metric", "max_depth": 7.5}, "metric", 7.5),
        ("depth_anything_v2_metric_vkitti_vits.pth", None, None, "metric", 80.0),
        ("depth_anything_v2_vits.pth", None, None, "relative", None),
        # Metadata was written with the weights, a name by whoever copied them.
        (
            "depth_anything_v2_vits.pth",
            "depth_anything_v2_vits.pth.json",
            {"output": "metric", "max_depth": 3},
            "metric",
            3,
        ),
        ("folder", "config.json", {"model_type": "depth_anything", "backbone_config": V2_TAPS}, "relative", None),
        (
            "folder",
            "config.json",
            {"model_type": "depth_anything", "depth_estimation_type": "metric", "max_depth": 20},
            "metric",
            20.0,
        ),
        ("Depth-Anything-V2-Metric-Outdoor-Base-hf", None, None, "metric", 80.0),
        ("models--depth-anything--Depth-Anything-V2-Small-hf/snapshots/0", None, None, "relative", None),
    ],
)
def test_kind_is_known_and_the_other_refused(name, beside, content, output, max_depth, weights, caplog):
    path = weights(name)
    if beside:
        (path / beside if path.is_dir() else path.with_name(beside)).write_text(json.dumps(content))
    right = DepthAnythingV2("tiny", output, max_depth or 10.0)
    wrong = DepthAnythingV2("tiny", "relative" if output == "metric" else "metric")
    provenance = load_weights(right, path).provenance
    assert (provenance.output, provenance.max_depth, provenance.version) == (output, max_depth, "V2")
    assert caplog.records == []
    with pytest.raises(ValueError, match=rf"type model.output={output}, or model.init=encoder .* model.force=true"):
        load_weights(wrong, path)
    load_weights(wrong, path, init="encoder")
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        load_weights(wrong, path, force=True)
    assert f"holds a {output} network" in caplog.text


@pytest.mark.parametrize(
    ("name", "beside", "content"),
    [
        ("depth_anything_vits14.pth", None, None),
        ("depth_anything_metric_depth_indoor.pt", None, None),
        ("depth-anything-small-hf", None, None),
        ("models--LiheYoung--depth_anything_vitl14/snapshots/0/pytorch_model.bin", None, None),
        (
            "folder",
            "config.json",
            {"model_type": "depth_anything", "backbone_config": {"out_indices": [9, 10, 11, 12]}},
        ),
        (
            "folder",
            "config.json",
            {"model_type": "depth_anything", "backbone_config": {"out_features": [f"stage{i}" for i in range(21, 25)]}},
        ),
        ("a.pth", "a.pth.json", {"version": "V1", "output": "metric"}),
    ],
)
@pytest.mark.parametrize("init", ["all", "encoder"])
def test_v1_is_refused(name, beside, content, init, weights, caplog):
    path = weights(name)
    if beside:
        (path / beside if path.is_dir() else path.with_name(beside)).write_text(json.dumps(content))
    network = DepthAnythingV2("tiny")
    with pytest.raises(ValueError, match=r"Depth Anything V1 .* model.force=true"):
        load_weights(network, path, init)
    with caplog.at_level(logging.WARNING):
        load_weights(network, path, init, force=True)
    assert "Depth Anything V1" in caplog.text


def test_v1_message_types_the_id_of_v2(vits_file, tmp_path):
    named = tmp_path / "depth_anything_vits14.pth"
    named.symlink_to(vits_file)
    with pytest.raises(ValueError, match=r"type model.weights=depth-anything/Depth-Anything-V2-Small for"):
        load_weights(DepthAnythingV2("vits", "relative"), named)


@pytest.mark.parametrize(
    ("name", "beside", "text", "message"),
    [
        ("folder", "config.json", '{"model_type": "dinov2"}', "'dinov2' model, expected 'depth_anything'"),
        ("folder", "config.json", "{", "is not JSON"),
        ("a.pth", "a.pth.json", '{"output": ', "is not JSON"),
    ],
)
def test_bad_configuration_is_an_error(name, beside, text, message, weights):
    path = weights(name)
    (path / beside if path.is_dir() else path.with_name(beside)).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_weights(DepthAnythingV2("tiny"), path)


def test_encoder_is_told_to_build_a_network_by(tmp_path):
    save_weights(DepthAnythingV2("tiny"), tmp_path / "b.pth")
    assert find_provenance(tmp_path / "b.pth").encoder == "tiny"
    save_weights(DepthAnythingV2("vits", "relative"), tmp_path / "folder", "transformers")
    (tmp_path / "folder" / "metadata.json").unlink()
    assert find_provenance(tmp_path / "folder").encoder == "vits"
    assert find_provenance(tmp_path / "depth_anything_v2_metric_vkitti_vitl.pth").encoder == "vitl"


def test_json_of_others_says_nothing(weights):
    path = weights("a.pth")
    for content in ([1, 2], {"loss": 0.1}, {"output": "${model.output}"}):
        path.with_name("a.pth.json").write_text(json.dumps(content))
        assert find_provenance(path, None) is None
    assert find_provenance(path, {"model": {"output": "${data.output}"}}) is None


def test_metadata_is_merged_and_the_network_knows_best(tmp_path):
    given = {"licence": "Apache-2.0", "protocol": "abc123", "size": 518, "output": "relative"}
    save_weights(DepthAnythingV2("tiny", "metric", 7.5), tmp_path / "a.pth", metadata=given)
    assert json.loads((tmp_path / "a.pth.json").read_text()) == {
        **given,
        "encoder": "tiny",
        "output": "metric",
        "max_depth": 7.5,
        "version": "V2",
    }

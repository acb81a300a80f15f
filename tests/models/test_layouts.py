import json

import pytest
import timm
import torch

from depth_lightning.models import DepthAnythingV2, load_weights, official_state_dict
from depth_lightning.models.layouts import to_official, to_transformers
from depth_lightning.models.transformers_folder import transformers_config
from depth_lightning.training import DepthModule


@pytest.fixture(scope="module")
def tiny_state():
    torch.manual_seed(1)
    return {key: torch.randn_like(tensor) for key, tensor in official_state_dict(DepthAnythingV2("tiny")).items()}


def shapes(state):
    return {key: list(tensor.shape) for key, tensor in state.items()}


def test_transformers_and_back_is_bit_for_bit(tiny_state):
    theirs = to_transformers(tiny_state)
    assert len(theirs) == len(tiny_state) + 8 * 2 * 2  # q, k and v of eight blocks, weight and bias
    assert not any(key.startswith(("pretrained.", "depth_head.")) for key in theirs)
    layout, back = to_official(theirs)
    assert layout == "transformers"
    assert set(back) == set(tiny_state)
    assert all(torch.equal(back[key], tensor) for key, tensor in tiny_state.items())


@pytest.mark.parametrize("encoder", ["vits", "vitb", "vitl"])  # in memory it splits the layers of vitg's SwiGLU
def test_what_transformers_builds_from_our_config_has_the_published_keys(encoder, golden):
    transformers = pytest.importorskip("transformers")
    published = json.loads((golden / f"state_dict_metric_{encoder}.json").read_text())
    with torch.device("meta"):
        config = transformers_config(DepthAnythingV2(encoder))
        theirs = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(**config)).state_dict()
    layout, state = to_official(theirs)
    assert layout == "transformers"
    assert shapes(state) == published


def test_timm_giant_has_the_published_keys(golden):
    published = json.loads((golden / "state_dict_metric_vitg.json").read_text())
    with torch.device("meta"):
        theirs = timm.create_model("vit_giant_patch14_dinov2").state_dict()
    layout, state = to_official(theirs)
    assert layout == "timm DINOv2"
    encoder = {key: shape for key, shape in published.items() if key.startswith("pretrained.")}
    del encoder["pretrained.mask_token"]  # the only tensor that timm leaves out
    assert shapes(state) == encoder


def test_timm_encoder_loads_and_gives_its_tokens(tmp_path):
    torch.manual_seed(2)
    vit = timm.create_model("vit_small_patch14_dinov2").eval()
    torch.save(vit.state_dict(), tmp_path / "timm.pth")
    network = DepthAnythingV2("vits").eval()
    report = load_weights(network, tmp_path / "timm.pth", init="encoder")
    assert (report.layout, report.missing, report.dropped) == ("timm DINOv2", ("pretrained.mask_token",), ())
    image = torch.randn(1, 3, 518, 518)
    with torch.inference_mode():
        expected = vit.forward_intermediates(image, [2, 5, 8, 11], norm=True, output_fmt="NLC", intermediates_only=True)
        tapped = network.encoder(image)
    for ours, theirs in zip(tapped, expected, strict=True):
        torch.testing.assert_close(ours[:, 1:], theirs, rtol=1e-4, atol=1e-4)


def test_dinov2_own_file_is_an_encoder_alone(tiny_state, tmp_path):
    encoder = {key.removeprefix("pretrained."): t for key, t in tiny_state.items() if key.startswith("pretrained.")}
    torch.save(encoder, tmp_path / "dinov2.pth")
    network = DepthAnythingV2("tiny")
    report = load_weights(network, tmp_path / "dinov2.pth", init="encoder")
    assert (report.layout, report.loaded, report.missing) == ("DINOv2", len(encoder), ())
    held = official_state_dict(network)
    assert all(torch.equal(held[f"pretrained.{key}"], tensor) for key, tensor in encoder.items())
    with pytest.raises(ValueError, match=r"an encoder without a head. Type model.init=encoder"):
        load_weights(network, tmp_path / "dinov2.pth")


@pytest.mark.parametrize("name", ["register_tokens", "reg_token"])
def test_dinov2_with_registers_is_refused(name, tiny_state, tmp_path):
    encoder = {key.removeprefix("pretrained."): t for key, t in tiny_state.items() if key.startswith("pretrained.")}
    torch.save({**encoder, name: torch.zeros(1, 4, 192)}, tmp_path / "reg4.pth")
    with pytest.raises(ValueError, match="with registers"):
        load_weights(DepthAnythingV2("tiny"), tmp_path / "reg4.pth", init="encoder")


def test_checkpoint_of_this_project_loads(tiny_state, tmp_path):
    trained, network = DepthAnythingV2("tiny"), DepthAnythingV2("tiny")
    module = DepthModule(trained, config={"model": {"encoder": "tiny", "output": "metric", "max_depth": 10.0}})
    checkpoint = {"state_dict": module.state_dict(), "epoch": 3}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    report = load_weights(network, tmp_path / "best.ckpt")
    assert (report.layout, report.loaded, report.missing) == ("Lightning", len(tiny_state), ())
    assert (report.provenance.output, report.provenance.max_depth) == ("metric", 10.0)
    assert "the run's configuration says metric V2 with max_depth 10" in str(report)
    expected = official_state_dict(trained)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in official_state_dict(network).items())
    with pytest.raises(ValueError, match=r"the run's configuration.*model.output=metric"):
        load_weights(DepthAnythingV2("tiny", "relative"), tmp_path / "best.ckpt")


def test_checkpoint_of_a_swiglu_encoder_has_the_published_keys(golden):
    published = json.loads((golden / "state_dict_metric_vitg.json").read_text())
    with torch.device("meta"):
        state = {f"network.{key}": tensor for key, tensor in DepthAnythingV2("vitg").state_dict().items()}
    layout, official = to_official(state)
    assert layout == "Lightning"
    assert shapes(official) == published

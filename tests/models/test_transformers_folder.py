import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from depth_lightning.models import DepthAnythingV2, load_weights, normalize, official_state_dict, save_weights
from depth_lightning.models.sizes import SIZES, ModelSize


@pytest.mark.parametrize("layout", ["safetensors", "transformers"])
def test_saved_then_loaded_is_bit_for_bit(layout, vits_file, tmp_path):
    network, back = DepthAnythingV2("vits", "metric", 20.0), DepthAnythingV2("vits", "metric", 20.0)
    load_weights(network, vits_file)
    path = tmp_path / ("saved.safetensors" if layout == "safetensors" else "folder")
    save_weights(network, path, layout, {"licence": "Apache-2.0"})
    report = load_weights(back, path)
    assert report.layout == ("official" if layout == "safetensors" else "transformers")
    assert (report.loaded, report.dropped, report.missing) == (239, (), ())
    expected = torch.load(vits_file, weights_only=True)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in official_state_dict(back).items())
    if layout == "safetensors":
        assert set(load_file(path)) == set(expected)
        assert {file.name for file in tmp_path.iterdir()} == {"saved.safetensors", "saved.safetensors.json"}
    else:
        assert {file.name for file in path.iterdir()} == {
            "config.json",
            "metadata.json",
            "model.safetensors",
            "preprocessor_config.json",
        }
        assert json.loads((path / "metadata.json").read_text())["licence"] == "Apache-2.0"
        # Its file alone is as good as the folder.
        assert load_weights(back, path / "model.safetensors").provenance == report.provenance
    with pytest.raises(FileExistsError, match=str(path)):
        save_weights(network, path, layout)


@pytest.mark.parametrize(
    ("encoder", "output", "max_depth"),
    [
        ("vits", "metric", 10.0),
        pytest.param("vits", "relative", 10.0, marks=pytest.mark.slow),
        pytest.param("vitb", "metric", 10.0, marks=pytest.mark.slow),
        pytest.param("vitb", "relative", 10.0, marks=pytest.mark.slow),
    ],
)
def test_transformers_gives_the_same_depth(
    encoder, output, max_depth, golden_state, golden_weights, tmp_path, monkeypatch
):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save(golden_state(encoder), tmp_path / "golden.pth")
    network = DepthAnythingV2(encoder, output, max_depth).eval()
    load_weights(network, tmp_path / "golden.pth")
    save_weights(network, tmp_path / "folder", "transformers")
    theirs, info = transformers.DepthAnythingForDepthEstimation.from_pretrained(
        tmp_path / "folder", output_loading_info=True
    )
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    image = normalize(torch.from_numpy(golden_weights.image(518, 518, 1))[None])
    with torch.inference_mode():
        expected = network(image)
        depth = theirs.eval()(image).predicted_depth
    assert (depth - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())


@pytest.mark.parametrize("output", ["metric", "relative"])
def test_transformers_gives_the_same_depth_with_a_swiglu(output, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    size = ModelSize(96, 4, 6, (0, 1, 2, 3), 16, (16, 16, 32, 32), swiglu=True, grid=(6, 6))
    monkeypatch.setitem(SIZES, "narrow", size)
    torch.manual_seed(3)
    network, back = DepthAnythingV2("narrow", output).eval(), DepthAnythingV2("narrow", output)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    folder = tmp_path / "folder"
    save_weights(network, folder, "transformers")
    assert load_file(folder / "model.safetensors")["backbone.encoder.layer.0.mlp.weights_in.weight"].shape == (512, 96)
    theirs = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    image = torch.randn(1, 3, 84, 84)
    with torch.inference_mode():
        expected = network(image)
        depth = theirs(image).predicted_depth
    assert expected.std() > 0
    assert (depth - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())
    load_weights(back, folder)
    held = official_state_dict(network)
    assert all(torch.equal(tensor, held[key]) for key, tensor in official_state_dict(back).items())


def test_image_processor_resizes_as_the_published_ones(tmp_path):
    transformers = pytest.importorskip("transformers")
    network = DepthAnythingV2("vits", "relative")
    save_weights(network, tmp_path / "folder", "transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "folder")
    image = np.full((480, 640, 3), 128, np.uint8)
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 518, 686)
    expected = normalize(torch.full((1, 3, 518, 686), 128, dtype=torch.uint8))
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: DepthAnythingV2("vits", "metric", 7.5), r"whole metres .* 7.5: .*layout=official .*model.max_depth=8"),
        (lambda: DepthAnythingV2("tiny"), r"square position table, and that of tiny is 6×8: .*layout=official"),
    ],
)
def test_what_transformers_cannot_build_is_an_error(network, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_weights(network(), tmp_path / "folder", "transformers")
    assert list(tmp_path.iterdir()) == []


def test_torn_safetensors_and_folder_without_weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(DepthAnythingV2("tiny"), path, "safetensors")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"weights.safetensors cannot be read"):
        load_weights(DepthAnythingV2("tiny"), path)
    with pytest.raises(FileNotFoundError, match=r"folder without model.safetensors"):
        load_weights(DepthAnythingV2("tiny"), tmp_path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_folder_is_unpickled(tmp_path):
    trace = tmp_path / "was-run"
    (tmp_path / "folder").mkdir()
    torch.save({"backbone.embeddings.cls_token": Malicious(str(trace))}, tmp_path / "folder" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin was refused"):
        load_weights(DepthAnythingV2("tiny"), tmp_path / "folder")
    assert not trace.exists()


def test_the_folder_resizes_as_in_training(tmp_path):
    for name, metadata, side in (("a", {"size": 126}, 126), ("b", None, 518)):
        save_weights(DepthAnythingV2("vits"), tmp_path / name, "transformers", metadata)
        config = json.loads((tmp_path / name / "preprocessor_config.json").read_text())
        assert config["size"] == {"height": side, "width": side}
        assert config["keep_aspect_ratio"] and config["ensure_multiple_of"] == 14

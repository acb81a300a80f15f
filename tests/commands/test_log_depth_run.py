"""head=log_depth from train.py to a graph."""

import json

import numpy as np
import pytest

from depth_lightning.commands.export import export
from depth_lightning.commands.train import train
from depth_lightning.inference import load
from depth_lightning.settings import SettingError


@pytest.fixture(scope="module")
def run(small, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log_depth")
    train(compose_config("train", [*small, "head=log_depth"], folder))
    return folder


def exported(run, folder, compose_config, layout):
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", f"output={folder}", f"layout={layout}"]
    return export(compose_config("export", typed, folder.parent), typed)


def test_it_starts_at_the_median_and_predicts_metres(run, small, compose_config, tmp_path, caplog):
    caplog.set_level("INFO")
    train(compose_config("train", [*small, "head=log_depth", "trainer.max_steps=1", "report=false"], tmp_path))
    assert "The head starts at " in caplog.text and " m, the median of 12 training images." in caplog.text
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["metrics"]["abs_rel"] < 1 and metrics["model"]["max_depth"] == 1000
    predictor = load(run / "checkpoints/best.ckpt", device="cpu")
    assert predictor.network.head_name == "log_depth"
    depth_m = predictor.predict(np.full((60, 80, 3), 128, np.uint8))
    assert depth_m.min() > 0.1 and depth_m.max() < 100


@pytest.mark.parametrize("layout", ["safetensors", "pt2", "onnx"])
def test_what_can_hold_it_is_exported(layout, run, compose_config, tmp_path):
    if layout == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    report = exported(run, tmp_path / "out", compose_config, layout)
    assert all(difference.largest <= 1e-3 for difference in report.differences)
    if layout == "safetensors":
        image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        one, other = (
            load(path, device="cpu") for path in (run / "checkpoints/best.ckpt", tmp_path / "out/model.safetensors")
        )
        np.testing.assert_array_equal(one.predict(image), other.predict(image))
    assert "| head | log_depth |" in (report.folder / "README.md").read_text()


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_what_cannot_is_refused(layout, run, compose_config, tmp_path):
    with pytest.raises(ValueError, match=rf"^layout={layout} is read by code that ends in a sigmoid"):
        exported(run, tmp_path / "out", compose_config, layout)
    assert not (tmp_path / "out").exists()


def test_disparity_has_no_logarithm_of_depth(small, compose_config, tmp_path):
    typed = [*small, "head=log_depth", "model.output=relative", "loss=affine_invariant", "protocol=affine_disparity"]
    with pytest.raises(SettingError, match=r"^model\.head is sigmoid where output=relative"):
        train(compose_config("train", typed, tmp_path))

import importlib.util
import json

import numpy as np
import pytest
import torch

from depth_lightning.commands.export import export
from depth_lightning.inference import load
from depth_lightning.inference.export import LAYOUTS, Export, Layout
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.runs.record import Origin, find_numbers, find_origin, recipe

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def call(compose_config, trained, tmp_path):
    """call(*overrides): export the run's best checkpoint into tmp_path/out."""

    def call_one(*overrides, network=None):
        typed = [*(network or [f"checkpoint={trained[0]}/checkpoints/best.ckpt"]), f"output={tmp_path}/out", *overrides]
        return export(compose_config("export", typed, tmp_path), typed)

    return call_one


def test_a_run_is_exported_and_loads_with_nothing_else(call, trained, tmp_path):
    assert call("layout=safetensors").folder == tmp_path / "out"
    numbers = json.loads((trained[0] / "metrics.json").read_text())
    before, after = load(trained[0] / "checkpoints/best.ckpt"), load(tmp_path / "out/model.safetensors")
    assert after.size == before.size == 42
    np.testing.assert_array_equal(after.predict(IMAGE), before.predict(IMAGE))
    metadata = json.loads((tmp_path / "out/model.safetensors.json").read_text())
    assert (metadata["encoder"], metadata["output"], metadata["max_depth"]) == ("tiny", "metric", 10.0)
    assert metadata["protocol_hash"] == numbers["protocol"]["hash"]
    assert metadata["starting_weights"] is metadata["licence"] is None
    card = (tmp_path / "out/README.md").read_text()
    assert f"| abs_rel ↓ | {numbers['metrics']['abs_rel']:.4f} |" in card and metadata["protocol_hash"] in card
    assert "pipeline_tag: depth-estimation" in card and "RenderedRooms" in card and "SiLogLoss" in card
    assert str(trained[0].parent) not in card, "a path of the user's machine"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "model.safetensors",
        "model.safetensors.json",
    ]


@pytest.mark.parametrize("layout", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_graph_is_checked_and_scored_again_where_data_is_given(layout, call, small):
    if layout == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    root = next(override for override in small if override.startswith("data.root="))
    report = call(f"layout={layout}", "size=[42,56]", "batch_size=2", root, "score_images=3")
    assert [difference.size for difference in report.differences] == [(42, 56)]
    assert report.differences[0].largest <= 1e-3
    assert report.scores.images == 3
    assert report.scores.export["abs_rel"] == pytest.approx(report.scores.network["abs_rel"], rel=1e-3)
    assert set(report.latency_ms) == {layout, "torch"}
    card = (report.folder / "README.md").read_text()
    assert "image: float32 (2, 3, height, width)" in card and "# (2, 3, h, w) float32 RGB" in card
    assert "At 42×56, by at most" in card and "42×56 alone" in card and "On 3 validation images" in card
    assert json.loads((report.folder / f"model.{layout}.json").read_text())["graph_size"] == [42, 56]


class Counted(Layout):
    """A layout of one's own: the number of parameters."""

    name = "counted"
    library = "abacus"

    def write(self, network, folder, metadata, side):
        folder.mkdir()
        count = sum(parameter.numel() for parameter in network.parameters())
        (folder / "count.txt").write_text(str(count))
        return Export([f"Counted {count}, at {side}."])

    def usage(self, quantity):
        return f'{quantity} = open("count.txt")'


def test_a_new_layout_is_one_class(call, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "counted", Counted)
    report = call("layout=counted")
    count = (report.folder / "count.txt").read_text()
    card = (report.folder / "README.md").read_text()
    assert 'depth_m = open("count.txt")' in card and "library_name: abacus" in card
    assert f"- Counted {count}, at 42." in card
    assert (report.differences, report.scores, report.latency_ms) == ((), None, {})


def test_nothing_is_overwritten_and_nothing_is_left_half_written(call, tmp_path):
    with pytest.raises(ValueError, match="square position table"):
        pytest.importorskip("transformers")
        call("layout=transformers")
    assert not list(tmp_path.glob("*out*"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="out exists"):
        call()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["layout=tensorrt"],
            r"^layout is one of official, safetensors, transformers, onnx, pt2, adapter, found 'tensorrt'\.$",
        ),
        (
            ["size=[42,56]"],
            r"^size is for layout=onnx and layout=pt2, not for layout=official; found \[42, 56\]\.$",
        ),
        (["precision=float16"], "precision is for layout=onnx and layout=pt2"),
        (["batch_size=1"], r"^batch_size is for layout=onnx and layout=pt2, not for layout=official; found 1\.$"),
        (["layout=pt2", "opset=17"], r"^opset is for layout=onnx, not for layout=pt2; found 17\.$"),
        (["layout=onnx", "opset=17"], r"^opset is 17, which needs a fixed size: set size=\[height,width\] as well\.$"),
        (["layout=onnx", "opset=11"], r"^opset is a whole number, 17 or above, found 11\.$"),
        (["layout=pt2", "batch_size=0"], r"^batch_size is a whole number, 1 or above, found 0\. null: any\.$"),
        (["layout=pt2", "size=518"], r"^size is \[height,width\] in multiples of 14, .* found 518\.$"),
        (["layout=pt2", "size=[42,50]"], r"^size is .*multiples of 14.* found \[42, 50\]"),
        (["layout=pt2", "precision=bfloat16"], r"^precision is float32 or float16, found 'bfloat16'\.$"),
        (["score_images=0"], r"^score_images is a whole number, 1 or above, found 0\.$"),
        (["metrics_file=none.json"], "there is no such file"),
    ],
)
def test_wrong_options_are_said_before_anything_is_written(call, tmp_path, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(*overrides)
    assert not (tmp_path / "out").exists()


def test_a_network_must_be_named(call):
    with pytest.raises(ValueError, match="Nothing to export"):
        call(network=["model=tiny"])


def test_a_missing_extra_is_one_line(call, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs onnx, .*pip install 'depth-lightning\[export\]'"):
        call("layout=onnx")


def test_numbers_are_only_of_the_checkpoint_that_was_scored(trained, tmp_path):
    run = trained[0]
    numbers = find_numbers(f"{run}/checkpoints/best.ckpt", None, None)
    assert numbers is not None and numbers["images"] == 5
    assert find_numbers(f"{run}/checkpoints/last.ckpt", None, None) is None
    with pytest.raises(ValueError, match=r"scores .*best\.ckpt, but the export is of .*last\.ckpt"):
        find_numbers(f"{run}/checkpoints/last.ckpt", None, f"{run}/metrics.json")
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match=r"metrics\.json: expected a metrics\.json of evaluate\.py or train\.py"):
        find_numbers(None, "a.pth", f"{tmp_path}/metrics.json")


def test_the_licence_is_that_of_the_weights_at_the_beginning(tmp_path):
    assert find_origin(None) == Origin(None, None)
    small = Origin("depth-anything/Depth-Anything-V2-Small", "Apache-2.0")
    assert find_origin("/data/depth_anything_v2_vits.pth") == find_origin(small.name) == small
    base = Origin("depth-anything/Depth-Anything-V2-Base", "CC-BY-NC-4.0")
    run = {"config": {"model": {"weights": base.name}}, "state_dict": {"a": torch.zeros(1)}}
    torch.save(run, tmp_path / "best.ckpt")
    assert find_origin(tmp_path / "best.ckpt") == base
    save_weights(DepthAnythingV2("tiny"), tmp_path / "a.pth", metadata={"starting_weights": "x/y", "licence": "MIT"})
    assert find_origin(tmp_path / "a.pth") == Origin("x/y", "MIT")
    save_weights(DepthAnythingV2("tiny"), tmp_path / "b.pth")
    assert find_origin(tmp_path / "b.pth") == Origin("b.pth", None)


def test_the_recipe_is_what_the_run_was_configured_with(compose_config):
    said = recipe(compose_config("train", ["experiment=nyu_vits", "data.root=/data/nyu"]))
    assert said["training data"] == "NYUDepthV2 nyu"
    assert said["started from"] == "depth-anything/Depth-Anything-V2-Small (encoder; the head from random)"
    assert (said["batch"], said["length"], said["precision"]) == ("11 per device", "10 epochs", "16-mixed")
    assert "lr=5e-06" in said["optimiser"] and said["schedule"].startswith("cosine(")
    assert said["devices"] == "auto (ddp)"


def test_the_recipe_names_what_the_run_used(compose_config):
    said = recipe(compose_config("train", ["experiment=relative", "trainer=cpu", "trainer.max_epochs=1"]))
    assert said["loss"] == "disparity: AffineInvariantLoss(gradient_weight=2.0, scales=4, trim=0.0)"
    assert (said["length"], said["devices"]) == ("1 epoch", "1")
    typed = ["experiment=teacher", "trainer.num_nodes=2", "trainer.devices=8"]
    said = recipe(compose_config("train", typed))
    assert (said["length"], said["devices"]) == ("160,000 steps", "8 on each of 2 nodes")

"""adapter=lora from train.py to export.py: resumed, averaged, replayed, scored, merged, and loaded by PEFT."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from depth_lightning.commands import replay
from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.export import export
from depth_lightning.commands.train import train
from depth_lightning.inference import load
from depth_lightning.inference.export import LAYOUTS
from depth_lightning.models import DepthAnythingV2, LoRA, load_weights, save_weights
from depth_lightning.models.adapters import is_adapters
from depth_lightning.runs import objects
from depth_lightning.runs.options import check
from depth_lightning.settings import SettingError
from depth_lightning.training.health.incident import read_incident

peft = pytest.importorskip("peft", reason="needs the extra adapters")

ROOT = Path(__file__).resolve().parents[2]
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The weights that the runs start from."""
    path = tmp_path_factory.mktemp("start") / "start.pth"
    torch.manual_seed(1)
    save_weights(DepthAnythingV2("tiny"), path)
    return path


@pytest.fixture(scope="module")
def typed(small, start):
    # A head of another network stays random, so that the files must hold it.
    return [*small, "adapter=lora", "adapter.rank=4", f"model.weights={start}", "optimizer.lr=2e-3", "report=false"]


@pytest.fixture(scope="module")
def run(typed, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    train(compose_config("train", typed, folder))
    return folder / "checkpoints/best.ckpt"


def exported(checkpoint, folder, compose_config, *overrides):
    typed = [f"checkpoint={checkpoint}", f"output={folder}", *overrides]
    return export(compose_config("export", typed, folder.parent), typed)


def test_the_encoder_stays_and_the_checkpoint_holds_everything(run, start, compose_config, tmp_path):
    state, before = torch.load(run, weights_only=True)["state_dict"], torch.load(start, weights_only=True)
    kept = [key for key in state if key.startswith("network.encoder.") and not is_adapters(key)]
    for key in kept:
        official = key.replace("network.encoder.", "pretrained.").replace(".base_layer.", ".")
        assert torch.equal(state[key], before[official]), key
    assert len(kept) == sum(key.startswith("pretrained.") for key in before)
    assert all(tensor.abs().max() > 0 for key, tensor in state.items() if "lora_B" in key)
    result = evaluate(compose_config("evaluate", [f"checkpoint={run}"], tmp_path), [f"checkpoint={run}"])
    assert result.counts.depth.scored == 5


def test_peft_loads_the_adapter_onto_the_network(run, start, compose_config, tmp_path):
    report = exported(run, tmp_path / "out", compose_config, "layout=adapter")
    assert max(difference.largest for difference in report.differences) <= 1e-6
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "metadata.json"}
    assert {path.name for path in report.folder.iterdir()} >= names
    state = load_file(report.folder / "adapter_model.safetensors")
    assert "base_model.model.encoder.blocks.0.attn.qkv.lora_A.weight" in state
    assert not any("encoder" in key and "lora" not in key for key in state)

    torch.manual_seed(7)
    network = DepthAnythingV2("tiny")
    load_weights(network, start, init="encoder")
    loaded = peft.PeftModel.from_pretrained(network, str(report.folder)).merge_and_unload().eval()
    image = torch.rand(1, 3, 42, 56)
    with torch.no_grad():
        expected = load(run, device="cpu").network(image)
        assert (loaded(image) - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())
    card = (report.folder / "README.md").read_text()
    assert "library_name: peft" in card and "| adapter | LoRA(rank=4, alpha=16" in card and "PeftModel" in card


@pytest.mark.parametrize("layout", ["official", "safetensors", "pt2"])
def test_every_other_layout_merges(layout, run, compose_config, tmp_path):
    report = exported(run, tmp_path / "out", compose_config, f"layout={layout}")
    assert "The adapters are merged, which changed the prediction by" in (report.folder / "README.md").read_text()
    expected = load(run, device="cpu").predict(IMAGE)
    if layout == "pt2":
        assert max(difference.largest for difference in report.differences) <= 1e-3
    else:
        found = load(next(report.folder.glob("model.*[htrs]")), device="cpu").predict(IMAGE)
        assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


def test_adapters_of_the_head_are_exported_with_its_last_layer_alone(tmp_path):
    network = DepthAnythingV2("tiny", adapter=LoRA(rank=2, head=True)).eval()
    for name, parameter in network.named_parameters():
        if is_adapters(name):
            torch.nn.init.normal_(parameter, std=0.05)
    report = LAYOUTS["adapter"]().write(network, tmp_path / "out", {"starting_weights": "a/b"}, 42)
    assert max(difference.largest for difference in report.differences) <= 1e-5
    state = load_file(tmp_path / "out/adapter_model.safetensors")
    last = {f"base_model.model.head.scratch.output_conv2.2.{name}" for name in ("weight", "bias")}
    assert {key for key in state if "lora" not in key} == last
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["inference_mode"]) == ("a/b", 2, True)
    assert json.loads((tmp_path / "out/metadata.json").read_text())["init"] == "all"


def test_an_adapter_is_exported_of_a_run_that_has_one(trained, compose_config, tmp_path):
    with pytest.raises(SettingError, match=r"^layout is adapter, but the network was not trained with adapter=lora\.$"):
        exported(trained[0] / "checkpoints/best.ckpt", tmp_path / "out", compose_config, "layout=adapter")
    assert not (tmp_path / "out").exists()


def test_a_resumed_and_averaged_run_ends_with_the_same_bits(typed, compose_config, tmp_path):
    more = [*typed, "callbacks=ema", "callbacks.ema.decay=0.8", "scheduler=constant", "adapter.dropout=0.3"]
    whole, begun, extended = tmp_path / "whole", tmp_path / "begun", tmp_path / "extended"
    train(compose_config("train", more, whole))
    train(compose_config("train", [*more, "trainer.max_epochs=1"], begun))
    train(compose_config("train", [*more, f"checkpoint={begun}/checkpoints/last.ckpt"], extended))
    expected, found = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, extended))
    for part in ("state_dict", "current_model_state", "averaging_state"):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"another configuration: adapter\.rank: 4 → 5"):
        train(compose_config("train", [*more, "adapter.rank=5", "checkpoint=auto"], whole))


def test_an_incident_is_replayed_with_its_adapters(typed, compose_config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/training")
    planted = ["+callbacks.plant._target_=planted.BrokenImage", "+callbacks.plant.step=1", "+callbacks.plant.rank=0"]
    train(compose_config("train", [*typed, *planted, "trainer.max_epochs=1"], tmp_path))
    folder = tmp_path / "incidents/step_000001"
    assert any("lora_A" in name for name in read_incident(folder).weights)
    assert repr(replay.replay(folder)) == repr(read_incident(folder).findings)  # repr: nan is not nan


def test_the_self_check_expects_no_gradient_of_what_multiplies_zeros(typed, compose_config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(compose_config("train", [*typed, "trainer.max_steps=1"], tmp_path))
    assert "gradients: " in caplog.text and ", and all of them get one" in caplog.text
    assert "; the head is random; 98,304 of adapters, which add 0 at first" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter.rank=0"], r"^adapter\.rank is a whole number, 1 or above, found 0\.$"),
        (["adapter.linears=[qkv,v]"], r"^adapter\.linears is a list of some of qkv, proj, fc1, fc2, each once, found"),
        (["+adapter.ranks=3"], r"^adapter\.ranks is not an option\. Did you mean adapter\.rank\?$"),
        (["adapter=none", "+adapter.rank=3"], r"^adapter is none or lora, found .*Type adapter=lora adapter\.rank=…$"),
        (["adapter=none", "+model.adapter=lora"], r"^model\.adapter is a LoRA, found 'lora'\. .* type adapter=lora\.$"),
        (["adapter.head=true"], r"^adapter\.head is true, which keeps .* those are random\. Type model\.init=all\.$"),
        (["optimizer.layer_decay=1.5"], r"^optimizer\.layer_decay is a number above 0 and at most 1, found 1\.5\.$"),
        (["optimizer.no_decay=[norms]"], r"^optimizer\.no_decay is a list of norm, bias, position, found "),
    ],
)
def test_wrong_choices_are_refused_before_training(overrides, message, typed, compose_config, tmp_path):
    if "adapter=none" in overrides:
        typed = [each for each in typed if not each.startswith("adapter")]
    cfg = compose_config("train", [*typed, *overrides], tmp_path)
    with pytest.raises(SettingError, match=message):
        check(cfg, "train")
        objects.build_module(cfg, objects.build_network(cfg.model, cfg.adapter))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp_cpu"])
def test_two_processes_train_the_same_adapters_as_one(trainer, typed, tmp_path):
    states = []
    options = [*typed, "optimizer.lr=5e-4", "loss.across_devices=true", "self_check=false", "trainer.max_epochs=1"]
    for folder, trainers in (("one", ["trainer=cpu"]), ("two", [f"trainer={trainer}", "data.batch_size=2"])):
        given = [*options, *trainers, f"hydra.run.dir={tmp_path}/{folder}"]
        done = subprocess.run(
            [sys.executable, "train.py", *given],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        states.append(torch.load(tmp_path / folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    one, two = states
    assert one.keys() == two.keys()
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 2e-5

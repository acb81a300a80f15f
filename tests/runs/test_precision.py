"""What trainer.precision=auto becomes, that a run keeps it, and where TF32 is used."""

import json
import logging

import pytest
import torch
from omegaconf import OmegaConf

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.train import train
from depth_lightning.runs import precision
from depth_lightning.runs.checkpoint import keep_settled, run_config
from depth_lightning.runs.precision import exact_float32, settle_precision
from depth_lightning.version import version


@pytest.fixture
def gpus(monkeypatch):
    """gpus({name: compute capability}): pretend that this machine has them."""

    def pretend(capabilities):
        names = list(capabilities)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[names[index]])

    return pretend


def settled(cfg, caplog):
    with caplog.at_level(logging.INFO):
        settle_precision(cfg)
    return cfg.trainer.precision, caplog.messages


@pytest.mark.parametrize(
    ("capabilities", "typed", "expected", "device"),
    [
        ({"H100": (9, 0)}, [], "bf16-mixed", "H100"),
        ({"A100": (8, 0)}, ["trainer=ddp"], "bf16-mixed", "A100"),
        ({"A100": (8, 0)}, ["trainer=fsdp"], "bf16-mixed", "A100"),
        ({"T4": (7, 5)}, [], "16-mixed", "T4"),
        ({"T4": (7, 5)}, ["trainer=fsdp"], "32-true", "T4"),
        ({"A100": (8, 0), "V100": (7, 0)}, ["trainer.devices=2"], "16-mixed", "V100"),
        ({"H100": (9, 0)}, ["trainer=cpu"], "32-true", "no CUDA GPU is used"),
        ({}, [], "32-true", "no CUDA GPU is used"),
    ],
)
def test_the_fastest_that_training_can_use(capabilities, typed, expected, device, gpus, compose_config, caplog):
    gpus(capabilities)
    chosen, messages = settled(compose_config("train", typed), caplog)
    assert chosen == expected
    assert messages == [f"trainer.precision=auto: {expected} ({device})."]


@pytest.mark.parametrize(
    ("typed", "fixed"),
    [
        (["experiment=nyu_vits"], "16-mixed"),
        (["experiment=nyu_paper"], "32-true"),
        (["trainer=bf16"], "bf16-mixed"),
        (["trainer.precision=32-true"], "32-true"),
    ],
)
def test_a_precision_that_is_chosen_stays(typed, fixed, gpus, compose_config, caplog):
    gpus({"H100": (9, 0)})
    assert settled(compose_config("train", typed), caplog) == (fixed, [])


def test_the_precision_of_an_earlier_run_stays(trained, gpus, compose_config, caplog):
    """As of one that had the earlier default."""
    gpus({"H100": (9, 0)})
    cfg = compose_config("train", ["data=rooms"])
    assert cfg.trainer.precision == "auto"
    keep_settled(cfg, trained[0] / "checkpoints" / "last.ckpt")
    assert settled(cfg, caplog) == ("32-true", [])


def test_a_run_records_what_auto_became_and_goes_on_with_it(small, compose_config, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_fastest", lambda trainer: ("bf16-mixed", "a GPU"))
    typed = [*small, "trainer.max_steps=2", "report=false", "checkpoint=auto"]
    train(compose_config("train", typed, tmp_path))
    monkeypatch.undo()
    assert OmegaConf.load(tmp_path / "config.yaml").trainer.precision == "bf16-mixed"
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert run_config(last).trainer.precision == "bf16-mixed"
    train(compose_config("train", typed, tmp_path))
    assert run_config(last).trainer.precision == "bf16-mixed"


def test_evaluation_is_in_float32(trained, small, compose_config, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_fastest", lambda trainer: ("bf16-mixed", "a GPU"))
    typed = [f"checkpoint={trained[0]}/checkpoints/best.ckpt"]
    result = evaluate(compose_config("evaluate", [*typed, "panels=0"], tmp_path), typed)
    assert result.metrics["abs_rel"] == pytest.approx(trained[1], rel=1e-6)
    assert json.loads((tmp_path / "metrics.json").read_text())["version"] == version()


def test_a_run_records_the_version(trained):
    folder = trained[0]
    assert OmegaConf.load(folder / "config.yaml").version == version()
    assert run_config(folder / "checkpoints" / "best.ckpt").version == version()
    assert json.loads((folder / "metrics.json").read_text())["version"] == version()


@pytest.mark.parametrize("asked", [False, True])
def test_tf32_only_where_it_is_asked_for(asked, monkeypatch):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = asked, not asked
        exact_float32()
        assert torch.backends.cudnn.allow_tf32 is asked
        assert torch.backends.cuda.matmul.allow_tf32 is asked
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

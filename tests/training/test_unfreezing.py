"""The head first, then the encoder from the top on: which parameters move when, alone, resumed and on two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from depth_lightning.commands.train import train
from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs import objects
from depth_lightning.settings import SettingError
from depth_lightning.training import DepthModule
from depth_lightning.training.sharding import FullySharded
from depth_lightning.training.unfreezing import Unfreeze

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("callbacks=unfreeze", "callbacks.unfreeze.unit=steps", "callbacks.unfreeze.head_alone=2", "report=false")


class Moved(Callback):
    """Records after every step which layers of the encoder, from the top on, have moved since the one before."""

    decisive = ()

    def __init__(self):
        self.moved = []

    def _state(self, module):
        layers = module.network.encoder.layers()[::-1]
        head = list(module.network.head.parameters())
        return [[parameter.detach().clone() for parameter in layer] for layer in (head, *layers)]

    def on_train_batch_start(self, trainer, module, batch, index):
        self.before = self._state(module)

    def on_train_batch_end(self, trainer, module, *rest):
        pairs = zip(self.before, self._state(module), strict=True)
        self.moved.append([not all(map(torch.equal, before, after)) for before, after in pairs])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head_alone": 2, "every": 3}, [0, 0, 1, 1, 1, 2, 2, 2, 3]),
        ({"head_alone": 0, "every": 1}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9]),
        ({"head_alone": 1, "every": 0}, [0, 9, 9]),
        ({"head_alone": 1, "every": 1, "layers": 2}, [0, 1, 2, 2]),
    ],
)
def test_the_table_of_layers_that_learn(options, expected):
    for unit in ("epochs", "steps"):
        callback = Unfreeze(unit=unit, **options)
        callback._from_the_top = DepthAnythingV2("tiny").encoder.layers()[::-1]
        moments = [(n, 1000) if unit == "epochs" else (1000, n) for n in range(len(expected))]
        assert [callback.learning_layers(*moment) for moment in moments] == expected


def with_callback(monkeypatch, callback):
    build = objects.build_all
    own = {"callbacks": {"own": callback}}
    monkeypatch.setattr(objects, "build_all", lambda cfg, group: {**build(cfg, group), **own.get(group, {})})


def test_layers_move_when_they_are_unfrozen(small, compose_config, tmp_path, monkeypatch):
    moved = Moved()
    with_callback(monkeypatch, moved)
    train(compose_config("train", [*small, *STEPS], tmp_path))
    assert [row[0] for row in moved.moved] == [True] * 6
    assert [sum(row[1:]) for row in moved.moved] == [0, 0, 1, 2, 3, 4]
    assert all(row[1 : 1 + sum(row[1:])] == [True] * sum(row[1:]) for row in moved.moved)


def test_a_run_resumed_before_the_switch_ends_with_the_same_bits(small, compose_config, tmp_path):
    typed = [*small, *STEPS, "callbacks.unfreeze.head_alone=4", "scheduler=constant", "optimizer.layer_decay=0.9"]
    whole, begun, extended = tmp_path / "whole", tmp_path / "begun", tmp_path / "extended"
    train(compose_config("train", typed, whole))
    train(compose_config("train", [*typed, "trainer.max_epochs=1"], begun))
    train(compose_config("train", [*typed, f"checkpoint={begun}/checkpoints/last.ckpt"], extended))
    expected, found = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, extended))
    assert expected["global_step"] == found["global_step"] == 6
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)
    moments = [content["optimizer_states"][0]["state"] for content in (found, expected)]
    torch.testing.assert_close(*moments, rtol=0, atol=0)
    start = torch.load(begun / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(start["network.encoder.norm.weight"], expected["state_dict"]["network.encoder.norm.weight"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.freeze_encoder=true"],
            r"^callbacks\.unfreeze unfreezes the encoder, which model\.freeze_encoder=true ",
        ),
        (["adapter=lora"], r"^callbacks\.unfreeze unfreezes the encoder, which adapter=lora keeps frozen\."),
        (["callbacks.unfreeze.layers=10"], r"^callbacks\.unfreeze\.layers is a whole number, 1 to 9, found 10\.$"),
        (["callbacks.unfreeze.every=-1"], r"^callbacks\.unfreeze\.every is a whole number, 0 or above, found -1\.$"),
        (["callbacks.unfreeze.unit=days"], r"^callbacks\.unfreeze\.unit is epochs or steps, found 'days'\.$"),
    ],
)
def test_what_cannot_be_unfrozen_is_refused(overrides, message, small, compose_config, tmp_path):
    if "adapter=lora" in overrides:
        pytest.importorskip("peft")
    with pytest.raises(SettingError, match=message):
        train(compose_config("train", [*small, "callbacks=unfreeze", *overrides], tmp_path))


def test_a_network_that_is_sharded_is_not_unfrozen():
    trainer = SimpleNamespace(strategy=FullySharded())
    with pytest.raises(ValueError, match=r"callbacks=unfreeze is not for trainer=fsdp.*Use trainer=ddp\.$"):
        Unfreeze().setup(trainer, DepthModule(DepthAnythingV2("tiny")), "fit")


def test_an_encoder_that_never_learns_is_warned_of(small, compose_config, tmp_path, caplog):
    typed = [*small, "callbacks=unfreeze", "callbacks.unfreeze.head_alone=1", "trainer.max_epochs=1", "report=false"]
    train(compose_config("train", typed, tmp_path))
    assert "The encoder never learns: callbacks.unfreeze.head_alone=1, and the run ends after 1 epochs." in caplog.text


@pytest.mark.slow
def test_two_processes_unfreeze_as_one(small, tmp_path):
    states = []
    options = [*small, *STEPS, "loss.across_devices=true", "self_check=false"]
    for folder, trainers in (("one", ["trainer=cpu"]), ("two", ["trainer=ddp_cpu", "data.batch_size=2"])):
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
        assert json.loads((tmp_path / folder / "metrics.json").read_text())["images"] == 5
    one, two = states
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 2e-5

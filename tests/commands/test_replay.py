"""A fault planted in a run of train.py is recorded, and the command that is printed finds it."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from depth_lightning.commands import replay
from depth_lightning.commands.train import train
from depth_lightning.runs import objects
from depth_lightning.training.health.incident import read_incident
from depth_lightning.training.health.watch import StoppedByWatchError

ROOT = Path(__file__).resolve().parents[2]


class PlantedWeight(Callback):
    """From step 2 on, a weight is infinite."""

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 2:
            module.network.head.projects[1].weight.data[0, 0] = torch.inf


@pytest.fixture(scope="module")
def stopped(small, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    overrides = [*small, "callbacks.watch.on_bad_step=stop", "trainer.num_sanity_val_steps=0"]
    cfg = compose_config("train", overrides, folder)
    with pytest.MonkeyPatch.context() as patch:
        build = objects.build_all
        planted = {"callbacks": {"planted": PlantedWeight()}}
        patch.setattr(objects, "build_all", lambda cfg, group: {**planted.get(group, {}), **build(cfg, group)})
        with pytest.raises(StoppedByWatchError, match="depth_lightning replay "):
            train(cfg)
    return folder / "incidents/step_000002"


def test_the_step_is_gone_through_again(stopped, capsys):
    assert replay.main([str(stopped)]) == 0
    said = capsys.readouterr().out
    assert "Step 2 of epoch 1: the loss is nan" in said or "its gradient is not finite" in said
    assert "values of head.projects.1.weight are not finite" in said
    assert "up to the output of head.projects.1 (Conv2d)" in said
    for identity in read_incident(stopped).batches[0].id:
        assert identity in said


def test_a_replay_on_the_same_machine_finds_the_same(stopped):
    assert repr(replay.replay(stopped)) == repr(read_incident(stopped).findings)  # repr: nan is not nan


def test_what_does_not_happen_again_is_said(stopped, capsys, tmp_path):
    """As if the weights had been whole: a fault of the machine."""
    from shutil import copytree

    from safetensors.torch import load_file, save_file

    folder = copytree(stopped, tmp_path / "step")
    weights = load_file(folder / "weights.safetensors")
    save_file({name: w.nan_to_num(posinf=0.0) for name, w in weights.items()}, folder / "weights.safetensors")
    assert replay.replay(folder).finite
    assert "It broke then and does not now" in capsys.readouterr().out


def test_a_wrong_folder_is_one_sentence(tmp_path, capsys):
    assert replay.main([str(tmp_path)]) == 1
    assert "holds no incident.json" in capsys.readouterr().err
    (tmp_path / "incident.json").write_text("{")
    assert replay.main([str(tmp_path)]) == 1
    assert (
        f"ValueError: {tmp_path}/incident.json: expected the record of a bad step, found one" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(step="3"), r"incident\.json: expected step as int, found '3'\."),
        (lambda c: c.update(loss_by_process=[{}]), r"incident\.json: expected loss_by_process as list\[float\], found"),
        (lambda c: c.update(loss_scale=0), r"incident\.json: expected a loss_scale above 0, found 0\."),
        (
            lambda c: c["findings"].update(first_output=3),
            r"incident\.json: expected first_output as str \| None, found 3",
        ),
        (lambda c: c.update(batches=3), r"incident\.json: expected a list of batches, found 3\."),
        (lambda c: c["batches"][0].update(kind=[1]), r"batch_0\.safetensors: expected a batch, as incident\.json desc"),
        (
            lambda c: c["batches"][0].update(id=["a"]),
            r"batch_0\.safetensors: expected images, targets and masks of one",
        ),
        (lambda c: c.update(config=[]), r"incident\.json: expected the configuration of the run, found none"),
        (lambda c: c["config"].pop("loss"), r"loss in its configuration is a group of settings, found None\."),
    ],
)
def test_a_changed_record_is_named(change, match, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "step")
    record = json.loads((folder / "incident.json").read_text())
    change(record)
    (folder / "incident.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=match):
        replay.replay(folder)
    assert replay.main([str(folder)]) == 1


@pytest.mark.parametrize("name", ["incident.json", "weights.safetensors", "batch_0.safetensors"])
def test_a_damaged_file_is_named(name, stopped, tmp_path):
    path = shutil.copytree(stopped, tmp_path / "step") / name
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: expected "):
        replay.replay(path.parent)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"FIFO|holds no incident"):
        replay.replay(path.parent)

"""Run folders, checkpoints and configurations of the version before the package's rooms were moved."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.train import train
from depth_lightning.runs import objects
from depth_lightning.runs.earlier import MOVED, comparable, current
from depth_lightning.runs.resume import changes

EARLIER = Path(__file__).parent / "earlier_run"
"""Interrupted in the middle of its second epoch; of last.ckpt all but the numbers in its tensors."""
TYPED = (
    *("experiment=rooms", "data.batch_size=2", "data.eval_batch_size=2", "trainer.accumulate_grad_batches=2"),
    *("trainer.max_epochs=3", "baseline=false", "trainer.log_every_n_steps=1", "trainer.deterministic=true"),
    *("+trainer.val_check_interval=0.5", "callbacks.panels.images=1", "callbacks.checkpoints.every_n_steps=2"),
    *("data.train_images=24", "data.val_images=5", "data.size=42"),
)


def _filled(value):
    """With tensors of small numbers, positive as those of Adam's second moments must be."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tensor"}:
        dtype, *shape = value["tensor"]
        return torch.rand(shape).mul(0.02).to(getattr(torch, dtype))
    return {int(key[1:]) if key.startswith("#") else key: _filled(item) for key, item in value.items()}


@pytest.fixture
def run(tmp_path):
    """The folder, whole."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv"):
        shutil.copy(EARLIER / name, folder)
    torch.manual_seed(0)
    content = _filled(json.loads((EARLIER / "last.ckpt.json").read_text()))
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    torch.save({**content, "global_step": 6}, folder / "checkpoints" / "best.ckpt")
    return folder


def test_an_earlier_run_goes_on_in_its_folder(run, compose_config, tmp_path):
    train(compose_config("train", [*TYPED, f"data.root={tmp_path}/rooms", "checkpoint=auto"], run))
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 18
    rows = (run / "metrics.csv").read_text().splitlines()
    assert rows[1:12] == (EARLIER / "metrics.csv").read_text().splitlines()[1:12] and len(rows) > 20


def test_another_configuration_is_still_refused(run, compose_config, tmp_path):
    cfg = compose_config("train", [*TYPED, f"data.root={tmp_path}/rooms", "checkpoint=auto", "seed=1"], run)
    with pytest.raises(ValueError, match=r"another configuration: seed: 0 → 1; callbacks\.step_seed\.seed: 0 → 1"):
        train(cfg)


def test_an_earlier_checkpoint_is_scored(run, compose_config, tmp_path):
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", f"data.root={tmp_path}/rooms"]
    result = evaluate(compose_config("evaluate", typed, tmp_path), typed)
    assert result.counts.depth.scored == 5


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_moved_module_or_class_is_found(old, new):
    assert current([{"inner": {"_target_": f"{old}.Any"}}]) == [{"inner": {"_target_": f"{new}.Any"}}]
    module, _, name = new.rpartition(".")
    assert importlib.util.find_spec(new if name.islower() else module) is not None


def test_a_users_own_yaml_may_name_an_old_path():
    panels = objects.build("callbacks.panels", {"_target_": "depth_lightning.training.callbacks.Panels", "images": 2})
    assert panels.images == 2
    other = {"_target_": "depth_lightning.training.callbacks_of_mine.Panels"}
    assert current(other) == other


def test_a_new_option_that_is_not_used_changes_nothing():
    earlier = {"optimizer": {"lr": 1e-3}}
    now = {"optimizer": {"lr": 1e-3, "layer_decay": None, "no_decay": []}}
    assert not list(changes(comparable(earlier), comparable(now)))
    now["optimizer"]["no_decay"] = ["norm"]
    assert list(changes(comparable(earlier), comparable(now))) == ["optimizer.no_decay: None → ['norm']"]

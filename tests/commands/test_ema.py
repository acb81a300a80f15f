import csv
import json
from types import SimpleNamespace

import pytest
import torch

from depth_lightning.commands.train import train
from depth_lightning.models import DepthAnythingV2
from depth_lightning.training import DepthModule
from depth_lightning.training.averaging import AveragedWeights
from depth_lightning.training.sharding import FullySharded


def test_the_averaged_weights_are_validated_saved_and_scored(compose_config, small, tmp_path):
    train(compose_config("train", [*small, "callbacks=ema", "callbacks.ema.decay=0.8", "optimizer.lr=1e-3"], tmp_path))
    content = torch.load(tmp_path / "checkpoints" / "previous.ckpt", weights_only=True)
    averaged, current = content["state_dict"], content["current_model_state"]
    name = "network.head.scratch.output_conv2.0.weight"
    assert (averaged[name] - current[name]).abs().max() > 1e-4
    with (tmp_path / "metrics.csv").open() as file:
        validated = [float(row["val/abs_rel"]) for row in csv.DictReader(file) if row.get("val/abs_rel")]
    scored = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["abs_rel"]
    assert scored == pytest.approx(min(validated), rel=1e-5)


def test_an_extended_run_goes_on_as_one_of_that_length(compose_config, small, tmp_path):
    typed = [*small, "callbacks=ema", "callbacks.ema.decay=0.8", "optimizer.lr=1e-3", "scheduler=constant"]
    whole, begun, extended = tmp_path / "whole", tmp_path / "begun", tmp_path / "extended"
    train(compose_config("train", typed, whole))
    train(compose_config("train", [*typed, "trainer.max_epochs=1"], begun))
    train(compose_config("train", [*typed, f"checkpoint={begun}/checkpoints/last.ckpt"], extended))
    expected, found = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, extended))
    assert expected["global_step"] == found["global_step"] == 6
    for part in ("state_dict", "current_model_state", "averaging_state"):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=0)


def test_the_best_average_is_scored_also_where_it_is_not_the_last(compose_config, small, tmp_path):
    typed = [*small, "callbacks=ema", "callbacks.ema.decay=0.8", "optimizer.lr=1e-3", "callbacks.checkpoints.mode=max"]
    train(compose_config("train", typed, tmp_path))
    with (tmp_path / "metrics.csv").open() as file:
        first, last = (float(row["val/abs_rel"]) for row in csv.DictReader(file) if row.get("val/abs_rel"))
    scored = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["abs_rel"]
    assert first > 1.01 * last
    assert scored == pytest.approx(first, rel=1e-5)


def test_the_average_lies_where_the_network_is_trained():
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    averages, module = AveragedWeights(), DepthModule(DepthAnythingV2("tiny"))
    averages.setup(trainer, module, "fit")
    assert {parameter.device.type for parameter in averages._average_model.parameters()} == {"meta"}
    assert module.device.type == "meta"


def test_a_network_that_is_split_is_not_averaged():
    with pytest.raises(ValueError, match="trainer=fsdp"):
        AveragedWeights().setup(SimpleNamespace(strategy=FullySharded()), None, "fit")

import csv
import json

import pytest
import torch

from depth_lightning.commands.train import train


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

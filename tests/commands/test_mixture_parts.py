"""A mixture is scored part by part: in the log, in the table, in metrics.json, and for the best checkpoint."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.train import train
from depth_lightning.settings import SettingError


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """Two parts of rendered rooms, of 5 and 2 validation images."""
    conf = tmp_path_factory.mktemp("conf")
    (conf / "data").mkdir()
    parts = "  - /data@parts.near: rooms\n  - /data@parts.far: rooms\n"
    (conf / "data/two.yaml").write_text(f"defaults:\n  - mixture_base\n{parts}  - _self_\nsize: 42\nbatch_size: 4\n")
    roots = {name: tmp_path_factory.mktemp(name) for name in ("near", "far")}
    return [
        f"hydra.searchpath=[file://{conf}]",
        "model=tiny",
        "data=two",
        *(f"data.parts.{name}.root={root}" for name, root in roots.items()),
        *(f"data.parts.{name}.train_images={count}" for name, count in {"near": 8, "far": 4}.items()),
        *(f"data.parts.{name}.val_images={count}" for name, count in {"near": 5, "far": 2}.items()),
        *("data.crop=null", "data.num_workers=0", "augmentation=none"),
        *("trainer=cpu", "trainer.max_epochs=2", "callbacks.panels.images=1", "report=false"),
    ]


@pytest.fixture(scope="module")
def run(overrides, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    typed = [*overrides, "callbacks.checkpoints.monitor=val/abs_rel_mean_of_parts"]
    train(compose_config("train", typed, folder))
    return folder


def test_every_part_has_its_numbers(run):
    content = json.loads((run / "metrics.json").read_text())
    images = pyarrow.parquet.read_table(run / "per_image.parquet").to_pydict()
    assert content["images"] == 7 and {name: part["images"] for name, part in content["parts"].items()} == {
        "near": 5,
        "far": 2,
    }
    for name, part in content["parts"].items():
        own = [
            abs_rel for id, abs_rel in zip(images["id"], images["abs_rel"], strict=True) if id.startswith(f"{name}/")
        ]
        assert part["metrics"]["abs_rel"] == pytest.approx(np.mean(own), rel=1e-6)
    low, high = content["parts"]["near"]["intervals"]["abs_rel"]
    assert low < content["parts"]["near"]["metrics"]["abs_rel"] < high
    table = (run / "table.csv").read_text()
    assert "near," in table and "far," in table


def test_the_best_checkpoint_follows_the_mean_of_the_parts(run):
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/abs_rel_near"]]
    assert len(rows) == 2
    for row in rows:
        parts = [float(row[f"val/abs_rel_{name}"]) for name in ("near", "far")]
        assert float(row["val/abs_rel_mean_of_parts"]) == pytest.approx(np.mean(parts), rel=1e-5)
        assert float(row["val/abs_rel"]) == pytest.approx(np.average(parts, weights=[5, 2]), rel=1e-5)
    best = min(float(row["val/abs_rel_mean_of_parts"]) for row in rows)
    parts = json.loads((run / "metrics.json").read_text())["parts"].values()
    assert np.mean([part["metrics"]["abs_rel"] for part in parts]) == pytest.approx(best, rel=1e-5)


def test_evaluate_gives_the_same_parts_also_over_pixels(run, overrides, compose_config, tmp_path):
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", "trainer=cpu", "panels=0", "breakdowns=false"]
    result = evaluate(compose_config("evaluate", typed, tmp_path), typed)
    recorded = json.loads((run / "metrics.json").read_text())["parts"]
    for name, part in result.parts.items():
        assert part.metrics == pytest.approx(recorded[name]["metrics"], rel=1e-5)
    typed.append("protocol.reduction=pixel")
    pooled = evaluate(compose_config("evaluate", typed, tmp_path), typed)
    images = pooled.tables.depth
    near = [id.startswith("near/") for id in images.id]
    expected = np.sqrt(np.average(images.errors["rmse"][near] ** 2, weights=images.facts["valid_pixels"][near]))
    assert pooled.parts["near"].metrics["rmse"] == pytest.approx(expected)


def test_the_rule_is_logged(overrides, compose_config, tmp_path, caplog):
    caplog.set_level("INFO")
    less = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    train(compose_config("train", [*overrides, *less], tmp_path))
    assert (
        "best.ckpt is the one with the lowest val/abs_rel (over all images of all parts). For the mean of the parts, "
        "in which each counts the same: callbacks.checkpoints.monitor=val/abs_rel_mean_of_parts; for one part, such "
        "as near: val/abs_rel_near."
    ) in caplog.text


def test_a_part_that_there_is_none_of_cannot_be_monitored(overrides, compose_config, tmp_path):
    typed = [*overrides, "callbacks.checkpoints.monitor=val/abs_rel_middle"]
    with pytest.raises(SettingError, match=r"^callbacks\.checkpoints\.monitor is one of .*val/abs_rel_far"):
        train(compose_config("train", typed, tmp_path))

"""What an evaluation leaves beside its table."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch._dynamo.utils import counters

from depth_lightning.commands.compare import compare
from depth_lightning.commands.evaluate import evaluate
from depth_lightning.evaluation.breakdowns import SAMPLE, _correction_notes
from depth_lightning.metrics import ERRORS, mean_intervals, units_of


@pytest.fixture(scope="module")
def evaluated(trained, compose_config, tmp_path_factory):
    """The folder of an evaluation of five rooms, and its printed output."""
    folder = tmp_path_factory.mktemp("evaluated")
    run, _ = trained
    typed = ["panels=0", "protocol=median_scaled"]
    result = evaluate(compose_config("evaluate", [f"checkpoint={run}/checkpoints/best.ckpt", *typed], folder), typed)
    return folder, result


def test_every_image_stands_in_the_table_of_images(evaluated):
    folder, result = evaluated
    columns = pyarrow.parquet.read_table(folder / "per_image.parquet").to_pydict()
    assert columns["id"] == sorted(columns["id"]) and len(set(columns["id"])) == 5
    assert set(columns["status"]) == {"scored"} and set(columns["truth"]) == {"depth"}
    assert len(set(columns["scene"])) == 5
    content = json.loads((folder / "metrics.json").read_text())
    for name in ERRORS:
        assert np.mean(columns[name]) == pytest.approx(content["metrics"][name], rel=1e-6)
    assert all(scale > 0 for scale in columns["scale"]) and columns["shift"] == [None] * 5
    assert all(0 < low < high <= 10 for low, high in zip(columns["target_min"], columns["target_max"], strict=True))
    assert all(0.9 < share <= 1 for share in columns["valid_share"])
    assert result.metrics == content["metrics"]


def test_intervals_stand_beside_the_numbers(evaluated):
    folder, _ = evaluated
    content = json.loads((folder / "metrics.json").read_text())
    columns = pyarrow.parquet.read_table(folder / "per_image.parquet").to_pydict()
    values = np.array([columns[name] for name in ERRORS]).T
    expected = mean_intervals(values, units_of(columns["scene"]))
    assert np.array(list(content["intervals"].values())) == pytest.approx(expected)
    assert list(content["intervals"]) == list(content["metrics"])
    assert content["intervals_over"]["units"] == "scenes" and content["intervals_over"]["count"] == 5
    with (folder / "table.csv").open() as file:
        rows = {row["result"]: row for row in csv.DictReader(file)}
    assert float(rows["95 % from"]["abs_rel"]) == content["intervals"]["abs_rel"][0]
    assert float(rows["95 % to"]["abs_rel"]) >= float(rows["model"]["abs_rel"])


def test_breakdowns_add_up(evaluated):
    folder, result = evaluated
    content = json.loads((folder / "breakdowns.json").read_text())
    assert content == json.loads(json.dumps(result.breakdowns._asdict()))
    columns = pyarrow.parquet.read_table(folder / "per_image.parquet").to_pydict()
    for name in ("by_distance", "by_edge", "by_region"):
        assert sum(row["pixels"] for row in content[name]) == sum(columns["valid_pixels"])
        assert sum(row["share"] for row in content[name]) == pytest.approx(1)
    pooled = np.average(columns["abs_rel"], weights=columns["valid_pixels"])
    for name in ("by_distance", "by_edge", "by_region"):
        assert sum(row["share"] * row["abs_rel"] for row in content[name]) == pytest.approx(pooled, rel=1e-4)
    assert sum(row["images"] for row in content["by_scene"]) == 5
    assert [row["correction"] for row in content["corrections"]] == ["none", "scale", "scale and offset"]
    with (folder / "breakdowns.csv").open() as file:
        assert len(list(csv.DictReader(file))) == sum(map(len, content.values()))


def test_a_metric_of_ones_own_points_the_way_it_states(trained, compose_config, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_metrics.py").write_text(
        "def my_share(prediction, target, mask):\n"
        "    return (mask & (prediction > 0.5 * target)).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))\n"
        "my_share.higher_is_better = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    typed = ["+metrics.mine=own_metrics.my_share", "panels=0", "explain=true", "breakdowns=false"]
    for name in ("best", "last"):
        given = [f"checkpoint={trained[0]}/checkpoints/{name}.ckpt", *typed]
        evaluate(compose_config("evaluate", given, tmp_path / name), given)
    assert "mine ↑" in capsys.readouterr().out
    content = json.loads((tmp_path / "best/metrics.json").read_text())
    more = {name for name, higher in content["higher_is_better"].items() if higher}
    assert more == {"delta1", "delta2", "delta3", "mine"}
    assert content["higher_is_better"].keys() == content["metrics"].keys()
    for row in content["explain"]:
        assert row["mine_change"] == pytest.approx(100 * (row["mine"] - content["metrics"]["mine"]), abs=1e-4)
    compare([tmp_path / "best", tmp_path / "last"])
    assert "mine ↑" in capsys.readouterr().out


def test_training_leaves_them_too(trained):
    folder, _ = trained
    assert pyarrow.parquet.read_table(folder / "per_image.parquet").num_rows == 5
    assert (folder / "breakdowns.json").is_file()


def test_breakdowns_can_be_left_out(trained, compose_config, tmp_path, capsys):
    run, _ = trained
    typed = ["panels=0", "breakdowns=false", "protocol.max_depth=0.01"]
    with pytest.raises(ValueError, match=r"^No pixel of 5 validation images"):
        evaluate(compose_config("evaluate", [f"checkpoint={run}/checkpoints/best.ckpt", *typed], tmp_path), typed)
    typed[-1] = "protocol.max_depth=2"
    result = evaluate(compose_config("evaluate", [f"checkpoint={run}/checkpoints/best.ckpt", *typed], tmp_path), typed)
    assert result.breakdowns is None and not (tmp_path / "breakdowns.json").exists()
    assert "Where the error is" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_compiled_network_scores_the_same_with_its_weights_as_constants(trained, evaluated, compose_config, tmp_path):
    run, _ = trained
    typed = ["panels=0", "protocol=median_scaled", "compile=true", "breakdowns=false", "data.eval_batch_size=5"]
    counters["inductor"].clear()
    result = evaluate(compose_config("evaluate", [f"checkpoint={run}/checkpoints/best.ckpt", *typed], tmp_path), typed)
    assert result.metrics == pytest.approx(evaluated[1].metrics, rel=1e-4)
    assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0
    assert not torch._inductor.config.freezing


def test_a_wrong_scale_is_said_in_plain_words():
    none, scale, affine = (
        {"abs_rel": 0.4},
        {"abs_rel": 0.3, "scales": [0.493, 0.545]},
        {"abs_rel": 0.2, "scales": [0.5, 0.5]},
    )
    assert _correction_notes([none, scale, affine]) == [
        "If only the scale were wrong: one factor (0.493 on one half of the images, 0.545 on the other) gives abs_rel "
        "0.3000 (-25.0 %), a factor and an offset 0.2000 (-50.0 %).",
        f"Each is fitted on one half and tested on the other, from {SAMPLE} pixels per image.",
    ]

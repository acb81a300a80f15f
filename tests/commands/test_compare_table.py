import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from depth_lightning.metrics import Protocol
from depth_lightning.runs.jobs import shortened
from depth_lightning.runs.sweep import Comparison

ROOT = Path(__file__).resolve().parents[2]


def _job(folder, number, abs_rel, overrides, protocol=None, data="NYUDepthV2 /nyu"):
    job = folder / str(number)
    (job / ".hydra").mkdir(parents=True)
    (job / ".hydra/overrides.yaml").write_text(OmegaConf.to_yaml(overrides))
    content = {"metrics": {"abs_rel": abs_rel, "delta1": 0.9}, "images": 654, "checkpoint": None, "data": data}
    if protocol:
        content["protocol"] = {**protocol.to_dict(), "hash": protocol.hash}
    (job / "metrics.json").write_text(json.dumps(content))
    return job


def _compare(folder):
    comparison = Comparison()
    comparison.started = 0.0
    comparison.on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))


def _rows(folder):
    with (folder / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def test_jobs_of_one_protocol_stand_together(tmp_path, capsys):
    eigen, affine = Protocol(crop="nyu_eigen"), Protocol(alignment="scale_shift_disparity")
    paths = ["runs/first/checkpoints/best.ckpt", "runs/second/checkpoints/best.ckpt"]
    for number in range(4):
        name, protocol = ("nyu_eigen", eigen) if number % 2 == 0 else ("affine_disparity", affine)
        overrides = [f"checkpoint={paths[number // 2]}", f"protocol={name}", "trainer=cpu"]
        _job(tmp_path, number, 0.1 * (number + 1), overrides, protocol)
    _compare(tmp_path)
    printed = capsys.readouterr().out
    body = [line for line in printed.splitlines() if line.startswith(("│", "├"))]
    assert [line[0] for line in body] == ["│", "│", "├", "│", "│"]
    expected = [("0", "first", eigen), ("2", "second", eigen), ("1", "first", affine), ("3", "second", affine)]
    for line, (job, run, protocol) in zip(body[:2] + body[3:], expected, strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert (cells[0], cells[1], cells[3]) == (job, run, protocol.hash)
    assert "trainer" not in printed  # the same in all
    assert f"Protocol {eigen.hash}: {eigen}." in printed and "not comparable" in printed
    rows = _rows(tmp_path)
    assert [row["job"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["checkpoint"] == "" and float(rows[3]["abs_rel"]) == pytest.approx(0.4)
    assert {row["protocol_hash"] for row in rows} == {eigen.hash, affine.hash}


def test_jobs_on_other_data_do_not_stand_together(tmp_path, capsys):
    for number, data in enumerate(["NYUDepthV2 /nyu", "DepthPairs /kitti", "NYUDepthV2 /nyu"]):
        _job(tmp_path, number, 0.1, [f"seed={number}"], Protocol(), data)
    _compare(tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("├") == 1 and "scored on" in printed


def test_jobs_without_a_protocol_are_listed(tmp_path, capsys):
    _job(tmp_path, 0, 0.1, ["data=nyu"], Protocol())
    job = _job(tmp_path, 1, 0.1, ["data=da2k"])
    (job / "metrics.json").write_text('{"metrics": {"accuracy": 0.95}, "images": 9}')
    _compare(tmp_path)
    printed = capsys.readouterr().out
    assert "0.9500" in printed and "accuracy ↑" in printed and "abs_rel ↓" in printed
    assert _rows(tmp_path)[1]["accuracy"] == "0.95"


def test_older_results_of_the_folder_and_empty_sweeps_are_passed_over(tmp_path, capsys):
    job = _job(tmp_path, 0, 0.1, [], Protocol())
    os.utime(job / "metrics.json", (0, 0))
    comparison = Comparison()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    comparison.on_multirun_start(config)
    comparison.on_multirun_end(config)
    assert capsys.readouterr().out == "" and not (tmp_path / "comparison.csv").exists()


@pytest.mark.parametrize(
    "values, expected",
    [
        (["a.ckpt", "b.ckpt"], ["a.ckpt", "b.ckpt"]),
        (["r/one/c/best.ckpt", "r/two/c/best.ckpt"], ["one", "two"]),
        (["r/one/c/best.ckpt", "r/one/c/last.ckpt"], ["best.ckpt", "last.ckpt"]),
        (["r/best.ckpt", "best.ckpt"], ["r/best.ckpt", "best.ckpt"]),
        (["1e-4", "2e-4", ""], ["1e-4", "2e-4", ""]),
    ],
)
def test_shortened(values, expected):
    assert shortened(values) == expected
    assert len(set(expected)) == len(set(values))


@pytest.mark.slow
def test_a_sweep_of_evaluate_ends_with_the_table(trained, tmp_path):
    folder, best = trained
    checkpoints = ",".join(f"{folder}/checkpoints/{name}.ckpt" for name in ("best", "last"))
    command = [sys.executable, "evaluate.py", "-m", f"checkpoint={checkpoints}", "protocol=metric,affine_disparity"]
    result = subprocess.run(
        [*command, "panels=0", "trainer=cpu", f"hydra.sweep.dir={tmp_path}"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.index("All jobs of this sweep") > result.stdout.rindex("abs_rel ↓   │")
    rows = _rows(tmp_path)
    assert len(rows) == 4 and len({row["protocol_hash"] for row in rows}) == 2
    assert float(rows[0]["abs_rel"]) == pytest.approx(best, rel=1e-6)
    assert json.loads((tmp_path / "3/metrics.json").read_text())["protocol"]["hash"] == rows[3]["protocol_hash"]

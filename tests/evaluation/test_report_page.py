"""The page that evaluate.py report=true and the end of a training run write."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.evaluation.report_page import _curves

ROOT = Path(__file__).resolve().parents[2]


def _content(page):
    return json.loads(re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)[1])


def test_a_run_ends_with_its_page(trained):
    folder, best = trained
    page = (folder / "report.html").read_text()
    assert f"{best:.4f}" in page and "python -m depth_lightning train" in page
    for chart in ("Training loss", "Validation abs_rel", "Learning rate", "abs_rel by true depth", "Calibration"):
        assert chart in page, chart
    content = _content(page)
    assert len(content["images"]) == 5 and {image["status"] for image in content["images"]} == {"scored"}
    assert [len(group["images"]) for group in content["groups"]] == [3, 2]
    assert page.count('id="large') == 5 and page.count('id="small') == 5


def test_evaluation_writes_one_when_asked(trained, compose_config, tmp_path):
    run, _ = trained
    checkpoint = f"checkpoint={run}/checkpoints/best.ckpt"
    quiet = ["panels=0", "breakdowns=false"]
    evaluate(compose_config("evaluate", [checkpoint, *quiet], tmp_path / "without"), quiet)
    assert not (tmp_path / "without/report.html").exists()
    typed = [*quiet, "report=true", "protocol=median_scaled", "baseline=true"]
    result = evaluate(compose_config("evaluate", [checkpoint, *typed], tmp_path), [checkpoint, *typed])
    page = (tmp_path / "report.html").read_text()
    assert f"python -m depth_lightning evaluate {checkpoint} panels=0" in page
    assert "abs_rel by true depth" not in page and "Training loss" in page and "always" in page
    content = _content(page)
    found = [image["values"][0] for image in content["images"]]
    assert found == [float(f"{value:.6g}") for value in result.per_image()["abs_rel"]]
    assert content["ways"] == [
        "The prediction is aligned to the truth of its image: multiplied by the ratio of the medians."
    ]
    assert "scale" in [column["name"] for column in content["columns"]]


@pytest.mark.parametrize(
    "content",
    [
        b"id,name\n1,a\n",
        b"step,train/loss\nfirst,0.5\n",
        b"\xff\xfe\x00",
        b"step\n1,2,3\n",
        b"step,a\n" + b"x" * 200_000,
    ],
)
def test_another_programs_metrics_are_no_curves(content, trained, compose_config, tmp_path, caplog):
    run, _ = trained
    above, checkpoint = tmp_path / "above", tmp_path / "above" / "mine" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes((run / "checkpoints/best.ckpt").read_bytes())
    (above / "metrics.csv").write_bytes(content)
    assert _curves(above) == []
    (above / "config.yaml").write_text("a: 1\n")
    assert _curves(above) == []
    assert f"The report has no curves: {above}/metrics.csv is not a metrics.csv of train.py" in caplog.text
    if content.startswith(b"id"):
        typed = [f"checkpoint={checkpoint}", "panels=0", "breakdowns=false", "report=true"]
        evaluate(compose_config("evaluate", typed, tmp_path / "out"), typed)
        assert "Training loss" not in (tmp_path / "out/report.html").read_text()


def test_a_checkpoint_at_the_top_has_no_run(trained, compose_config, tmp_path, monkeypatch):
    run, _ = trained
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", "panels=0", "breakdowns=false", "report=true"]
    monkeypatch.setattr(Path, "absolute", lambda path: Path("/best.ckpt") if path.suffix == ".ckpt" else path)
    evaluate(compose_config("evaluate", typed, tmp_path), typed)
    assert "Training loss" not in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_two_processes_write_the_page_of_one(trained, tmp_path):
    run, _ = trained
    pages = {}
    for name, processes in (("alone", "cpu"), ("two", "ddp_cpu")):
        words = [f"checkpoint={run}/checkpoints/best.ckpt", f"trainer={processes}", "panels=0", "report=true"]
        words += ["data.eval_batch_size=1", f"hydra.run.dir={tmp_path / name}"]
        subprocess.run(
            [sys.executable, "evaluate.py", *words],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True,
        )  # fmt: skip
        pages[name] = (tmp_path / name / "report.html").read_text()
    alone, two = (_content(page) for page in pages.values())
    assert [image["id"] for image in alone["images"]] == [image["id"] for image in two["images"]]
    assert alone["groups"] == two["groups"]
    blobs = [re.findall(r'<script type="application/octet-stream" id="(\w+)">(.*?)<', page) for page in pages.values()]
    assert len(blobs[0]) == 10 and blobs[0] == blobs[1]

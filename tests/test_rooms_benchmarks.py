"""Benchmarks on rendered rooms at toy size: a row that breaks costs hours otherwise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FEW = ("data.train_images=8", "data.val_images=3", "data.size=42", "data.batch_size=4", "data.eval_batch_size=3")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """script(name, *typed): what a copy of the script prints, whose results lie in the test's folder."""
    for path in BENCHMARKS.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent))

    def run(name, *typed):
        command = [sys.executable, tmp_path / name, *typed]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_quick_start(script, tmp_path):
    short = (f"data.root={tmp_path}/rooms", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    typed = ("--folder", tmp_path / "runs", "--seeds", "1", *FEW, *short)
    printed = script("quick_start.py", *typed)
    found = json.loads((tmp_path / "results/quick_start.json").read_text())
    runs = found["seeds"]["0"]
    lower = 1 - runs["fine-tuned"]["abs_rel"] / runs["from scratch"]["abs_rel"]
    assert found["lower_by"] == pytest.approx(lower) and f"{lower:.1%}" in printed
    folders = [tmp_path / "runs" / name for name in ("fine-tuned_0", "from_scratch_0")]
    assert [OmegaConf.load(folder / "config.yaml").model.weights for folder in folders] == ["rooms_tiny", None]
    written = [(folder / "metrics.csv").stat().st_mtime_ns for folder in folders]
    assert f"{lower:.1%}" in script("quick_start.py", *typed), "a second call measures nothing again"
    assert [(folder / "metrics.csv").stat().st_mtime_ns for folder in folders] == written


def test_recipes(script, tmp_path):
    pytest.importorskip("peft")
    typed = ("--folder", tmp_path / "runs", "--seeds", "1", "--images", "8", "--steps", "1")
    printed = script("recipes.py", *typed, *FEW, "trainer.log_every_n_steps=1", "self_check=false")
    found = json.loads((tmp_path / "results/recipes.json").read_text())["runs"]
    assert set(found) == {f"8 {way}" for way in ("head alone", "full", "layer decay 0.8", "unfreezing", "EMA")} | {
        "8 LoRA, rank 4",
        "8 LoRA, rank 16",
        "0 not at all",
    }
    learning = {way: runs[0]["parameters"] for way, runs in found.items()}
    assert learning["8 head alone"] < learning["8 LoRA, rank 4"] < learning["8 LoRA, rank 16"] < learning["8 full"]
    for runs in found.values():
        assert runs[0]["new"]["abs_rel"] > 0 and runs[0]["old"]["abs_rel"] > 0
    assert "LoRA, rank 16" in printed


def test_cameras(script, tmp_path):
    typed = ("--folder", tmp_path / "runs", "--seeds", "1", "--epochs", "1")
    printed = script("cameras.py", *typed, *FEW, "trainer.log_every_n_steps=1", "self_check=false")
    found = json.loads((tmp_path / "results/cameras.json").read_text())["runs"]
    assert len(found) == 4 * 3 and "camera=canonical augmentation=camera" in printed
    lenses = {run["log_times"] for name, (run,) in found.items() if name.startswith("camera=canonical,")}
    assert len(lenses) == 3


def test_loop(script, tmp_path):
    printed = script("loop.py", "--repeats", "1", "--images", "32", "--epochs", "2")
    seconds = json.loads((tmp_path / "results/loop.json").read_text())["epoch_seconds"]
    assert all(0 < own < 600 for own in seconds.values()) and all(name in printed for name in seconds)


def test_roofline(script, tmp_path):
    script("roofline.py", "--repeats", "1", "--encoder", "tiny", "--size", "84", "112")
    found = json.loads((tmp_path / "results/roofline.json").read_text())
    forward = found["forward, tiny, 1 image, float32"]
    products = forward["matrix products"]
    # 48 patches and a class token; 8 blocks of 12 · 192² weights.
    assert products["flops_per_second"] * products["seconds"] == pytest.approx(2 * 49 * 8 * 12 * 192**2)
    assert sum(part["share"] for name, part in forward.items() if name != "all") == pytest.approx(1)


def test_evaluation(script, tmp_path):
    printed = script("evaluation.py", "--images", "12", "--repeats", "1")
    found = json.loads((tmp_path / "results/evaluation.json").read_text())
    assert set(found["evaluated"]) == {"10", "12"} and "the rest of each frame" in printed


def test_student(script, tmp_path):
    printed = script("student.py", "--folder", tmp_path, "--seeds", "1", "--steps", "1", "--images", "64")
    found = json.loads((tmp_path / "looks/student.json").read_text())
    assert found["student"]["seeds"] == 1 and found["student"]["difference"] != 0
    assert "student, 1 synthetic : 2 photos" in printed

"""benchmarks/recipes.py at toy size: a way that breaks costs hours otherwise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
        command = [sys.executable, tmp_path / name, "--folder", tmp_path / "runs", *typed]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_recipes(script, tmp_path):
    pytest.importorskip("peft")
    typed = ("--seeds", "1", "--images", "8", "--steps", "1", *FEW, "trainer.log_every_n_steps=1", "self_check=false")
    printed = script("recipes.py", *typed)
    found = json.loads((tmp_path / "results/recipes.json").read_text())["runs"]
    assert set(found) == {f"8 {way}" for way in ("head alone", "full", "layer decay 0.8", "unfreezing", "EMA")} | {
        "8 LoRA, rank 4",
        "8 LoRA, rank 16",
    }
    learning = {way: runs[0]["parameters"] for way, runs in found.items()}
    assert learning["8 head alone"] < learning["8 LoRA, rank 4"] < learning["8 LoRA, rank 16"] < learning["8 full"]
    for runs in found.values():
        assert runs[0]["new"]["abs_rel"] > 0 and runs[0]["old"]["abs_rel"] > 0
    assert "LoRA, rank 16" in printed

"""benchmarks/gpu.py, whole, at toy size on the CPU: a row that breaks costs a rented GPU's minutes otherwise."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def rows(*typed):
    done = subprocess.run([sys.executable, SCRIPT, "--device", "cpu", *typed], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_and_evaluation():
    only = "training, vits, float32, ours", "training, vits, bf16, frozen", "evaluation, vits, bf16, batched"
    printed = rows("--only", *only)
    assert all(name in printed for name in only) and "failed" not in printed


@pytest.mark.slow
def test_every_row():
    pytest.importorskip("peft")
    assert "failed" not in rows()

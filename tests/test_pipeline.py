"""The pipeline's script at a fiftieth of its toy size: every command works with the next, and it resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(folder):
    command = [sys.executable, "benchmarks/pipeline.py", "--folder", str(folder), "--times", "0.02"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_pipeline_ends_with_four_ways_and_resumes(tmp_path):
    printed = _run(tmp_path)
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("depth-lightning ")] == [
        *("train", "label", "train", "train", "train", "train"), *["evaluate"] * 4
    ]  # fmt: skip
    table = printed[printed.index("Four ways") :]
    for words in (("zero-shot", "relative"), ("zero-shot", "absolute"), ("in-domain", "relative")):
        assert any(all(word in line for word in words) for line in table.splitlines())
    scores = json.loads((tmp_path / "pipeline.json").read_text())
    assert len(scores) == 4 and all(np.isfinite(metrics["abs_rel"]) for metrics in scores.values())
    assert cv2.imread(str(tmp_path / "pipeline.png")).shape[1] == 6 * (112 + 4)
    (tmp_path / "zero-shot_relative/metrics.json").unlink()
    (tmp_path / "student/metrics.json").unlink()
    again = _run(tmp_path)
    done = [line.split()[1] for line in again.splitlines() if line.startswith("depth-lightning ")]
    assert done == ["train", "evaluate"] and json.loads((tmp_path / "pipeline.json").read_text()) == scores

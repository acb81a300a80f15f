"""One process of two meets a NaN: both leave the step out, or both end, and neither waits for the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from depth_lightning.training.health.incident import read_incident

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("on_bad_step, status", [("skip", 0), ("stop", 1)])
def test_all_processes_agree(on_bad_step, status, small, tmp_path):
    planted = ("_target_=planted.BrokenImage", "step=1", "rank=1")
    paths = os.pathsep.join([str(ROOT / "tests/training"), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [
            *(sys.executable, "train.py", *small, "trainer=ddp_cpu", "data.batch_size=2", "trainer.max_epochs=1"),
            *(f"+callbacks.plant.{argument}" for argument in planted),
            *(f"callbacks.watch.on_bad_step={on_bad_step}", f"hydra.run.dir={tmp_path}"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stdout.count("depth_lightning replay") == 1, result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    incident = read_incident(tmp_path / "incidents/step_000001")
    assert incident.circumstances.rank == 1 and incident.circumstances.world_size == 2
    assert "values of the image are not finite" in incident.findings.inputs_not_finite[0]
    assert (tmp_path / "metrics.json").is_file() == (on_bad_step == "skip")

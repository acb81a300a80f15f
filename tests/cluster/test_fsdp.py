"""trainer=fsdp in real processes: the same weights as one process, checkpoints that any strategy goes on with."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_two_nodes import ROOT, SMALL, alone, largest_difference

FSDP, ONE = ["trainer=fsdp_cpu", "data.batch_size=4"], ["trainer=cpu", "data.batch_size=8"]
PARTS = [*FSDP, "trainer.strategy.in_parts=true"]
ONE_PART = [*PARTS, "trainer.devices=1", "data.batch_size=8"]


def _start(*command):
    program, environment = [sys.executable, *map(str, command)], {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _program(*command):
    process = _start(*command)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    return output


def _exported(checkpoint, folder):
    _program("export.py", f"checkpoint={checkpoint}", f"hydra.run.dir={folder}")
    (file,) = folder.rglob("*.pth")
    return torch.load(file, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, after",
    [(FSDP, ONE), (ONE, FSDP), (PARTS, PARTS), (PARTS, ONE_PART), (ONE_PART, PARTS)],
    ids=["fsdp to one", "one to fsdp", "parts to parts", "two parts to one", "one part to two"],
)
def test_a_run_goes_on_under_another_strategy(before, after, tmp_path):
    alone(tmp_path / "alone", tmp_path / "rooms")
    run = tmp_path / "run"
    given = ["train.py", *SMALL, f"data.root={tmp_path}/rooms", "checkpoint=auto", f"hydra.run.dir={run}"]
    process = _start(*given, *before)
    while not (run / "checkpoints/previous.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 75, output
    assert "Resuming from" in _program(*given, *after)
    if after in (PARTS, ONE_PART):
        assert len(list((run / "checkpoints/last.ckpt").glob("*.distcp"))) == (2 if after is PARTS else 1)
    else:
        assert largest_difference(run, tmp_path / "alone") < 2e-5
    assert largest_difference(run, tmp_path / "alone", "best.ckpt") < 2e-5

    best, numbers = run / "checkpoints/best.ckpt", []
    for name, trainer in {"one": "cpu", "two": "fsdp_cpu"}.items():
        folder = tmp_path / f"evaluated_{name}"
        _program("evaluate.py", f"checkpoint={best}", f"trainer={trainer}", "panels=1", f"hydra.run.dir={folder}")
        numbers.append(json.loads((folder / "metrics.json").read_text())["metrics"])
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)
    assert numbers[0] == pytest.approx(json.loads((run / "metrics.json").read_text())["metrics"], abs=1e-5)
    exported = _exported(best, tmp_path / "exported")
    expected = _exported(tmp_path / "alone/checkpoints/best.ckpt", tmp_path / "expected")
    assert exported.keys() == expected.keys()
    assert max((exported[key] - expected[key]).abs().max().item() for key in expected) < 2e-5

"""evaluate.py and train.py on several real processes: nothing padded, nothing dropped, nothing that waits for ever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def _program(name, *overrides):
    result = subprocess.run(
        [sys.executable, name, *map(str, overrides)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _evaluate(folder, processes, *overrides):
    trainer = ["trainer=cpu"] if processes == 1 else ["trainer=ddp_cpu", f"trainer.devices={processes}"]
    printed = _program("evaluate.py", *overrides, *trainer, "panels=0", f"hydra.run.dir={folder}")
    return json.loads((folder / "metrics.json").read_text()), printed


@pytest.fixture
def frames(tmp_path):
    """Two test images in NYU's h5 layout, the second without a pixel in range."""
    rng = np.random.default_rng(0)
    for number, farthest in ((1, 9.0), (2, 90.0)):
        path = tmp_path / f"nyu/val/official/{number:05d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["rgb"] = rng.integers(0, 256, (3, 48, 64), dtype=np.uint8)
            file["depth"] = rng.uniform(0.2 * farthest, farthest, (48, 64)).astype(np.float32)
    return tmp_path / "nyu"


def test_fewer_images_than_processes_one_without_a_valid_pixel(trained, frames, tmp_path):
    run, _ = trained
    given = [f"checkpoint={run}/checkpoints/best.ckpt", "data=nyu", f"data.root={frames}", "data.num_workers=0"]
    alone, _ = _evaluate(tmp_path / "one", 1, *given)
    found, printed = _evaluate(tmp_path / "three", 3, *given)
    assert found["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
    assert found["images"] == 1 and found["images_by_truth"] == alone["images_by_truth"]
    assert "1 image without a valid pixel" in printed
    table = pyarrow.parquet.read_table(tmp_path / "three/per_image.parquet").to_pydict()
    assert table["status"] == ["scored", "without_valid_pixel"] and table["abs_rel"][1] is None
    assert table["valid_pixels"][1] == 0
    assert (tmp_path / "three/breakdowns.json").read_text() == (tmp_path / "one/breakdowns.json").read_text()


@pytest.mark.slow
def test_65_images_on_1_2_and_3_processes(trained, tmp_path):
    run, _ = trained
    given = [f"checkpoint={run}/checkpoints/best.ckpt", "data=rooms", f"data.root={tmp_path}/rooms"]
    given += ["data.val_images=65", "data.eval_batch_size=4"]
    alone, _ = _evaluate(tmp_path / "1", 1, *given)
    expected = pyarrow.parquet.read_table(tmp_path / "1/per_image.parquet").to_pydict()
    assert alone["images"] == 65 == len(set(expected["id"]))
    for processes in (2, 3):
        found, _ = _evaluate(tmp_path / str(processes), processes, *given)
        assert found["images"] == 65
        assert found["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)
        bounds = np.array([list(content["intervals"].values()) for content in (found, alone)])
        assert bounds[0] == pytest.approx(bounds[1], abs=1e-5)
        table = pyarrow.parquet.read_table(tmp_path / str(processes) / "per_image.parquet").to_pydict()
        assert table["id"] == expected["id"]
        assert table["abs_rel"] == pytest.approx(expected["abs_rel"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "apart"),
    [
        ([], 2e-5),
        (["camera=canonical", "camera.focal_px=45", "data.fov_deg=[30,80]"], 2e-5),
        # A projector from the features of one width to the other's. L1's gradient jumps where a residual is about 0.
        (
            [
                *("loss=student", "loss.alignment.encoder=tiny", "loss.alignment.weights=rooms_tiny"),
                *("model=vits", "model.weights=null", "model.output=relative", "protocol=affine_disparity"),
            ],
            1e-4,
        ),
    ],
)
def test_training_steps_across_devices_equal_those_of_one(more, apart, small, tmp_path):
    """Two processes with four images each against one with eight; validation has fewer images than processes."""
    given = [*small, "loss.across_devices=true", "data.train_images=16", "data.val_images=1", "trainer.max_epochs=1"]
    given += ["baseline=false", *more]
    weights, scores = [], []
    for name, batches in {
        "one": ["data.batch_size=8"],
        "two": ["data.batch_size=4", "trainer=ddp_cpu"],
    }.items():
        _program("train.py", *given, *batches, f"hydra.run.dir={tmp_path / name}")
        state = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        # A loss up to a shift gives the last bias a gradient of rounding errors, which Adam makes a step.
        state.pop("network.head.scratch.output_conv2.2.bias")
        weights.append(torch.cat([state[key].flatten() for key in sorted(state)]))
        scores.append(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["abs_rel"])
    moved = (weights[0] - weights[1]).abs().max()
    assert moved < apart, moved
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)

"""Ctrl-C as a terminal sends it, to every process of a command: status 130, and a word on what is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def interrupted(folder, arguments, when, number=signal.SIGINT):
    """Start a command, and send a signal to it and all that it started when `when` holds: of its output, or seconds.

    Returns:
        Its exit status and its output.
    """
    command = [sys.executable, *arguments]
    output = folder / "output.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    start = time.monotonic()
    while not (time.monotonic() - start > when if isinstance(when, float) else when(output.read_text())):
        assert process.poll() is None, f"it ended before:\n{output.read_text()}"
        assert time.monotonic() - start < 120, output.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, number)
    try:
        status = process.wait(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return status, output.read_text()


def has(words):
    return lambda output: words in output


def some(folder, pattern):
    return lambda output: any(folder.glob(pattern))


@pytest.fixture
def given(small, tmp_path):
    return [*small, "trainer=cpu", "report=false", f"hydra.run.dir={tmp_path}/run"]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0])
def test_while_libraries_are_imported(seconds, given, tmp_path):
    status, output = interrupted(tmp_path, ["train.py", *given], seconds)
    assert (status, output.strip()) == (130, "Interrupted before the work began. To do it, repeat the command.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "workers", "message"),
    [
        ("Self-check before", 0, "Interrupted. Nothing was saved yet. To start again, repeat the command."),
        ("one batch:", 4, "Interrupted. "),
        ("epoch 2", 2, "is saved. To resume, repeat the command with checkpoint=auto hydra.run.dir="),
    ],
)
def test_training(when, workers, message, given, tmp_path):
    more = [f"data.num_workers={workers}", "trainer.max_epochs=50"]
    status, output = interrupted(tmp_path, ["train.py", *given, *more], has(when))
    assert status == 130 and message in output.splitlines()[-1], output
    assert "Traceback" not in output and "Exception ignored" not in output


@pytest.mark.slow
def test_sigterm_says_how_to_resume(given, tmp_path):
    status, output = interrupted(
        tmp_path, ["train.py", *given, "trainer.max_epochs=50"], has("epoch 2"), signal.SIGTERM
    )
    *_, stopped, resume = output.splitlines()
    assert status == 75
    assert "Stopped by SIGTERM after step " in stopped
    assert stopped.endswith(f" and saved as {tmp_path}/run/checkpoints/last.ckpt.")
    assert "is saved. To resume, repeat" in resume and resume.endswith(f"checkpoint=auto hydra.run.dir={tmp_path}/run")


@pytest.mark.slow
def test_a_sweep_ends(given, tmp_path):
    swept = ["optimizer.lr=1e-4,2e-4", f"hydra.sweep.dir={tmp_path}/sweep", "trainer.max_epochs=20"]
    status, output = interrupted(tmp_path, ["train.py", "-m", *given, *swept], has("epoch 2"))
    assert status == 130 and "#1 :" not in output and "Traceback" not in output, output
    last = output.splitlines()[-1]
    assert last.startswith(f"Interrupted, and with it the sweep in {tmp_path}/sweep. Step ")
    assert last.endswith(f"repeat the command with checkpoint=auto hydra.sweep.dir={tmp_path}/sweep")
    assert not (tmp_path / "sweep" / "0" / "failed.txt").exists()


NOTHING = "Nothing was written. To do it again, repeat the command."


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "predict", "label", "export", "pack", "doctor", "batch-size"])
def test_other_commands(command, trained, tmp_path):
    run, _ = trained
    checkpoint, photos = f"checkpoint={run}/checkpoints/best.ckpt", tmp_path / "photos"
    rooms = ["data=rooms", "data.train_images=800", "data.val_images=800", f"data.root={tmp_path}/rooms"]
    photos.mkdir()
    for number in range(200):
        Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(photos / f"{number}.png")
    packed = tmp_path / "packed"
    arguments, when, message = {
        "evaluate": ([checkpoint, *rooms, "trainer=cpu", "data.num_workers=2"], some(tmp_path / "rooms", "*"), NOTHING),
        "predict": ([checkpoint, f"input={photos}", f"output={packed}"], some(packed, "*.png"), "The files in "),
        "label": ([checkpoint, f"input={photos}", f"output={packed}"], some(packed, "*.npz"), "The labels in "),
        "export": ([checkpoint, "layout=onnx", f"output={packed}"], some(tmp_path, ".partial-*"), NOTHING),
        "pack": ([*rooms, f"output={packed}"], some(packed, ".partial-*"), f"{packed} is incomplete, and "),
        "doctor": (rooms, has("Reading train"), NOTHING),
        "batch-size": (["experiment=rooms", *rooms[1:], "memory_gib=4"], has("batch_size=1:"), "The sizes "),
    }[command]
    status, output = interrupted(
        tmp_path, ["-m", "depth_lightning", command, *arguments, f"hydra.run.dir={tmp_path}/run"], when
    )
    assert status == 130 and output.splitlines()[-1].startswith(f"Interrupted. {message}"), output
    assert "Traceback" not in output and "Exception ignored" not in output
    assert not list(tmp_path.rglob(".partial-*"))


@pytest.mark.slow
def test_what_a_kill_leaves_is_removed_by_the_next_run(trained, tmp_path):
    run, _ = trained
    export = [f"checkpoint={run}/checkpoints/best.ckpt", "layout=onnx", f"output={tmp_path}/exported"]
    command = ["export.py", *export, f"hydra.run.dir={tmp_path}/run"]
    status, _ = interrupted(tmp_path, command, some(tmp_path, ".partial-*"), signal.SIGKILL)
    assert status == -signal.SIGKILL and len(list(tmp_path.glob(".partial-*"))) == 1
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    assert not list(tmp_path.glob(".partial-*")) and (tmp_path / "exported" / "model.onnx").is_file()

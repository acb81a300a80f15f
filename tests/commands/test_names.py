"""Names of files and folders that are not UTF-8, or that look like something else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest

from depth_lightning.data.bad_samples import Samples
from depth_lightning.models.torch_files import CheckpointError, read_torch
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import printable

ROOT = Path(__file__).resolve().parents[2]
KITCHEN = os.fsdecode(b"K\xfcche")
PAIRS = ["data=pairs", "data.image={scene}/rgb/*.png", "data.depth={scene}/depth/*.png", "data.depth_scale=1000"]


@pytest.fixture
def folder(tmp_path):
    """Two scenes in a folder called 2011_09_26, one of them named in Latin-1."""
    folder = tmp_path / "2011_09_26"
    for scene in ("b", KITCHEN):
        for kind, content in (
            ("rgb", np.full((60, 80, 3), 99, np.uint8)),
            ("depth", np.full((60, 80), 2000, np.uint16)),
        ):
            try:
                (folder / scene / kind).mkdir(parents=True)
            except OSError:
                pytest.skip("this file system takes only UTF-8")
            (folder / scene / kind / "0.png").write_bytes(cv2.imencode(".png", content)[1].tobytes())
    return folder


def program(*words, cwd):
    """Run evaluate.py with output that is ASCII."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "evaluate.py"), *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=False)


def test_an_evaluation_of_names_that_are_not_utf_8_is_written_whole(folder, trained, tmp_path):
    shutil.copy(trained[0] / "checkpoints/best.ckpt", tmp_path / "epoch=03-val_loss=0.12.ckpt")
    result = program(
        *("checkpoint=epoch=03-val_loss=0.12.ckpt", f"data.root={folder.name}", *PAIRS),
        *("split=all", "report=true", "data.num_workers=0", "hydra.run.dir=20240101"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    out = tmp_path / "20240101"
    content = json.loads((out / "metrics.json").read_bytes())
    assert content["images"] == 2 and content["split"] == "all" and content["data"] == "DepthPairs 2011_09_26"
    ids = pyarrow.parquet.read_table(out / "per_image.parquet")["id"].to_pylist()
    assert sorted(ids) == [r"K\udcfcche/rgb/0.png", "b/rgb/0.png"]
    assert (out / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    assert b"Split: all, which may hold images that the network was trained on." in result.stdout


def test_a_run_folder_that_is_not_utf_8_is_refused_before_the_work(folder, tmp_path):
    result = program(f"hydra.run.dir={KITCHEN}", "checkpoint=nowhere.ckpt", cwd=tmp_path)
    assert result.returncode == 1
    assert b"SettingError: hydra.run.dir is a path in UTF-8, found '" in result.stderr


def test_a_checkpoint_that_is_not_utf_8_is_said_to_be(folder, trained, tmp_path):
    path = tmp_path / f"{KITCHEN}.ckpt"
    shutil.copy(trained[0] / "checkpoints/best.ckpt", path)
    with pytest.raises(CheckpointError) as error:
        read_torch(path)
    assert str(error.value) == f"{path} cannot be opened by torch: its name is not UTF-8. Rename it."


def test_ids_and_scenes_are_passed_on_as_reports_can_hold_them():
    image, target = np.zeros((14, 14, 3), np.uint8), np.ones((14, 14), np.float32)
    sample = DepthSample(image, target, target > 0, DepthKind.METRES, f"{KITCHEN}/0.png", KITCHEN)
    passed_on = Samples([sample])[0]
    assert (passed_on.id, passed_on.scene) == (r"K\udcfcche/0.png", r"K\udcfcche")
    assert printable("Küche ↓") == "Küche ↓"

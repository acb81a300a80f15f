"""The notebook, with rendered rooms in the place of NYU."""

import base64
import os
import re
import shlex
import sys
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = re.compile(r"^!python (?:-m depth_lightning )?(\w+)(?:\.py)? (.*)$", re.MULTILINE)


def read():
    return nbformat.read(ROOT / "notebooks" / "finetune_nyu.ipynb", as_version=4)


def test_is_committed_without_outputs_and_holds_no_code_of_its_own():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert not any(re.search(r"^\s*(def|class) ", cell.source, re.MULTILINE) for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells) <= 8


def test_its_commands_compose_with_its_own_parameters():
    first, *others = [cell.source for cell in read().cells if cell.cell_type == "code"]
    parameters = {}
    exec(first, parameters)
    commands = [match for source in others for match in PROGRAM.findall(source)]
    assert [name for name, _ in commands] == ["show", "train", "evaluate"]
    for name, arguments in commands:
        overrides = shlex.split(arguments.format(**parameters))
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose(name, [each for each in overrides if not each.startswith("hydra.")])
        if name == "train":
            assert cfg.data.root == "/kaggle/input/nyu-depth-v2"
            assert (cfg.trainer.devices, cfg.trainer.precision, cfg.model.encoder) == (2, "16-mixed", "vits")


@pytest.mark.slow
def test_runs_from_top_to_bottom(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read()
    first = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    first.source = f"""
DATA = "rooms data.root={tmp_path}/rooms data.train_images=12 data.val_images=10 data.size=42 data.batch_size=4"
EXPERIMENT = "rooms"
SETTINGS = "trainer.max_epochs=2"
PROTOCOL = "metric"
RUNS = "{tmp_path}/runs"
"""
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    pictures = {
        name: [_picture(one) for one in found if "image/png" in one.get("data", {})] for name, found in outputs.items()
    }
    assert {name: len(found) for name, found in pictures.items() if found} == {"show": 1, "panels": 2, "predictions": 1}
    assert pictures["predictions"][0].shape[0] > 10 * 240
    printed = "".join(one.text for one in outputs["train"] if one.output_type == "stream")
    assert "epoch 2, step 6: val abs_rel" in printed
    assert not re.search(r"\x1b\[[0-9;?]*[A-KSTfhl]", printed)  # nothing that moves the cursor
    assert "abs_rel" in "".join(one.text for one in outputs["evaluate"] if one.output_type == "stream")


def _picture(output):
    return cv2.imdecode(np.frombuffer(base64.b64decode(output["data"]["image/png"]), np.uint8), cv2.IMREAD_COLOR)

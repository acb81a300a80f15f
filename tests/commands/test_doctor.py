"""The doctor as a person calls it: what it writes, and its exit status."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from depth_lightning.commands import doctor
from depth_lightning.data.rooms import render_room

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six rendered rooms as pairs in millimetres, each its own scene; the last two are for validation."""
    root = tmp_path_factory.mktemp("pairs")
    for number in range(6):
        image, depth = render_room((number,), 84, 112)
        (root / f"room{number}").mkdir()
        cv2.imwrite(str(root / f"room{number}" / "a.jpg"), image[..., ::-1])
        cv2.imwrite(str(root / f"room{number}" / "a.png"), np.round(1000 * depth).astype(np.uint16))
    return root


def overrides(folder, depth_scale=1000):
    return [
        "data=pairs",
        f"data.root={folder}",
        "data.image='{scene}/a.jpg'",
        "data.depth='{scene}/a.png'",
        "data.split_list=[room4,room5]",
        f"data.depth_scale={depth_scale}",
        "data.num_workers=0",
    ]


def test_page_and_report_of_what_is_right(folder, compose_config, tmp_path, capsys):
    assert doctor.diagnose(compose_config("doctor", overrides(folder), tmp_path)) == 0
    said = capsys.readouterr().out
    assert "Nothing looks wrong." in said
    assert re.search(r"samples\s+│ 4\s+│ 2 ", said)
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert report["found"] == 0
    assert [report["splits"][split]["summary"]["samples"] for split in ("train", "val")] == [4, 2]
    page = (tmp_path / "doctor.html").read_text()
    assert "Nothing looks wrong" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 4 + 2
    assert "http" not in page  # it needs nothing from elsewhere


def test_what_is_wrong_is_said_with_its_evidence(folder, compose_config, tmp_path, capsys):
    """Millimetres, which training refuses: they are looked at all the same."""
    cfg = compose_config("doctor", [*overrides(folder, depth_scale=1), "pictures=1"], tmp_path)
    assert doctor.diagnose(cfg) == 4
    assert "Millimetres, or KITTI's 256 per metre?" in " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "doctor.json").read_text())
    checks = {check["check"]: check for check in report["splits"]["train"]["checks"]}
    assert checks["unit is metres"]["state"] == "found"
    assert "/ 1000 = " in checks["unit is metres"]["evidence"]
    assert checks["unit is metres"]["examples"] == [f"room{number}/a.jpg" for number in range(4)]
    assert "4 of 4 samples refused: 4 such as " in checks["samples that training accepts"]["evidence"]
    page = (tmp_path / "doctor.html").read_text()
    assert "4 things look wrong" in page
    assert "room3/a.jpg" in page


def test_workers_change_nothing(folder, compose_config, tmp_path):
    for workers in (0, 2):
        doctor.diagnose(
            compose_config("doctor", [*overrides(folder), f"data.num_workers={workers}"], tmp_path / f"{workers}")
        )
    assert (tmp_path / "0/doctor.json").read_bytes() == (tmp_path / "2/doctor.json").read_bytes()


def test_some_of_the_images(folder, compose_config, tmp_path):
    doctor.diagnose(compose_config("doctor", [*overrides(folder), "images=2", "detailed=1"], tmp_path))
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert report["splits"]["train"]["summary"]["samples"] == 2
    (aligned,) = (one for one in report["splits"]["train"]["checks"] if one["check"] == "image and depth are aligned")
    assert "(1 image compared)" in aligned["evidence"]


def test_each_part_of_a_mixture_has_its_page(folder, compose_config, tmp_path):
    parts = [each.replace("data.", "data.parts.a.", 1) for each in overrides(folder)[1:-1]]
    parts += [each.replace("data.", "data.parts.b.", 1) for each in overrides(folder, depth_scale=1)[1:-1]]
    groups = ["data=mixture_base", "+data@data.parts.a=pairs", "+data@data.parts.b=pairs", "data.num_workers=0"]
    cfg = compose_config("doctor", [*groups, *parts], tmp_path)
    assert doctor.diagnose(cfg) == 4
    assert json.loads((tmp_path / "doctor_a.json").read_text())["found"] == 0
    assert json.loads((tmp_path / "doctor_b.json").read_text())["found"] == 4
    assert (tmp_path / "doctor_b.html").is_file()


@pytest.mark.parametrize("found", [0, 3])
def test_something_found_is_an_exit_status(found, monkeypatch):
    monkeypatch.setattr(doctor, "run_job", lambda work, cfg: found)
    if not found:
        doctor.run(None)
        return
    with pytest.raises(SystemExit) as left:
        doctor.run(None)
    assert left.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize(("depth_scale", "root", "status"), [(1, "", 2), (1000, "/nowhere", 1)])
def test_exit_status(folder, tmp_path, depth_scale, root, status):
    command = [sys.executable, "-m", "depth_lightning", "doctor", *overrides(root or folder, depth_scale)]
    result = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    if status == 1:
        assert "No folder at data.root=/nowhere" in result.stdout + result.stderr

"""The wheel, installed without a clone: what a user has after `pip install depth-lightning`, in an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
CONF = {file.relative_to(ROOT).as_posix() for file in (ROOT / "conf").rglob("*.yaml")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an environment with the wheel, and with the packages of this environment but not its clone."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", *folder.glob("*.whl")], check=True)
    (site,) = (folder / "env").glob("lib/*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


@pytest.fixture
def run(installed, tmp_path):
    """run(*words): what the console script prints in an empty folder, without its errors."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def program(*words):
        command = [installed / "bin" / "depth-lightning", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Warning" not in done.stderr
        return done.stdout

    return program


def test_the_configuration_is_in_it_once(installed):
    (package,) = installed.glob("lib/*/site-packages/depth_lightning")
    assert {file.relative_to(package).as_posix() for file in (package / "conf").rglob("*.yaml")} == CONF
    assert not (package.parent / "conf").exists()
    own = ROOT / "depth_lightning/models/pretrained"
    assert {file.name for file in (package / "models/pretrained").iterdir()} == {file.name for file in own.iterdir()}


def test_a_day_in_an_empty_folder(run, small, tmp_path):
    assert run().startswith("depth-lightning <command> …\n")
    typed = [*(word for word in small if not word.startswith("data.root=")), "hydra.run.dir=runs/mine"]
    trained = run("train", *typed)
    assert f"Run folder: {tmp_path}/runs/mine" in trained
    assert "trainer.precision=auto: 32-true (no CUDA GPU is used)." in trained
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "data"}
    run("evaluate", "checkpoint=runs/mine/checkpoints/best.ckpt", "hydra.run.dir=runs/evaluated")
    numbers = [json.loads((tmp_path / "runs" / name / "metrics.json").read_text()) for name in ("mine", "evaluated")]
    assert numbers[0]["metrics"]["abs_rel"] == pytest.approx(numbers[1]["metrics"]["abs_rel"], rel=1e-5)
    assert run("--version") == f"depth-lightning {numbers[0]['version']}\n"


def test_a_users_own_configuration(run, tmp_path):
    experiment = tmp_path / "my_conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\ndefaults:\n  - override /model: tiny\n\nseed: 7\n")
    data = tmp_path / "my_conf" / "data" / "sensor.yaml"
    data.parent.mkdir()
    data.write_text("defaults:\n  - pairs\n\ndepth_scale: 256\n")
    composed = run("train", "--config-dir", "my_conf", "experiment=mine", "data=sensor", "--cfg", "job")
    assert "encoder: tiny" in composed and "seed: 7" in composed and "depth_scale: 256" in composed


def test_hydra_finds_the_sweeper(run):
    assert "StudySweeper" in run("train", "--info", "plugins")

"""Sweeps as they are typed: a failed job ends alone, a hopeless one early, and an Optuna study goes on."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from depth_lightning.metrics import Protocol
from depth_lightning.runs.jobs import compare_sweep, read_jobs
from depth_lightning.runs.options import COMMANDS
from depth_lightning.runs.sweep import NamedFolder

ROOT = Path(__file__).resolve().parents[2]


def sweep(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "train.py", "-m", *arguments], cwd=ROOT, capture_output=True, text=True, env=environment
    )


def rows(folder):
    with (folder / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def test_failed_and_pruned_jobs_are_marked(tmp_path, capsys):
    protocol = Protocol()
    for number in range(4):
        job = tmp_path / str(number)
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"- optimizer.lr={0.1234567 * (number + 1)}\n")
        content = {"metrics": {"abs_rel": 0.1 * number}, "images": 5, "data": "rooms"}
        content["protocol"] = {**protocol.to_dict(), "hash": protocol.hash}
        if number != 2:
            (job / "metrics.json").write_text(json.dumps(content))
    (tmp_path / "2" / "failed.txt").write_text("ValueError: too large\n")
    (tmp_path / "3" / "pruned.json").write_text('{"step": 6}')
    assert [job.failed for job in read_jobs(tmp_path)] == [False, False, True, False]
    compare_sweep(tmp_path)
    printed = capsys.readouterr().out
    assert "failed: ValueError: too large" in printed and "pruned at step 6" in printed
    assert "0.3704" in printed and "0.37037" not in printed
    assert "not comparable" not in printed
    assert [row["ended"] for row in rows(tmp_path)] == ["", "", "failed: ValueError: too large", "pruned at step 6"]


@pytest.mark.parametrize(
    ("hydra", "message"),
    [
        ({"run": {"dir": ""}}, "SettingError: hydra.run.dir is a path, found ''."),
        ({"run": {"dir": "  "}}, "SettingError: hydra.run.dir is a path, found '  '."),
        ({"run": {"dir": "FILE/run"}}, "OSError: hydra.run.dir=FILE/run could not be written. Not a directory."),
        ({"sweep": {"dir": "", "subdir": "0"}}, "SettingError: hydra.sweep.dir is a path, found ''."),
        ({"sweep": {"dir": "FILE/..", "subdir": ""}}, "SettingError: hydra.sweep.subdir is a path, found ''."),
    ],
)
def test_a_folder_is_named_before_anything_is_written(hydra, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    config = OmegaConf.create({"hydra": hydra})
    with pytest.raises(SystemExit) as end:
        NamedFolder().on_run_start(config) if "run" in hydra else NamedFolder().on_multirun_start(config)
    assert end.value.code == message
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_folders_by_default_are_known_before_hydra_begins(command, tmp_path, monkeypatch):
    """What a callback raises there is only a warning of Hydra's, and its resolvers do not work yet."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(command, ["download=oakd"] if command == "download" else [], return_hydra_config=True)
    HydraConfig.instance().cfg = None
    NamedFolder().on_run_start(config)
    NamedFolder().on_multirun_start(config)
    assert [*tmp_path.glob(f"outputs/{command}/*")]


@pytest.mark.slow
def test_an_empty_folder_leaves_the_current_one_as_it_was(tmp_path):
    for typed in (["hydra.run.dir="], ["-m", "seed=1,2", "hydra.sweep.dir="]):
        result = subprocess.run(
            [sys.executable, ROOT / "train.py", *typed], cwd=tmp_path, capture_output=True, text=True
        )
        assert result.returncode == 1 and "is a path, found ''." in result.stderr
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_failed_job_leaves_the_others(small, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra sweep")
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    for name, launcher in (("plain", []), ("joblib", joblib)):
        swept = ["data.batch_size=999,4", "trainer.max_epochs=1", "self_check=false"]
        done = sweep(*small, *swept, *launcher, f"hydra.sweep.dir={tmp_path / name}")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "1 of the jobs failed: 0" in done.stdout
        assert [row["ended"][:18] for row in rows(tmp_path / name)] == ["failed: ValueError", ""]


def test_running_trials_are_described(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
    from depth_lightning.runs.study import describe_running

    storage, runs = f"sqlite:///{tmp_path}/study.db", [tmp_path / name for name in ("0", "1", "2")]
    study = optuna.create_study(storage=storage, study_name="mine")
    study.tell(study.ask(), 0.5)
    study.ask()  # of a sweep that was killed
    trials = [study.ask() for _ in runs]
    for run in runs:
        run.mkdir()
    (runs[0] / "failed.txt").write_text("ValueError: too large\n")
    (runs[2] / "pruned.json").write_text('{"step": 6}')
    describe_running("mine", storage, runs)
    for trial in trials:
        study.tell(trial, 1.0)
    assert [trial.user_attrs for trial in optuna.load_study("mine", storage).trials] == [
        *({}, {}, {"run": "0", "failed": "ValueError: too large"}, {"run": "1"}, {"run": "2", "pruned_at_step": 6}),
    ]


def test_an_optuna_sweep_whose_trials_all_fail_ends_with_why(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
    arguments = ["hparams_search=optuna", "experiment=rooms", "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={tmp_path}"]
    done = sweep(*arguments, "optimizer.lr=interval(-2,-1)")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "2 of the jobs failed: " in done.stdout
    trials = optuna.load_study("depth_lightning", f"sqlite:///{tmp_path}/study.db").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL"]
    assert all(trial.user_attrs["failed"].startswith("SettingError: optimizer.lr is") for trial in trials)
    # An error of the search itself is not taken for that.
    done = sweep(*arguments, "optimizer.lr=interval(-2,-1)", "hydra/sweeper/sampler=grid")
    assert done.returncode == 1
    assert "GridSampler only supports discrete distributions" in done.stderr


@pytest.mark.slow
def test_an_optuna_study_prunes_and_goes_on(small, tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
    arguments = [
        *("hparams_search=optuna", *small, "trainer.max_epochs=3", "self_check=false", f"hydra.sweep.dir={tmp_path}"),
        *("trainer=ddp_cpu", "trainer.devices=2", "data.batch_size=2"),
        *("callbacks.median_pruning.finished_runs=1", "optimizer.head_lr_scale=2", "hydra.sweeper.n_trials=1"),
    ]
    for rates in ("1e-3,2e-3", "1e-8,1e-7"):  # the second learns nothing
        done = sweep(*arguments, f"optimizer.lr=interval({rates})")
        assert done.returncode == 0, done.stdout + done.stderr
    study = optuna.load_study("depth_lightning", f"sqlite:///{tmp_path}/study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    table = rows(tmp_path)
    assert [row["job"] for row in table] == [trial.user_attrs["run"] for trial in study.trials]
    assert [float(row["abs_rel"]) for row in table] == pytest.approx([trial.value for trial in study.trials])
    pruned = [trial.user_attrs.get("pruned_at_step") for trial in study.trials]
    assert pruned[0] is None and pruned[1] in (3, 6)
    assert [row["ended"] for row in table] == ["", f"pruned at step {pruned[1]}"]

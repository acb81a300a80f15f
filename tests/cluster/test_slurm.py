"""The submitit launcher on a SLURM of one node: a sweep, a warning before the time limit, and a requeue."""

import csv
import subprocess
import sys
import time

import pytest
from slurm_cluster import missing, slurm_cluster
from test_two_nodes import ROOT, SMALL, alone, largest_difference, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "OMP_NUM_THREADS": "1"}


def _sweep(cluster, folder, *overrides):
    """Start a sweep in the background."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    given = ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]
    given += ["checkpoint=auto", f"hydra.sweep.dir={folder}", "trainer=cpu", "data.batch_size=8", *overrides]
    with (folder.parent / f"{folder.name}.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "train.py", "-m", *SMALL, *given], cwd=ROOT, env=cluster, stdout=output, stderr=output
        )


def _finish(launcher, folder, timeout_s=900):
    try:
        status = launcher.wait(timeout=timeout_s)
    finally:
        launcher.kill()
    logs = "".join(path.read_text() for path in folder.glob(".submitit/**/*_log.*"))
    assert status == 0, (folder.parent / f"{folder.name}.txt").read_text() + logs
    return logs


def test_a_job_that_is_warned_goes_on_after_a_requeue(cluster, tmp_path):
    launcher = _sweep(cluster, tmp_path / "sweep", f"data.root={tmp_path}/rooms", "seed=0,1")
    deadline = time.monotonic() + 600
    while not (tmp_path / "sweep/0/checkpoints/previous.ckpt").exists():
        assert time.monotonic() < deadline and launcher.poll() is None, (tmp_path / "sweep.txt").read_text()
        time.sleep(0.1)
    listed = subprocess.run(["squeue", "-h", "-o", "%A %K"], env=cluster, capture_output=True, text=True, check=True)
    job = next(line.split()[0] for line in listed.stdout.splitlines() if line.split()[1] == "0")
    subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)
    logs = _finish(launcher, tmp_path / "sweep")
    assert logs.count("Stopped by SIGUSR1 after step") == 1
    assert logs.count("Resuming from") == 1
    alone(tmp_path / "alone", tmp_path / "rooms")
    assert largest_difference(tmp_path / "sweep/0", tmp_path / "alone") == 0
    assert weights(tmp_path / "sweep/1")[0] == weights(tmp_path / "alone")[0]
    assert (tmp_path / "sweep/comparison.csv").exists()


def test_a_job_longer_than_its_time_limit_is_done_in_several(cluster, tmp_path):
    """SLURM looks every half minute, so its warning comes 60 to 90 s after the start; training takes 100 s anywhere."""
    long = ["trainer.max_epochs=10000", "+trainer.max_time=00:00:01:40", "callbacks.panels.every_n_epochs=50"]
    limit = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=30"]
    launcher = _sweep(cluster, tmp_path / "sweep", f"data.root={tmp_path}/rooms", *long, *limit)
    logs = _finish(launcher, tmp_path / "sweep", timeout_s=1500)
    print(logs.count("Resuming from"), "requeues")
    assert logs.count("Stopped by SIGUSR1 after step") == logs.count("Resuming from") > 0
    run = tmp_path / "sweep/0"
    last, _ = weights(run)
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(last))  # each of them once
    assert (run / "metrics.json").exists()

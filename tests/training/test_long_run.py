"""A run of 20,000 steps ends as it began: as much memory, as many open files, steps as fast."""

import contextlib
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

STEPS = 20_000
OPTIONS = ("model=tiny", "trainer=cpu", "self_check=false", "report=false", "baseline=false")
DATA = ("data=rooms", "data.train_images=400", "data.val_images=8", "data.size=28", "data.batch_size=1")


class Seen(NamedTuple):
    """Of a process at one time."""

    step: int
    memory_mb: float
    open_files: int


def look(pid: int, metrics: Path) -> Seen:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    written = rows(metrics)
    step = int(written[-1]["step"]) if written else 0
    return Seen(step, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len([*Path(f"/proc/{pid}/fd").iterdir()]))


def rows(metrics: Path) -> list[dict[str, str]]:
    if not metrics.is_file():
        return []
    with metrics.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["step"]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's /proc")
def test_20000_steps_end_as_they_began(tmp_path):
    metrics = tmp_path / "run/metrics.csv"
    words = [*OPTIONS, *DATA, f"data.root={tmp_path}/rooms", f"hydra.run.dir={tmp_path}/run", "trainer.max_epochs=-1"]
    command = [sys.executable, "-m", "depth_lightning", "train", *words, f"trainer.max_steps={STEPS}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        seen = []
        while True:
            time.sleep(1)
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError):  # it has ended since
                seen.append(look(process.pid, metrics))
    assert process.wait() == 0, (tmp_path / "log").read_text()[-2000:]
    early = [each for each in seen if 0.1 * STEPS <= each.step < 0.2 * STEPS]
    late = [each for each in seen if 0.9 * STEPS <= each.step < STEPS - 100]
    memory = [np.median([each.memory_mb for each in part]) for part in (early, late)]
    files = [max(each.open_files for each in part) for part in (early, late)]
    speeds = [(int(row["step"]), float(row["time/images_per_s"])) for row in rows(metrics) if row["time/images_per_s"]]
    speed = [
        np.median([rate for step, rate in speeds if low * STEPS <= step < high * STEPS])
        for low, high in ((0.1, 0.2), (0.9, 1))
    ]
    print(
        f"memory {memory[0]:.0f} and {memory[1]:.0f} MB, open files {files}, images/s {speed[0]:.1f} and {speed[1]:.1f}"
    )
    assert memory[1] <= 1.02 * memory[0]
    assert files[1] <= files[0]
    assert speed[1] >= 0.9 * speed[0]

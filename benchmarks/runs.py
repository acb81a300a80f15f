"""Commands of the program as measurements: run once, in a folder of their own, and remembered there."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from depth_lightning.reporting.tables import write_json


def measured(folder: Path, command: str, *typed: str) -> dict[str, Any]:
    """The AbsRel that a train or evaluate command ends with, its 95 % interval, its seconds and its peak memory in GiB.

    A folder without a result is of a run that was interrupted: it is removed, so that the seconds are of a whole run.
    """
    result = folder / "result.json"
    if not result.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        words = [sys.executable, "-m", "depth_lightning", command, *typed, f"hydra.run.dir={folder}"]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # for a script's metrics
        _, status, usage = os.wait4(subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path}).pid, 0)
        if status:
            raise SystemExit(f"Ended with status {os.waitstatus_to_exitcode(status)}: {' '.join(words[2:])}")
        found = json.loads((folder / "metrics.json").read_text())
        took = {"seconds": time.perf_counter() - started, "memory_gib": usage.ru_maxrss / 2**20}
        own = {"abs_rel": found["metrics"]["abs_rel"], "interval": found["intervals"]["abs_rel"]}
        write_json(result, own | took)
    content: dict[str, Any] = json.loads(result.read_text())
    return content


def mean_bounds(runs: list[dict[str, Any]]) -> tuple[float, float] | None:
    """The mean of the runs' intervals; None if the validation images are too few for one."""
    bounds = [each["interval"] for each in runs]
    if any(None in (each or (None,)) for each in bounds):
        return None
    return mean(low for low, _ in bounds), mean(high for _, high in bounds)

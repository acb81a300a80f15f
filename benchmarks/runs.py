"""Commands of the program as measurements: run once, in a folder of their own, and remembered there."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from depth_lightning.metrics.intervals import mean_intervals, units_of
from depth_lightning.metrics.paired import sign_flip_test
from depth_lightning.reporting.tables import write_json
from depth_lightning.runs.program import CONF


def composed(*typed: str) -> DictConfig:
    """The configuration of a train command."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(typed))


def measured(folder: Path, command: str, *typed: str) -> dict[str, Any]:
    """AbsRel at the end of a train or evaluate command, its 95 % interval, seconds, peak memory in GiB, and the folder.

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
    return {**json.loads(result.read_text()), "folder": str(folder)}


class Comparison(NamedTuple):
    """AbsRel of some runs, averaged image by image, and by how much it is above that of others."""

    abs_rel: float
    interval: tuple[float, float]
    """95 %, by image."""
    difference: float
    difference_interval: tuple[float, float]
    p: float
    """Of a difference as large by chance, by flipping signs."""
    images: int


def compared(runs: Sequence[Path], others: Sequence[Path]) -> Comparison:
    """Of the folders of equally many scored runs, on the same images."""
    own, reference = ([_by_image(folder) for folder in folders] for folders in (runs, others))
    images = [image for image, error in own[0].items() if error is not None]
    first, second = (
        np.array([[each[i] for i in images] for each in group], float).mean(axis=0) for group in (own, reference)
    )
    both, units = np.stack([first, first - second], axis=1), units_of([""] * len(images))
    (low, high), (less, more) = mean_intervals(both, units)
    p = float(sign_flip_test(both[:, 1:], units)[0])
    return Comparison(float(first.mean()), (low, high), float(both[:, 1].mean()), (less, more), p, len(images))


def _by_image(folder: Path) -> dict[str, float | None]:
    columns = pyarrow.parquet.read_table(folder / "per_image.parquet").to_pydict()
    return dict(zip(columns["id"], columns["abs_rel"], strict=True))

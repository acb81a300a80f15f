"""Pruning: runs of a search that do worse than half of the earlier runs end early.

This is the median rule of Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017, as in Optuna's
MedianPruner. The results of earlier runs are read from their folders, since Hydra's sweeper gives jobs no access to
trials.
"""

import csv
import json
import logging
import math
from pathlib import Path
from statistics import median
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from depth_lightning.atomic import write_text
from depth_lightning.data.reading import reading
from depth_lightning.runs.outcome import PRUNED
from depth_lightning.settings import one_of, text, whole_number

log = logging.getLogger(__name__)


class MedianPruning(Callback):
    """Ends a run whose best value so far is worse than the median of the finished runs at the same step.

    A pruned run is scored with its best checkpoint like any other, and its value counts.

    Args:
        folder: of the sweep; each run's folder below it has a metrics.csv and, when finished, a metrics.json.
        run_dir: of this run.
        monitor: column of metrics.csv.
        mode: whether lower ("min") or higher ("max") is better.
        finished_runs: number of runs that must have finished, not pruned, before any is pruned.
        epochs: every run trains for at least this many.

    Raises:
        SettingError: an argument is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        run_dir: str | Path,
        monitor: str = "val/abs_rel",
        mode: Literal["min", "max"] = "min",
        finished_runs: int = 4,
        epochs: int = 1,
    ) -> None:
        self.folder, self.run_dir = Path(text("folder", folder, "a path")), Path(text("run_dir", run_dir, "a path"))
        self.monitor = text("monitor", monitor, "a column of metrics.csv, such as val/abs_rel")
        self.sign = {"min": 1, "max": -1}[one_of("mode", mode, ("min", "max"))]
        self.finished_runs, self.epochs = whole_number("finished_runs", finished_runs), whole_number("epochs", epochs)
        self.best = math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the finished runs."""
        if trainer.sanity_checking or self.monitor not in trainer.callback_metrics:
            return
        value = self.sign * float(trainer.callback_metrics[self.monitor])
        self.best = min(self.best, value) if not math.isnan(value) else self.best
        if trainer.current_epoch + 1 < self.epochs:
            return
        others = self._others(trainer.global_step)
        hopeless = len(others) >= self.finished_runs and self.best > median(others)
        hopeless = trainer.strategy.reduce_boolean_decision(hopeless, all=False)
        if hopeless and not trainer.should_stop:
            trainer.should_stop = True
            if trainer.is_global_zero:
                self._record(trainer.global_step, median(others))

    def _others(self, step: int) -> list[float]:
        """The value of each finished run by `step`."""
        values = []
        for finished in self.folder.rglob("metrics.json"):
            run = finished.parent
            if (
                (run / PRUNED).exists()
                or run.resolve() == self.run_dir.resolve()
                or not (run / "metrics.csv").is_file()
            ):
                continue
            path = run / "metrics.csv"
            with (
                reading(path, "a metrics.csv of train.py", "Remove this job's folder."),
                path.open(newline="", encoding="utf-8") as file,
            ):
                rows = [row for row in csv.DictReader(file) if row.get(self.monitor) and int(row["step"]) < step]
                seen = [self.sign * float(row[self.monitor]) for row in rows]
            values.append(seen[-1] if seen and not math.isnan(seen[-1]) else math.inf)
        return values

    def _record(self, step: int, others: float) -> None:
        best, middle = self.sign * self.best, self.sign * others
        content = {"step": step, self.monitor: best if math.isfinite(best) else None, "median": middle}
        write_text(self.run_dir / PRUNED, json.dumps(content))
        rank_zero_only(log.info)(
            f"Pruned at step {step}: {self.monitor} is {best:.4f}, and the median of the earlier runs is {middle:.4f}."
        )

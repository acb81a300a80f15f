"""Where the error is: collected during a validation, then printed and written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from torch import Tensor

from depth_lightning.metrics import Breakdowns, PartMetrics, Protocol
from depth_lightning.metrics.breakdowns import SAMPLE
from depth_lightning.reporting.tables import number, print_rows, write_json, write_rows
from depth_lightning.sample import DepthBatch
from depth_lightning.training import DepthModule
from depth_lightning.training.prediction_observer import PredictionObserver


class ScoreParts(PredictionObserver):
    """Scores the parts of images during a validation."""

    def __init__(self, protocol: Protocol) -> None:
        self.metrics = PartMetrics(protocol)

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Move the metrics to the network's device."""
        self.metrics.to(module.device)

    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Score the batch."""
        module.score_depth(self.metrics, batch, prediction)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The tables over all processes, each of which must call it."""
        return self.metrics.compute()


def report_breakdowns(breakdowns: Breakdowns, run_dir: Path) -> None:
    """Print the parts of images and the corrections, and write breakdowns.json and breakdowns.csv."""
    write_json(run_dir / "breakdowns.json", breakdowns._asdict())
    write_rows(
        run_dir / "breakdowns.csv",
        [{"breakdown": name, **row} for name, rows in breakdowns._asdict().items() for row in rows],
    )
    distances = [{"part": f"{row['from_m']:g} to {row['to_m']:g} m", **row} for row in breakdowns.by_distance]
    header = {"part": False} | dict.fromkeys(
        ("pixels", "abs_rel ↓", "bias", "delta1 ↑", "mean truth", "prediction"), True
    )
    notes = ["Over the pixels of all images together; bias is the mean of (prediction − truth) / truth."]
    if breakdowns.by_region:
        ranked = sorted(breakdowns.by_region, key=lambda row: float(row["abs_rel"]))
        words = [f"{row['part']} {number(row['abs_rel'])}" for row in (ranked[0], ranked[-1])]
        notes.append(f"By region: abs_rel from {words[0]} to {words[1]}.")
    if len(breakdowns.by_scene) > 1:
        best, worst = breakdowns.by_scene[-1], breakdowns.by_scene[0]
        words = [f"{row['scene']} {number(row['abs_rel'])}" for row in (best, worst)]
        notes.append(f"By scene: abs_rel from {words[0]} to {words[1]}.")
    notes += _correction_notes(breakdowns.corrections)
    groups = [[_cells(row) for row in rows] for rows in (distances, breakdowns.by_edge)]
    print_rows("Where the error is", header, groups, [*notes, f"Written: {run_dir}/breakdowns.json, breakdowns.csv"])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["part"],
        f"{100 * row['share']:.1f} %",
        number(row["abs_rel"]),
        f"{100 * row['bias']:+z.1f} %",
        number(row["delta1"]),
        f"{row['mean_target']:.2f} m",
        f"{row['mean_prediction']:.2f} m",
    ]


def _correction_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Notes on whether the model is wrong or only wrongly scaled."""
    if not rows:
        return []
    none, scale, affine = rows
    first, second = scale["scales"]
    return [
        f"If only the scale were wrong: one factor ({first:.3f} on one half of the images, {second:.3f} on the other) "
        f"gives abs_rel {_change(scale, none)}, a factor and an offset {_change(affine, none)}.",
        f"Each is fitted on one half and tested on the other, from {SAMPLE} pixels per image.",
    ]


def _change(row: dict[str, Any], before: dict[str, Any]) -> str:
    change = f"{100 * (row['abs_rel'] / before['abs_rel'] - 1):+z.1f}"
    return f"{number(row['abs_rel'])} ({f'{change} %' if change.startswith('-') else 'nothing to gain'})"

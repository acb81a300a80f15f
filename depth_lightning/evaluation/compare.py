"""Paired comparison of two evaluations, image by image, so that the difficulty of each image cancels."""

from pathlib import Path
from typing import Any

import numpy as np

from depth_lightning.evaluation.evaluated_run import EvaluatedRun, common_notes, scored_by_all, units_of_run
from depth_lightning.metrics import mean_intervals
from depth_lightning.metrics.paired import sign_flip_test
from depth_lightning.reporting.ranking import p_value
from depth_lightning.reporting.tables import interval, number, print_rows, recorded_directions, with_arrow, write_rows
from depth_lightning.wording import counted


def report_pair(first: EvaluatedRun, second: EvaluatedRun, output: Path | None) -> None:
    """Print a row per metric: means, their difference with interval and p value, and on how many images each wins."""
    higher_is_better = recorded_directions(first.content, second.content)
    metrics = [name for name in first.content["metrics"] if name in first.images and name in second.images]
    groups: dict[bytes, list[str]] = {}  # metrics grouped by the images that have them: depth or disparity
    for name in metrics:
        groups.setdefault(scored_by_all([first, second], name).tobytes(), []).append(name)
    rows: list[dict[str, Any]] = []
    for names in groups.values():
        scored = scored_by_all([first, second], names[0])
        if not scored.any():
            continue
        ours, theirs = (np.stack([run.images[name][scored] for name in names], axis=1) for run in (first, second))
        units = units_of_run(first, scored)
        bounds = mean_intervals(theirs - ours, units)
        p_values = sign_flip_test(theirs - ours, units)
        for column, name in enumerate(names):
            gain = (theirs - ours)[:, column] * (1 if higher_is_better[name] else -1)
            rows.append(
                {
                    "metric": name,
                    "first": float(ours[:, column].mean()),
                    "second": float(theirs[:, column].mean()),
                    "difference": float((theirs - ours)[:, column].mean()),
                    "from": float(bounds[column, 0]),
                    "to": float(bounds[column, 1]),
                    "p": float(p_values[column]),
                    "first_better": int((gain < 0).sum()),
                    "second_better": int((gain > 0).sum()),
                    "images": int(scored.sum()),
                    "units": units.name,
                }
            )
    if not rows:
        raise ValueError(f"{first.name} and {second.name} share no scored image.")
    header = {"metric": False, first.name: True, second.name: True, "difference": True, "95 % interval": True}
    header |= {"p": True, f"{first.name} better on": True, f"{second.name} better on": True}
    cells = [
        [
            with_arrow(row["metric"], higher_is_better[row["metric"]]),
            number(row["first"]),
            number(row["second"]),
            f"{row['difference']:+.4f}",
            interval((row["from"], row["to"])),
            p_value(row["p"]),
            str(row["first_better"]),
            str(row["second_better"]),
        ]
        for row in rows
    ]
    notes = [_verdict(first, second, rows[0], better_is_less=not higher_is_better[rows[0]["metric"]])]
    notes.append(
        f"{counted(rows[0]['images'], 'image')} that both scored; intervals by a studentised bootstrap and p by "
        f"flipping signs, over {rows[0]['units']}. The {len(rows)} p values are not corrected; the metrics are "
        "correlated."
    )
    notes.append(f"The difference is {second.name} minus {first.name}.")
    notes += common_notes([first, second], scored_by_all([first, second], rows[0]["metric"]))
    if output:
        write_rows(output / "pair.csv", rows)
        notes.append(f"Written: {output}/pair.csv")
    print_rows(f"{second.name} against {first.name}", header, [cells], notes)


def _verdict(first: EvaluatedRun, second: EvaluatedRun, row: dict[str, Any], better_is_less: bool) -> str:
    if not row["p"] < 0.05:
        return f"{row['metric']}: the two cannot be told apart at 5 %."
    won = (row["difference"] < 0) == better_is_less
    winner = second if won else first
    change = 100 * abs(row["difference"]) / row["first"] if row["first"] else float("nan")
    return f"{row['metric']}: {winner.name} is better by {change:.1f} %."

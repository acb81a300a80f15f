"""A ranking of several evaluations by a metric, with the runs that cannot be told apart."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from depth_lightning.evaluation.evaluated_run import EvaluatedRun, common_notes, scored_by_all, units_of_run
from depth_lightning.metrics import mean_intervals
from depth_lightning.metrics.paired import holm, sign_flip_pairs
from depth_lightning.reporting.panels import save_png
from depth_lightning.reporting.ranking import RankedRun, draw_ranking, print_ranking
from depth_lightning.reporting.tables import recorded_directions, write_rows
from depth_lightning.wording import counted

HEADLINE = ("abs_rel", "affine_error")


def report_ranking(
    runs: Sequence[EvaluatedRun], metric: str | None = None, output: Path | None = None, file: str = "ranking"
) -> None:
    """Print the runs in order, and write <file>.csv and .png into `output`.

    Raises:
        ValueError: the runs do not all have the metric.
    """
    usable = [name for name in runs[0].content["metrics"] if all(name in run.images for run in runs)]
    metric = metric or next((name for name in HEADLINE if name in usable), "")
    if metric not in usable:
        raise ValueError(f"A ranking needs a metric that all runs have: {', '.join(usable)}; found {metric!r}.")
    scored = scored_by_all(runs, metric)
    if not scored.any():
        raise ValueError(f"No image has {metric} in all {len(runs)} runs.")
    higher_is_better = recorded_directions(*(run.content for run in runs))[metric]
    ranked = rank(runs, metric, higher_is_better)
    units = units_of_run(runs[0], scored)
    pairs = len(runs) * (len(runs) - 1) // 2
    alike = ", ".join(f"{run.rank} ({run.name})" for run in ranked if run.rank in ranked[0].alike)
    notes = [
        f"The first cannot be told apart from {alike}."
        if alike
        else f"{ranked[0].name} is better than every other run.",
        f"{counted(scored.sum(), 'image')} that all scored; intervals by a studentised bootstrap and p by flipping "
        f"signs, over {units.name}; at 5 %{f', corrected for {pairs} pairs (Holm)' * (pairs > 1)}.",
        "The intervals are not corrected: one may exclude 0 where the runs cannot be told apart.",
    ]
    notes += common_notes(runs, scored)
    if output:
        write_rows(output / f"{file}.csv", [_flat(run) for run in ranked])
        save_png(output / f"{file}.png", draw_ranking(metric, higher_is_better, ranked))
        notes.append(f"Written: {output}/{file}.csv, {file}.png")
    title = f"Ranking by {metric}, protocol {runs[0].content['protocol']['hash']}"
    print_ranking(title, metric, higher_is_better, ranked, notes)


def rank(runs: Sequence[EvaluatedRun], metric: str, higher_is_better: bool) -> list[RankedRun]:
    """The runs ranked by a metric over the images that all of them scored, the best first."""
    scored = scored_by_all(runs, metric)
    values = np.stack([run.images[metric][scored] for run in runs], axis=1)
    means = values.mean(axis=0)
    order = np.argsort(-means if higher_is_better else means, kind="stable")
    values, means = values[:, order], means[order]
    units = units_of_run(runs[0], scored)
    bounds = mean_intervals(values, units).tolist()
    behind = mean_intervals(values - values[:, :1], units).tolist()
    pairs = list(combinations(range(len(runs)), 2))
    p_values = sign_flip_pairs(values, units)
    corrected = np.ones(p_values.shape)
    for (first, second), p in zip(pairs, holm(np.array([p_values[pair] for pair in pairs])), strict=True):
        corrected[first, second] = corrected[second, first] = p
    return [
        RankedRun(
            rank=place + 1,
            name=runs[order[place]].name,
            mean=float(means[place]),
            bounds=tuple(bounds[place]),
            behind=float(means[place] - means[0]),
            behind_bounds=tuple(behind[place]),
            p=float(corrected[0, place]),
            alike=tuple(int(other) + 1 for other in np.flatnonzero(corrected[place] >= 0.05) if other != place),
        )
        for place in range(len(runs))
    ]


def _flat(run: RankedRun) -> dict[str, Any]:
    return {
        "rank": run.rank,
        "run": run.name,
        "mean": run.mean,
        "from": run.bounds[0],
        "to": run.bounds[1],
        "behind": run.behind,
        "behind_from": run.behind_bounds[0],
        "behind_to": run.behind_bounds[1],
        "p_holm": run.p,
        "not_told_apart_from": " ".join(map(str, run.alike)),
    }

"""Which of several evaluations is better, and how sure that is: python -m depth_lightning.commands.compare a/ b/.

Runs are compared image by image, so that what is hard in an image cancels. Torch is imported when there is work.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from depth_lightning.metrics.intervals import Units
    from depth_lightning.reporting.ranking import RankedRun

log = logging.getLogger(__name__)

HEADLINE = ("abs_rel", "affine_error")
SHOWN = 3


class EvaluatedRun(NamedTuple):
    """What evaluate.py or the end of train.py left in a folder."""

    name: str
    content: dict[str, Any]
    """Of metrics.json."""
    images: dict[str, np.ndarray]
    """The columns of per_image.parquet."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the folders given: two in all their metrics, more in a ranking."""
    parser = argparse.ArgumentParser("python -m depth_lightning.commands.compare", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of evaluate.py or train.py, or one of a sweep")
    parser.add_argument("--metric", help="what a ranking goes by (abs_rel, or affine_error where there is none)")
    parser.add_argument("--output", type=Path, help="folder for the files (default: the sweep's, or else none)")
    given = parser.parse_args(arguments)
    try:
        compare(given.folders, given.metric, given.output)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def compare(folders: Sequence[Path], metric: str | None = None, output: Path | None = None) -> None:
    """Compare runs, print what was found, and write it into `output`.

    Args:
        folders: of two or more evaluations, or of one sweep.
        metric: what a ranking goes by.
        output: where to write to; None: the sweep's folder, or nowhere.

    Raises:
        FileNotFoundError: a folder holds no evaluation.
        ValueError: there are fewer than two runs, or they were not measured alike on the same images.
    """
    if len(folders) == 1:
        from depth_lightning.commands.comparison import compare_sweep

        compare_sweep(folders[0], metric, output)
        return
    names = short_names(folders)
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    for other in runs[1:]:
        check_comparable(runs[0], other)
    if len(runs) == 2:
        report_pair(runs[0], runs[1], output)
    else:
        report_ranking(runs, metric, output)


def read_run(folder: Path, name: str) -> EvaluatedRun:
    """What an evaluation left in its folder.

    Raises:
        FileNotFoundError: metrics.json or per_image.parquet is missing.
    """
    import pyarrow.parquet

    for file in ("metrics.json", "per_image.parquet"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}. Name a folder that evaluate.py or train.py wrote.")
    columns = pyarrow.parquet.read_table(folder / "per_image.parquet")
    images = {column: columns[column].to_numpy() for column in columns.column_names}
    return EvaluatedRun(name, json.loads((folder / "metrics.json").read_text()), images)


def check_comparable(first: EvaluatedRun, second: EvaluatedRun) -> None:
    """Refuse runs that were not measured alike on the same images.

    Raises:
        ValueError: with the fields of the protocol, the images, or the truth in which they differ.
    """
    names = f"{first.name} and {second.name} cannot be compared: "
    ours, theirs = first.content["protocol"], second.content["protocol"]
    if ours["hash"] != theirs["hash"]:
        fields = [f"{key} {ours.get(key)} / {theirs.get(key)}" for key in ours if ours.get(key) != theirs.get(key)]
        raise ValueError(
            f"{names}their protocols differ in {', '.join(fields)}. Evaluate both with the same protocol=…."
        )
    missing = [
        f"{len(found)} only in {run.name} ({', '.join(found[:SHOWN])}{', …' if len(found) > SHOWN else ''})"
        for run, other in ((first, second), (second, first))
        if (found := sorted(set(run.images["id"]) - set(other.images["id"])))
    ]
    if missing or len(first.images["id"]) != len(second.images["id"]):
        shared = len(set(first.images["id"]) & set(second.images["id"]))
        raise ValueError(f"{names}they share {shared} images; {'; '.join(missing)}. Evaluate both on the same data.")
    for fact in ("valid_pixels", "target_min", "target_max"):
        ours, theirs = first.images[fact].astype(float), second.images[fact].astype(float)
        other = ~np.isclose(ours, theirs, rtol=1e-5, equal_nan=True)
        if other.any():
            image = int(np.flatnonzero(other)[0])
            raise ValueError(
                f"{names}the truth of {other.sum()} images differs; {first.images['id'][image]} has {fact} "
                f"{ours[image]:g} / {theirs[image]:g}. Evaluate both with the same data and scale."
            )


def report_pair(first: EvaluatedRun, second: EvaluatedRun, output: Path | None) -> None:
    """Print a row per metric: both means, their difference with interval and test, and on how many images each wins."""
    from depth_lightning.metrics import mean_intervals
    from depth_lightning.metrics.paired import sign_flip_test
    from depth_lightning.reporting.ranking import p_value
    from depth_lightning.reporting.tables import HIGHER_IS_BETTER, interval, number, print_rows, with_arrow, write_rows

    metrics = [name for name in first.content["metrics"] if name in first.images and name in second.images]
    groups: dict[bytes, list[str]] = {}  # metrics that the same images have: those of depth, those of disparity
    for name in metrics:
        groups.setdefault(_scored([first, second], name).tobytes(), []).append(name)
    rows: list[dict[str, Any]] = []
    for names in groups.values():
        scored = _scored([first, second], names[0])
        if not scored.any():
            continue
        ours, theirs = (np.stack([run.images[name][scored] for name in names], axis=1) for run in (first, second))
        units = _units(first, scored)
        bounds = mean_intervals(theirs - ours, units)
        p_values = sign_flip_test(theirs - ours, units)
        for column, name in enumerate(names):
            gain = (theirs - ours)[:, column] * (1 if name in HIGHER_IS_BETTER else -1)
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
        raise ValueError(f"{first.name} and {second.name} have no image that both scored.")
    header = {"metric": False, first.name: True, second.name: True, "difference": True, "95 % interval": True}
    header |= {"p": True, f"{first.name} better on": True, f"{second.name} better on": True}
    cells = [
        [
            with_arrow(row["metric"]),
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
    notes = [_verdict(first, second, rows[0], better_is_less=rows[0]["metric"] not in HIGHER_IS_BETTER)]
    notes.append(
        f"{rows[0]['images']} images that both scored; intervals by a studentised bootstrap and p by flipping signs, "
        f"over {rows[0]['units']}. The p values are not corrected for being {len(rows)}, of metrics that go together."
    )
    notes += _notes([first, second], _scored([first, second], rows[0]["metric"]))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        write_rows(output / "pair.csv", rows)
        notes.append(f"Written: {output}/pair.csv")
    print_rows(f"{second.name} against {first.name}", header, [cells], notes)


def report_ranking(
    runs: Sequence[EvaluatedRun], metric: str | None = None, output: Path | None = None, file: str = "ranking"
) -> None:
    """Print the runs in order, and write <file>.csv and .png into `output`.

    Raises:
        ValueError: the runs do not all have the metric.
    """
    from depth_lightning.reporting.panels import save_png
    from depth_lightning.reporting.ranking import draw_ranking, print_ranking
    from depth_lightning.reporting.tables import write_rows

    usable = [name for name in runs[0].content["metrics"] if all(name in run.images for run in runs)]
    metric = metric or next((name for name in HEADLINE if name in usable), "")
    if metric not in usable:
        raise ValueError(f"A ranking goes by a metric that all runs have: {', '.join(usable)}; found {metric!r}.")
    scored = _scored(runs, metric)
    if not scored.any():
        raise ValueError(f"No image has {metric} in all {len(runs)} runs.")
    ranked = rank(runs, metric)
    units = _units(runs[0], scored)
    pairs = len(runs) * (len(runs) - 1) // 2
    alike = ", ".join(f"{run.rank} ({run.name})" for run in ranked if run.rank in ranked[0].alike)
    notes = [
        f"The first cannot be told apart from {alike}."
        if alike
        else f"{ranked[0].name} is better than every other run.",
        f"{scored.sum()} images that all scored; intervals by a studentised bootstrap and p by flipping signs, over "
        f"{units.name}; at 5 %{f', corrected for {pairs} pairs (Holm)' * (pairs > 1)}.",
    ]
    notes += _notes(runs, scored)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        write_rows(output / f"{file}.csv", [_flat(run) for run in ranked])
        save_png(output / f"{file}.png", draw_ranking(metric, ranked))
        notes.append(f"Written: {output}/{file}.csv, {file}.png")
    print_ranking(f"Ranking by {metric}, protocol {runs[0].content['protocol']['hash']}", metric, ranked, notes)


def rank(runs: Sequence[EvaluatedRun], metric: str) -> "list[RankedRun]":
    """The runs in the order of a metric over the images that all of them scored, the best first."""
    from depth_lightning.metrics import mean_intervals
    from depth_lightning.metrics.paired import holm, sign_flip_pairs
    from depth_lightning.reporting.ranking import RankedRun
    from depth_lightning.reporting.tables import HIGHER_IS_BETTER

    scored = _scored(runs, metric)
    values = np.stack([run.images[metric][scored] for run in runs], axis=1)
    means = values.mean(axis=0)
    order = np.argsort(-means if metric in HIGHER_IS_BETTER else means, kind="stable")
    values, means = values[:, order], means[order]
    units = _units(runs[0], scored)
    bounds = mean_intervals(values, units).tolist()
    behind = mean_intervals(values - values[:, :1], units).tolist()
    pairs = list(combinations(range(len(runs)), 2))
    found = sign_flip_pairs(values, units)
    corrected = np.ones(found.shape)
    for (one, other), p in zip(pairs, holm(np.array([found[pair] for pair in pairs])), strict=True):
        corrected[one, other] = corrected[other, one] = p
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


def short_names(folders: Sequence[Path]) -> list[str]:
    """The folders without what all have in common."""
    from depth_lightning.commands.comparison import shortened

    return shortened([folder.resolve().as_posix() for folder in folders])


def _scored(runs: Sequence[EvaluatedRun], metric: str) -> np.ndarray:
    """(n,) bool: the images that have the metric in all runs."""
    scored: np.ndarray = np.all([np.isfinite(run.images[metric].astype(float)) for run in runs], axis=0)
    return scored


def _units(run: EvaluatedRun, scored: np.ndarray) -> "Units":
    from depth_lightning.metrics import units_of

    return units_of(run.images["scene"][scored].tolist())


def _notes(runs: Sequence[EvaluatedRun], scored: np.ndarray) -> list[str]:
    from depth_lightning.metrics import Protocol

    protocol = runs[0].content["protocol"]
    words = Protocol(**{key: value for key, value in protocol.items() if key != "hash"})
    notes = [f"Protocol {protocol['hash']}: {words}."]
    if protocol.get("reduction") == "pixel":
        notes.append("The protocol averages over pixels; what is compared here are averages over images.")
    if not scored.all():
        notes.append(f"{(~scored).sum()} images are left out: not every run scored them.")
    return notes


def _verdict(first: EvaluatedRun, second: EvaluatedRun, row: dict[str, Any], better_is_less: bool) -> str:
    if not row["p"] < 0.05:
        return f"In {row['metric']}, the two cannot be told apart at 5 %."
    won = (row["difference"] < 0) == better_is_less
    winner = second if won else first
    change = 100 * abs(row["difference"]) / row["first"] if row["first"] else float("nan")
    return f"In {row['metric']}, {winner.name} is better (a difference of {change:.1f} %)."


def _flat(run: "RankedRun") -> dict[str, Any]:
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


if __name__ == "__main__":
    main()

"""The files of an evaluation, and whether it is comparable with another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet

from depth_lightning.data.reading import BrokenError, reading
from depth_lightning.evaluation.metrics_file import read_metrics
from depth_lightning.metrics import Protocol, units_of
from depth_lightning.metrics.intervals import Units
from depth_lightning.wording import counted

SHOWN = 3
FACTS = ("valid_pixels", "target_min", "target_max")
"""Columns that tell whether two runs were scored against the same truth."""


class EvaluatedRun(NamedTuple):
    """The results that evaluate.py or train.py wrote into a folder."""

    name: str
    content: dict[str, Any]
    """The content of metrics.json."""
    images: dict[str, np.ndarray]
    """The columns of per_image.parquet."""


def read_run(folder: Path, name: str) -> EvaluatedRun:
    """Read the results of an evaluation from its folder.

    Raises:
        FileNotFoundError: metrics.json or per_image.parquet is missing.
        ValueError: one of them is something else.
    """
    for file in ("metrics.json", "per_image.parquet"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}. Give a folder that evaluate.py or train.py wrote.")
    content, path = read_metrics(folder / "metrics.json"), folder / "per_image.parquet"
    with reading(path, "the table of an evaluation's images", "Evaluate again."):
        columns = pyarrow.parquet.read_table(path)
        images = {column: columns[column].to_numpy() for column in columns.column_names}
        numbers = [column for column in images if column in (*FACTS, *content["metrics"])]
        if missing := [column for column in ("id", "scene", *FACTS) if column not in images]:
            raise BrokenError(f"expected the column {missing[0]}, found {sorted(images)[:8]}. Evaluate again.")
        for column in numbers:
            images[column] = images[column].astype(float)
    if "protocol" not in content:
        raise ValueError(f"{folder}/metrics.json: expected a protocol, found none. Evaluate again.")
    return EvaluatedRun(name, content, images)


def check_comparable(first: EvaluatedRun, second: EvaluatedRun) -> None:
    """Check that two runs used the same protocol on the same images and truth.

    Raises:
        ValueError: they differ; names the protocol fields, the images or the truth that do.
    """
    names = f"{first.name} and {second.name} cannot be compared: "
    ours, theirs = first.content["protocol"], second.content["protocol"]
    if ours["hash"] != theirs["hash"]:
        fields = [f"{key} {ours.get(key)} / {theirs.get(key)}" for key in ours if ours.get(key) != theirs.get(key)]
        raise ValueError(
            f"{names}their protocols differ in {', '.join(fields)}. Evaluate both with the same protocol=…."
        )
    ours, theirs = (run.content.get("higher_is_better", {}) for run in (first, second))
    if turned := [name for name in ours if ours[name] != theirs.get(name, ours[name])]:
        raise ValueError(
            f"{names}in {', '.join(turned)}, higher is better for one and lower is better for the other. "
            "Evaluate both with the same `higher_is_better` of the metric."
        )
    missing = [
        f"{len(ids)} only in {run.name} ({', '.join(ids[:SHOWN])}{', …' if len(ids) > SHOWN else ''})"
        for run, other in ((first, second), (second, first))
        if (ids := sorted(set(run.images["id"]) - set(other.images["id"])))
    ]
    if missing or len(first.images["id"]) != len(second.images["id"]):
        shared = len(set(first.images["id"]) & set(second.images["id"]))
        raise ValueError(f"{names}they share {shared} images; {'; '.join(missing)}. Evaluate both on the same data.")
    for fact in FACTS:
        ours, theirs = first.images[fact], second.images[fact]
        other = ~np.isclose(ours, theirs, rtol=1e-5, equal_nan=True)
        if other.any():
            image = int(np.flatnonzero(other)[0])
            raise ValueError(
                f"{names}the truth of {other.sum()} images differs; {first.images['id'][image]} has {fact} "
                f"{ours[image]:g} / {theirs[image]:g}. Evaluate both with the same data and scale."
            )


def scored_by_all(runs: Sequence[EvaluatedRun], metric: str) -> np.ndarray:
    """(n,) bool: the images for which all runs have the metric."""
    scored: np.ndarray = np.all([np.isfinite(run.images[metric].astype(float)) for run in runs], axis=0)
    return scored


def units_of_run(run: EvaluatedRun, scored: np.ndarray) -> Units:
    """The independent units of the scored images: scenes where they are known, else images."""
    return units_of(run.images["scene"][scored].tolist())


def common_notes(runs: Sequence[EvaluatedRun], scored: np.ndarray) -> list[str]:
    """Notes below a comparison of runs on the scored images."""
    protocol = runs[0].content["protocol"]
    words = Protocol(**{key: value for key, value in protocol.items() if key != "hash"})
    notes = [f"Protocol {protocol['hash']}: {words}."]
    if protocol.get("reduction") == "pixel":
        notes.append("The protocol averages over pixels, but this comparison is of averages over images.")
    if not scored.all():
        notes.append(f"Left out: {counted((~scored).sum(), 'image')} that not every run scored.")
    return notes

"""The summary of an evaluation: the columns of its table, the notes below it, and the content of metrics.json."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from depth_lightning.data import DepthDataModule
from depth_lightning.metrics import DepthMetrics, Protocol, best_constant
from depth_lightning.metrics.intervals import DRAWS, MIN_UNITS
from depth_lightning.metrics.per_image import ValidationCounts
from depth_lightning.reporting.result import EvaluationResult, PartResult
from depth_lightning.sample import DepthKind, collate
from depth_lightning.wording import counted

FEW_UNITS = 20
"""With fewer independent images or scenes, intervals cover the true value less often than stated."""


class Summary(NamedTuple):
    """An evaluation in numbers and words."""

    columns: dict[str, Mapping[str, float]]
    """Of the table: the network's errors, and those that it is compared with."""
    notes: list[str]
    """Notes needed to interpret the numbers."""
    content: dict[str, Any]
    """The content of metrics.json."""


def summarise(
    subject: Mapping[str, Any], result: EvaluationResult, metrics: DepthMetrics, data: DepthDataModule, baseline: bool
) -> Summary:
    """Summarise an evaluation.

    Args:
        subject: plain values that identify the scored network and the data.
        result: its numbers.
        metrics: with the protocol.
        data: its `eval_split` was scored.
        baseline: whether to add the errors of the best constant prediction.

    Raises:
        ValueError: no image could be scored.
    """
    protocol, counts = metrics.protocol, result.counts
    if not counts.depth.scored and not counts.affine.scored:
        raise ValueError(
            f"None of the {sum(counts.depth) + sum(counts.affine)} validation images can be scored under this protocol "
            f"({protocol}): {' and '.join(_left_out(counts, protocol))}."
        )
    columns: dict[str, Mapping[str, float]] = {"model": result.metrics}
    columns |= {name: part.metrics for name, part in result.parts.items()}
    notes = [*_image_notes(counts, protocol), *_interval_notes(result)]
    if data.eval_split != "val":
        seen = "" if data.eval_split == "test" else ", which may hold images that the network was trained on"
        notes.append(f"Split: {data.eval_split}{seen}.")
    content = _content(subject, result, protocol)
    if broken := data.val_data.dataset.broken():
        notes.append(f"Of the images left out, {broken} could not be read: {data.bad_samples}")
        content["images_unreadable"] = broken
    constant_one = constant_baseline(metrics, data) if baseline and counts.depth.scored else None
    if constant_one is not None:
        constant, errors = constant_one
        columns[f"always {constant:.2f} m"] = errors
        content["baseline"] = {"constant_depth_m": constant, "metrics": errors}
        change = result.metrics["abs_rel"] / errors["abs_rel"] - 1
        side = "below" if change < 0 else "above"
        notes.append(f"abs_rel is {100 * abs(change):.1f} % {side} the best constant prediction's.")
    return Summary(columns, notes, content)


def _content(subject: Mapping[str, Any], result: EvaluationResult, protocol: Protocol) -> dict[str, Any]:
    """The numbers as plain values, and what they apply to."""
    return {
        "metrics": result.metrics,
        "higher_is_better": result.higher_is_better,
        "intervals": result.intervals.bounds,
        "intervals_over": {
            "units": result.intervals.units,
            "count": result.intervals.total,
            "confidence": 0.95,
            "method": f"studentised bootstrap, {DRAWS} draws, seed 0",
        },
        "images": result.counts.depth.scored or result.counts.affine.scored,
        "images_by_truth": {name: counts._asdict() for name, counts in result.counts._asdict().items()},
        "protocol": {**protocol.to_dict(), "hash": protocol.hash},
        **({"parts": {name: _part(part) for name, part in result.parts.items()}} if result.parts else {}),
        **subject,
    }


def _part(part: PartResult) -> dict[str, Any]:
    return {"metrics": part.metrics, "intervals": part.intervals.bounds, "images": part.images}


def constant_baseline(metrics: DepthMetrics, data: DepthDataModule) -> tuple[float, dict[str, float]] | None:
    """The best constant depth over the validation images in metres, and its errors; None without truth in metres."""
    samples = (data.val_data.dataset[index] for index in range(len(data.val_data)))
    batches = (collate([sample]) for sample in samples if sample.kind == DepthKind.METRES)
    truths = [(batch.target, batch.mask, batch.target_intrinsics) for batch in batches]
    if not truths:
        return None
    depth = best_constant(((target[0], mask[0]) for target, mask, _ in truths), metrics.protocol)
    constant = DepthMetrics(metrics.protocol, metrics.errors, sync_on_compute=False)
    for target, mask, intrinsics in truths:
        constant.update(torch.full_like(target, depth), target, mask, intrinsics=intrinsics)
    return depth, {name: float(value) for name, value in constant.compute().items()}


def _image_notes(counts: ValidationCounts, protocol: Protocol) -> list[str]:
    notes = []
    if counts.depth.scored:
        notes.append(f"{counted(counts.depth.scored, 'image')}. Protocol {protocol.hash}: {protocol}.")
    if counts.affine.scored:
        images = counted(counts.affine.scored, "image")
        notes.append(f"{images} with truth up to scale and shift: affine_error, ordinal_error.")
    if left_out := _left_out(counts, protocol):
        notes.append(f"NOT in these averages: {', '.join(left_out)}.")
    return notes


def _interval_notes(result: EvaluationResult) -> list[str]:
    """The units of the intervals, and their limits."""
    units, total = result.intervals.units, result.intervals.total
    if total < MIN_UNITS:
        return [f"{total} {units} are too few for intervals."] if total else []
    scenes = {scene for table in result.tables or () for scene in table.scene}
    few = len(scenes) > 0 and units == "images" and scenes != {""}
    rough = f", fewer than {FEW_UNITS}, so they are rough" * (total < FEW_UNITS)
    return [f"Intervals: bootstrap over {total} {units}{rough}."] + [
        f"The images are of {counted(len(scenes), 'scene')}, too few to resample: "
        "the intervals do not cover other scenes."
    ] * few


def _left_out(counts: ValidationCounts, protocol: Protocol) -> list[str]:
    """The images that were not scored, the reason, and what to check."""
    not_aligned = (
        "with truth up to scale, which needs an alignment, such as protocol=median_scaled"
        if protocol.alignment == "none"
        else "whose pixels do not determine the alignment, as with a constant prediction"
    )
    reasons = {
        "without a valid pixel in the protocol's crop and range (is the data's unit metres?)": (
            counts.depth.without_valid_pixel
        ),
        not_aligned: counts.depth.not_aligned,
        "with truth up to scale and shift but without a valid pixel": counts.affine.without_valid_pixel,
        "with truth up to scale and shift that is the same everywhere": counts.affine.not_aligned,
    }
    return [f"{counted(images, 'image')} {reason}" for reason, images in reasons.items() if images]

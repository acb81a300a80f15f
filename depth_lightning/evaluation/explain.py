"""How much of a number is its protocol: the same predictions, scored under every alignment × crop × range.

python evaluate.py checkpoint=… explain=true
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import lightning
from torch import Tensor

from depth_lightning.metrics import ERRORS, DepthMetrics, ImageCounts, Protocol, usual_crops
from depth_lightning.metrics.protocol import Alignment, Crop
from depth_lightning.reporting.tables import number, print_rows, with_arrow, write_rows
from depth_lightning.sample import DepthBatch
from depth_lightning.training import DepthModule
from depth_lightning.training.prediction_observer import PredictionObserver

log = logging.getLogger(__name__)

MAX_DEPTHS_M = (10.0, 50.0, 80.0)
"""The limits in use: NYU's, and KITTI's two."""
HEADLINE = ("abs_rel", "delta1", "rmse")
AXES = ("alignment", "crop", "max_depth")


class Variant(NamedTuple):
    """One protocol, and what the predictions score under it."""

    protocol: Protocol
    metrics: dict[str, float]
    counts: ImageCounts


class Explain(PredictionObserver):
    """Scores the predictions of a validation under the variants of a protocol, as they come: one pass, none stored.

    Args:
        metrics: with the chosen protocol; of their errors, `HEADLINE` and those of one's own are scored.
        relative: whether the network gives disparity, which can be aligned in disparity alone.
    """

    def __init__(self, metrics: DepthMetrics, relative: bool) -> None:
        self.protocol = protocol = metrics.protocol
        alignments = dict.fromkeys(
            (protocol.alignment, *(("scale_shift_disparity",) if relative else get_args(Alignment)))
        )
        own = (name for name in metrics.errors if name not in ERRORS)
        errors = {name: metrics.errors[name] for name in (*HEADLINE, *own)}
        self.metrics = [
            DepthMetrics(dataclasses.replace(protocol, alignment=alignment, crop=crop, max_depth=max_depth), errors)
            for alignment in alignments
            for crop in get_args(Crop)
            for max_depth in dict.fromkeys((protocol.max_depth, *MAX_DEPTHS_M))
            if max_depth > protocol.min_depth
        ]

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Follow the network to its device, where processes exchange what they found."""
        for metrics in self.metrics:
            metrics.to(module.device)

    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Score the batch under the crops that its size allows."""
        crops = {self.protocol.crop, *usual_crops(*batch.target.shape[-2:])}
        for metrics in self.metrics:
            if metrics.protocol.crop in crops:
                module.score_depth(metrics, batch, prediction)

    def variants(self) -> list[Variant]:
        """What was found over all processes, which must all call it; the chosen protocol first.

        Left out: crops that do not fit every image, and ranges that leave all numbers as they are.
        """
        found = []
        for metrics in self.metrics:
            counts = metrics.counts()
            values = {name: float(value) for name, value in metrics.compute().items()} if sum(counts) else {}
            found.append(Variant(metrics.protocol, values, counts))
        found.sort(key=lambda variant: len(changes(variant.protocol, self.protocol)))
        images = sum(found[0].counts)
        found = [variant for variant in found if images and sum(variant.counts) == images]
        results = {variant.protocol: variant[1:] for variant in found}

        def moves(variant: Variant) -> bool:
            in_chosen_range = dataclasses.replace(variant.protocol, max_depth=self.protocol.max_depth)
            return variant[1:] != results[in_chosen_range]

        ranges = {v.protocol.max_depth for v in found if moves(v)} | {self.protocol.max_depth}
        return [variant for variant in found if variant.protocol.max_depth in ranges]


def changes(protocol: Protocol, chosen: Protocol) -> list[str]:
    """The axes in which a protocol differs from the chosen one."""
    return [axis for axis in AXES if getattr(protocol, axis) != getattr(chosen, axis)]


def as_rows(variants: Sequence[Variant], higher_is_better: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One flat row per variant, for files: its protocol, its numbers, and how far they are from the first one's."""
    chosen = variants[0]

    def moved(metrics: Mapping[str, float]) -> dict[str, float]:
        found = differences(metrics, chosen.metrics, higher_is_better)
        return {f"{name}_change": change for name, change in found.items()}

    return [
        {
            "protocol": protocol.hash,
            "changes": len(changes(protocol, chosen.protocol)),
            **{axis: getattr(protocol, axis) for axis in AXES},
            **metrics,
            **moved(metrics),
            "images": counts.scored,
            "without_valid_pixel": counts.without_valid_pixel,
            "not_aligned": counts.not_aligned,
        }
        for protocol, metrics, counts in variants
    ]


def report_variants(variants: Sequence[Variant], higher_is_better: Mapping[str, bool], run_dir: Path) -> None:
    """Print the table, fewest changes first and within them the least abs_rel, and write explain.csv."""
    if not variants:
        log.warning("explain=true: no image has depth as its truth, so there are no protocols to compare.")
        return
    chosen = variants[0]
    axes = [axis for axis in AXES if len({getattr(variant.protocol, axis) for variant in variants}) > 1]
    columns = {**dict.fromkeys(axes, False)}
    for name in ("abs_rel", "delta1"):
        columns |= {with_arrow(name, higher_is_better[name]): True, f"{name} change": True}
    columns |= {"images": True, "protocol": False}
    groups: list[list[list[str]]] = [[], [], []]
    for variant in sorted(variants, key=lambda variant: variant.metrics["abs_rel"]):
        changed = changes(variant.protocol, chosen.protocol)
        if len(changed) < len(groups):
            row = [_value(variant.protocol, axis) if axis in changed or variant is chosen else "·" for axis in axes]
            difference = differences(variant.metrics, chosen.metrics, higher_is_better)
            for name, unit in (("abs_rel", "%"), ("delta1", "points")):
                row += [number(variant.metrics[name]), "" if variant is chosen else f"{difference[name]:+.1f} {unit}"]
            groups[len(changed)].append([*row, str(variant.counts.scored), variant.protocol.hash])
    shown = sum(map(len, groups))
    notes = ["The chosen protocol, then one thing changed (· is as chosen), then two."]
    if shown < len(variants):
        notes.append(f"{len(variants) - shown} protocols that differ in three things are in explain.csv alone.")
    crops = set(get_args(Crop)) - {variant.protocol.crop for variant in variants}
    ranges = {*MAX_DEPTHS_M} - {variant.protocol.max_depth for variant in variants}
    if crops:
        notes.append(f"Left out, since the images are not of the size they are for: crop {', '.join(sorted(crops))}.")
    if ranges:
        notes.append(f"Left out, since no number changes: max_depth {', '.join(f'{m:g}' for m in sorted(ranges))}.")
    write_rows(run_dir / "explain.csv", as_rows(variants, higher_is_better))
    notes.append(f"Written: {run_dir}/explain.csv")
    print_rows("The same predictions, measured otherwise", columns, groups, notes)


def differences(
    metrics: Mapping[str, float], chosen: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """How far errors are from the chosen protocol's in percent of them, and shares in percentage points.

    A metric is taken for a share where more of it is better.
    """
    found = {}
    for name, value in metrics.items():
        if higher_is_better[name]:
            found[name] = 100 * (value - chosen[name])
        else:
            found[name] = 100 * (value / chosen[name] - 1) if chosen[name] else math.nan
    return found


def _value(protocol: Protocol, axis: str) -> str:
    value = getattr(protocol, axis)
    return f"{value:g}" if isinstance(value, float) else str(value)

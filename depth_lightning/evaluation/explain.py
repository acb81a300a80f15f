"""How much a number depends on its protocol: the same predictions under every alignment × crop × range.

depth-lightning evaluate checkpoint=… explain=true
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
"""The usual limits: one for NYU, two for KITTI."""
HEADLINE = ("abs_rel", "delta1", "rmse")
AXES = ("alignment", "crop", "max_depth")


class Variant(NamedTuple):
    """A protocol, and the metrics of the predictions under it."""

    protocol: Protocol
    metrics: dict[str, float]
    counts: ImageCounts


class Explain(PredictionObserver):
    """Scores the predictions of a validation under variants of its protocol, in one pass without storing them.

    Args:
        metrics: with the chosen protocol; of their errors, `HEADLINE` and custom ones are scored.
        relative: whether the network predicts disparity, which can only be aligned in disparity.
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
        """Move the metrics to the network's device, where processes exchange them."""
        for metrics in self.metrics:
            metrics.to(module.device)

    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Score the batch under the crops that are defined for its size."""
        crops = {self.protocol.crop, *usual_crops(*batch.target.shape[-2:])}
        for metrics in self.metrics:
            if metrics.protocol.crop in crops:
                module.score_depth(metrics, batch, prediction)

    def variants(self) -> list[Variant]:
        """The variants over all processes, each of which must call it; the chosen protocol comes first.

        Omitted are crops that do not fit every image, and ranges that do not change any number.
        """
        variants = []
        for metrics in self.metrics:
            counts = metrics.counts()
            values = {name: float(value) for name, value in metrics.compute().items()} if sum(counts) else {}
            variants.append(Variant(metrics.protocol, values, counts))
        variants.sort(key=lambda variant: len(changes(variant.protocol, self.protocol)))
        images = sum(variants[0].counts)
        variants = [variant for variant in variants if images and sum(variant.counts) == images]
        results = {variant.protocol: variant[1:] for variant in variants}

        def moves(variant: Variant) -> bool:
            in_chosen_range = dataclasses.replace(variant.protocol, max_depth=self.protocol.max_depth)
            return variant[1:] != results[in_chosen_range]

        ranges = {v.protocol.max_depth for v in variants if moves(v)} | {self.protocol.max_depth}
        return [variant for variant in variants if variant.protocol.max_depth in ranges]


def changes(protocol: Protocol, chosen: Protocol) -> list[str]:
    """The axes in which a protocol differs from the chosen one."""
    return [axis for axis in AXES if getattr(protocol, axis) != getattr(chosen, axis)]


def as_rows(variants: Sequence[Variant], higher_is_better: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One flat row per variant, for files: its protocol, its metrics, and their change from the first variant's."""
    chosen = variants[0]

    def moved(metrics: Mapping[str, float]) -> dict[str, float]:
        changed = differences(metrics, chosen.metrics, higher_is_better)
        return {f"{name}_change": change for name, change in changed.items()}

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
    """Print the table, ordered by number of changes and then by abs_rel, and write explain.csv."""
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
    then = ["then variants with one change (· means unchanged)", "then with two"]
    shown_groups = [words for words, group in zip(then, groups[1:], strict=True) if group]
    notes = [f"{', '.join(['The chosen protocol', *shown_groups])}."]
    if shown < len(variants):
        notes.append(f"{len(variants) - shown} protocols with three changes are only in explain.csv.")
    crops = set(get_args(Crop)) - {variant.protocol.crop for variant in variants}
    ranges = {*MAX_DEPTHS_M} - {variant.protocol.max_depth for variant in variants}
    if crops:
        notes.append(
            f"Omitted, because they are not defined for the size of these images: crop {', '.join(sorted(crops))}."
        )
    if ranges:
        notes.append(f"Omitted, because no number changes: max_depth {', '.join(f'{m:g}' for m in sorted(ranges))}.")
    write_rows(run_dir / "explain.csv", as_rows(variants, higher_is_better))
    notes.append(f"Written: {run_dir}/explain.csv")
    print_rows("The same predictions under other protocols", columns, groups, notes)


def differences(
    metrics: Mapping[str, float], chosen: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """Changes from the chosen protocol's metrics: of errors in percent, of shares in percentage points.

    A metric counts as a share if higher is better.
    """
    changed = {}
    for name, value in metrics.items():
        if higher_is_better[name]:
            changed[name] = 100 * (value - chosen[name])
        else:
            changed[name] = 100 * (value / chosen[name] - 1) if chosen[name] else math.nan
    return changed


def _value(protocol: Protocol, axis: str) -> str:
    value = getattr(protocol, axis)
    return f"{value:g}" if isinstance(value, float) else str(value)

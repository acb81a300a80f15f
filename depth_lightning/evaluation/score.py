"""A network's errors over a validation split."""

from collections.abc import Sequence

import lightning
import numpy as np
import torch

from depth_lightning.data import DepthDataModule
from depth_lightning.data.bad_samples import peers_of
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.evaluation.breakdowns import ScoreParts
from depth_lightning.metrics import Breakdowns, Intervals, PerImageMetrics, directions, group_rows
from depth_lightning.metrics.per_image import ValidationTables
from depth_lightning.reporting.result import EvaluationResult, PartResult
from depth_lightning.sample import DepthKind, DepthSample, collate
from depth_lightning.training import DepthModule

LOOKED_AT = 8
"""Samples of each part of a split that `check_scorable` reads."""


def check_scorable(module: DepthModule, data: DepthDataModule) -> None:
    """Refuse a protocol that can score nothing, before a run ends with nothing but NaN; reads a few samples.

    Raises:
        ValueError: the ground truth is depth up to scale, and the protocol does not fit the scale; no sample has a
            valid pixel in its range and crop; or the crop is not defined for their size.
        OSError, ValueError: a sample cannot be read.
    """
    samples, protocol = data.val_data.dataset, module.metrics.protocol
    looked_at, first = list[DepthSample](), 0
    while first < len(samples):
        part = peers_of(samples.source, first)
        looked_at += [samples[index] for index in evenly_spread(part, LOOKED_AT)]
        first = part.stop
    depth = [sample for sample in looked_at if sample.kind != DepthKind.DISPARITY]  # disparity has metrics of its own
    if len(depth) < len(looked_at):
        return
    if protocol.alignment == "none" and all(sample.kind == DepthKind.UP_TO_SCALE for sample in depth):
        raise ValueError(
            "protocol.alignment=none cannot score depth up to scale (data.kind=up_to_scale), whose scale must be "
            "fitted to each image. Use protocol=median_scaled."
        )
    cameras = torch.stack([collate([sample]).target_intrinsics[0] for sample in depth])
    module.metrics.refuse_unknown_cameras(cameras, [sample.id for sample in depth])
    if not any(protocol.valid(*map(torch.from_numpy, sample[1:3])).any() for sample in depth):
        values = np.concatenate([sample.target[sample.mask] for sample in depth])
        found = f"depths from {values.min():.4g} to {values.max():.4g}" if values.size else "nothing but holes"
        raise ValueError(
            f"No pixel of {len(depth)} validation images, such as {depth[0].id}, is valid under this protocol "
            f"({protocol}): found {found}. Set protocol.min_depth=… and protocol.max_depth=…, or correct "
            "data.depth_scale."
        )


def score(
    trainer: lightning.Trainer, module: DepthModule, data: DepthDataModule, breakdowns: bool = True
) -> EvaluationResult:
    """The module's metrics over the full validation split; every process must call it and gets the same result.

    Args:
        trainer: runs the validation.
        module: with the network and the metrics.
        data: its validation split is scored.
        breakdowns: whether to compute the breakdowns of the error, too.
    """
    parts = ScoreParts(module.metrics.protocol)
    trainer.callbacks += [parts] if breakdowns else []  # type: ignore[attr-defined]
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.counts is not None and module.tables is not None
    logged = {name.removeprefix("val/"): float(value) for name, value in trainer.callback_metrics.items()}
    errors = {**module.metrics.errors, **module.affine_metrics.errors}
    errors = {name: function for name, function in errors.items() if name in logged}
    depth, _ = module.tables
    return EvaluationResult(
        metrics={name: logged[name] for name in errors},
        higher_is_better=directions(errors),
        counts=module.counts,
        intervals=_intervals((module.metrics, module.affine_metrics), module.tables),
        tables=module.tables,
        breakdowns=Breakdowns(**parts.rows(), **group_rows(depth))
        if breakdowns and module.counts.depth.scored
        else None,
        parts={name: _part(module, name) for name in data.val_parts},
    )


def _part(module: DepthModule, name: str) -> PartResult:
    """The averages over one part of the mixture that was validated last."""
    assert module.tables is not None
    metrics = module.metrics, module.affine_metrics
    tables = ValidationTables(*(table.part(name) for table in module.tables))
    averages = [metric.averages(table) for metric, table in zip(metrics, tables, strict=True)]
    images = int(tables.depth.scored.sum()) or int(tables.affine.scored.sum())
    return PartResult({**averages[0], **averages[1]}, _intervals(metrics, tables), images)


def _intervals(metrics: Sequence[PerImageMetrics], tables: ValidationTables) -> Intervals:
    """The intervals of all metrics, with the units of the first that scored an image."""
    parts = [metric.intervals(table) for metric, table in zip(metrics, tables, strict=True) if table.scored.any()]
    bounds = {name: bound for intervals in parts for name, bound in intervals.bounds.items()}
    return parts[0]._replace(bounds=bounds) if parts else Intervals({}, "images", 0)

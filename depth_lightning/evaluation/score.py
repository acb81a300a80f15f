"""A network's errors over a validation split."""

from collections.abc import Sequence

import lightning

from depth_lightning.data import DepthDataModule
from depth_lightning.evaluation.breakdowns import ScoreParts
from depth_lightning.metrics import Breakdowns, Intervals, PerImageMetrics, directions, group_rows
from depth_lightning.metrics.per_image import ValidationTables
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.training import DepthModule


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
    )


def _intervals(metrics: Sequence[PerImageMetrics], tables: ValidationTables) -> Intervals:
    """The intervals of all metrics, with the units of the first that scored an image."""
    parts = [metric.intervals(table) for metric, table in zip(metrics, tables, strict=True) if table.scored.any()]
    bounds = {name: bound for intervals in parts for name, bound in intervals.bounds.items()}
    return parts[0]._replace(bounds=bounds) if parts else Intervals({}, "images", 0)

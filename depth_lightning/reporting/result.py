"""The result of an evaluation, from which tables, files and pages are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depth_lightning.metrics import FACTS, Breakdowns, ImageTable, Intervals
from depth_lightning.metrics.per_image import ValidationCounts, ValidationTables


@dataclass(frozen=True)
class PartResult:
    """The averages over one part of a mixture."""

    metrics: Mapping[str, float]
    """Without those that its truth does not support."""
    intervals: Intervals
    images: int
    """How many were scored."""


@dataclass(frozen=True)
class EvaluationResult:
    """Averages, their confidence intervals, and the images behind them."""

    metrics: Mapping[str, float]
    """Name → average over the scored images."""
    higher_is_better: Mapping[str, bool]
    """Name → whether higher is better, for the same metrics."""
    counts: ValidationCounts
    intervals: Intervals = field(default_factory=lambda: Intervals({}, "images", 0))
    """95 % bootstrap intervals of the metrics, from a fixed seed."""
    tables: ValidationTables | None = None
    """Per-image results, sorted by id."""
    breakdowns: Breakdowns | None = None
    """By distance, region and so on, with the corrections; None if not requested."""
    parts: Mapping[str, PartResult] = field(default_factory=dict)
    """Of a mixture, by name."""

    def per_image(self) -> dict[str, list[Any] | np.ndarray]:
        """The columns of per_image.parquet, one row per image: those whose truth is depth, then those with disparity.

        id, scene, truth ("depth" or "disparity"), status (as the fields of `ImageCounts`), every metric, and `FACTS`.
        NaN where a column does not apply: a metric of an image that is not scored, a coefficient that is not fitted.
        """
        if self.tables is None:
            return {}
        parts = [(name, table) for name, table in zip(("depth", "disparity"), self.tables, strict=True) if table.id]
        names = dict.fromkeys(name for _, table in parts for name in table.errors)
        return {
            "id": [name for _, table in parts for name in table.id],
            "scene": [scene for _, table in parts for scene in table.scene],
            "truth": [truth for truth, table in parts for _ in table.id],
            "status": [status for _, table in parts for status in table.status],
            **{name: _column([(table, table.errors.get(name)) for _, table in parts]) for name in names},
            **{name: _column([(table, table.facts[name]) for _, table in parts]) for name in FACTS},
        }


def _column(parts: list[tuple[ImageTable, np.ndarray | None]]) -> np.ndarray:
    filled = [np.full(len(table.id), np.nan) if values is None else values for table, values in parts]
    return np.concatenate([np.empty(0), *filled])

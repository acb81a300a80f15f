"""A page of images that are known, made as an evaluation makes it."""

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch

from depth_lightning.evaluation.page_images import PageImages
from depth_lightning.metrics import ERRORS, Breakdowns, DepthMetrics, PartMetrics, Protocol, directions, group_rows
from depth_lightning.metrics.per_image import ValidationCounts, ValidationTables
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.page import PageContent, write_page
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training import DepthModule
from depth_lightning.training.like_truth import converted


class Planted(NamedTuple):
    id: str
    target: np.ndarray
    mask: np.ndarray
    prediction: np.ndarray
    kind: DepthKind = DepthKind.METRES
    scene: str = ""


def room(index, error=0.1, height=48, width=64, **named):
    """An image with a hole and a prediction that is off by about `error`, in metres."""
    rng = np.random.default_rng(index)
    target = (1 + rng.random((height, width)) + np.linspace(0, 4, width)).astype(np.float32)
    mask = np.ones((height, width), bool)
    mask[5:12, 8:20] = False
    prediction = (target * (1 + error * rng.uniform(0.5, 1.5, (height, width)))).astype(np.float32)
    return Planted(named.pop("id", f"val/{index:03d}.png"), target * mask, mask, prediction, **named)


class ScoredPage(NamedTuple):
    path: Path
    images: list
    result: EvaluationResult


def collect(planted, module, parts=None, of=None):
    """What a process that sees these images keeps of them."""
    pictures = PageImages()
    count = of or len(planted)
    pictures.on_validation_start(SimpleNamespace(datamodule=SimpleNamespace(val_data=range(count))), module)
    for one in planted:
        image = np.random.default_rng(0).integers(0, 255, (3, *one.target.shape), np.uint8)
        maps = (torch.from_numpy(values)[None] for values in (image, one.target, one.mask))
        batch = DepthBatch(*maps, torch.full((1, 4), torch.nan), (one.kind,), (one.id,), (one.scene,))
        prediction = torch.from_numpy(one.prediction)[None]
        module.score_depth(module.metrics, batch, prediction)
        if one.kind == DepthKind.DISPARITY:
            given = converted(module.network, prediction, to_disparity=True)
            module.affine_metrics.update(given, batch.target, batch.mask, batch.id, batch.scene)
        if parts:
            module.score_depth(parts, batch, prediction)
        pictures.on_validation_batch_end(None, module, prediction, batch, 0)
    return pictures


def make_page(folder, planted, output="metric", protocol=None, errors=ERRORS, breakdowns=True, **content):
    """The page of these images."""
    network = DepthAnythingV2("tiny", output=output, max_depth=10.0)
    module = DepthModule(network, DepthMetrics(protocol or Protocol(), errors))
    parts = PartMetrics(module.metrics.protocol)
    images = collect(planted, module, parts).gathered()
    tables = ValidationTables(module.metrics.images(), module.affine_metrics.images())
    both = zip((module.metrics, module.affine_metrics), tables, strict=True)
    metrics = {name: float(value) for one, table in both if table.scored.any()
               for name, value in one.compute().items()}  # fmt: skip
    result = EvaluationResult(
        metrics,
        directions({**module.metrics.errors, **module.affine_metrics.errors}),
        ValidationCounts(module.metrics.counts(), module.affine_metrics.counts()),
        module.metrics.intervals(tables.depth),
        tables,
        Breakdowns(**parts.compute(), **group_rows(tables.depth)) if breakdowns and tables.depth.scored.any() else None,
    )
    said = {"title": "a page", "columns": {"model": metrics}, "command": "python evaluate.py", **content}
    path = folder / "report.html"
    write_page(path, PageContent(result=result, protocol=module.metrics.protocol, **said), images)
    return ScoredPage(path, images, result)

"""Where the error is: by distance, near depth edges, by region of the image; and whether it is only a scale error.

Every image contributes a few sums for each of its parts, and a sample of its pixels. Nothing is read back to the host
during updates. The tables are computed at the end, with the same result on any number of processes.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depth_lightning.metrics.corrections import corrections
from depth_lightning.metrics.depth_metrics import prepare
from depth_lightning.metrics.intervals import units_of
from depth_lightning.metrics.per_image import ImageTable, decode_names, encode_names
from depth_lightning.metrics.pixels import random_valid_pixels
from depth_lightning.metrics.protocol import Protocol

BIN_EDGES_M = (0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000)
EDGE_RATIO = 1.25
"""A depth edge is where valid truth differs by more than this factor within `EDGE_RADIUS`, even across holes."""
EDGE_RADIUS = 0.01
"""Relative to the image's height; at least one pixel."""
REGIONS = tuple(f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right"))
SAMPLE = 512
"""Pixels kept per image for the corrections."""

Rows = list[dict[str, Any]]
_SUMS = ("pixels", "abs_rel", "bias", "squared", "delta1", "target", "prediction")


class Breakdowns(NamedTuple):
    """Rows for tables and files.

    Rows for parts of images are computed over the pixels of all images together: pixels, share (of all pixels),
    abs_rel, bias (E[(p − t) / t]), rmse, delta1, and for calibration mean_target and mean_prediction. Rows for groups
    of images are averages over images. Parts and groups without a pixel have no row.
    """

    by_distance: Rows
    """Bins of true depth, with from_m and to_m."""
    by_edge: Rows
    """Near a depth edge, and away from edges."""
    by_region: Rows
    """Nine parts of the image, on a 3×3 grid."""
    by_valid_share: Rows
    """Images grouped by their share of valid pixels, in quarters."""
    by_scene: Rows
    """The scenes, worst abs_rel first; empty if scenes are unknown."""
    corrections: Rows
    """See `depth_lightning.metrics.corrections`; from `SAMPLE` pixels of each image."""


class PartMetrics(Metric):
    """Errors of the parts of images, with predictions aligned and bounded according to the protocol.

    Images with truth up to scale are excluded: their distances have no unit.
    """

    is_differentiable = False
    higher_is_better = None  # `compute` gives tables
    full_state_update = False
    sums: list[Tensor]
    samples: list[Tensor]
    names: list[Tensor]

    def __init__(self, protocol: Protocol, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        edges = [edge for edge in BIN_EDGES_M if edge < protocol.max_depth] + [protocol.max_depth]
        self.parts: dict[str, Rows] = {
            "by_distance": [{"from_m": float(low), "to_m": float(high)} for low, high in pairwise(edges)],
            "by_edge": [{"part": "near an edge"}, {"part": "away from edges"}],
            "by_region": [{"part": region} for region in REGIONS],
        }
        """The parts of each breakdown, in the order of their sums."""
        for state in ("sums", "samples", "names"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor,
        ids: Sequence[str],
        scenes: Sequence[str],
        scale_known: bool = True,
        intrinsics: Tensor | None = None,
    ) -> None:
        """Add images, like `DepthMetrics.update`; cameras do not matter."""
        if not scale_known:
            return
        depth, valid, aligned = prepare(prediction.float(), target.float(), mask, self.protocol)
        valid = valid & aligned.determined[:, None, None]
        relative = depth / target - 1
        values = {
            "pixels": torch.ones_like(depth),
            "abs_rel": relative.abs(),
            "bias": relative,
            "squared": (depth - target).square(),
            "delta1": (torch.maximum(depth / target, target / depth) < 1.25).float(),
            "target": target,
            "prediction": depth,
        }
        stacked = torch.stack([values[name] for name in _SUMS], dim=1).masked_fill(~valid[:, None], 0)
        near = near_depth_edge(target, mask)
        of_bins = [(target > part["from_m"]) & (target <= part["to_m"]) for part in self.parts["by_distance"]]
        sums = [torch.where(part[:, None], stacked, 0).sum(dim=(2, 3)) for part in (*of_bins, near, ~near)]
        sums += [third.sum(dim=(2, 3)) for rows in _thirds(stacked, dim=2) for third in _thirds(rows, dim=3)]
        self.sums.append(torch.stack(sums, dim=1))
        pixels = random_valid_pixels(valid, SAMPLE)
        sample = torch.stack([depth.flatten(1).gather(1, pixels), target.flatten(1).gather(1, pixels)], dim=2)
        self.samples.append(sample.masked_fill(~valid.any(dim=2).any(dim=1)[:, None, None], torch.nan))
        self.names.append(encode_names(ids, scenes).to(self.device, non_blocking=True))

    def compute(self) -> dict[str, Rows]:
        """The fields of `Breakdowns` on parts of images; empty without images."""
        if not len(self.sums):
            return {name: [] for name in (*self.parts, "corrections")}
        sums = dim_zero_cat(self.sums).cpu().double().sum(dim=0)
        of_breakdowns = torch.split(sums, [len(parts) for parts in self.parts.values()])
        rows = {
            name: _part_rows(parts, of_parts.tolist())
            for (name, parts), of_parts in zip(self.parts.items(), of_breakdowns, strict=True)
        }
        return {**rows, "corrections": self._corrections()}

    def _corrections(self) -> Rows:
        names = decode_names([dim_zero_cat(self.names)])
        samples = dim_zero_cat(self.samples).cpu().numpy()
        order = [row for row in sorted(range(len(names)), key=names.__getitem__) if np.isfinite(samples[row]).all()]
        prediction, target = np.moveaxis(samples[order].astype(float), 2, 0)
        return corrections(prediction, target, units_of([names[row][1] for row in order]), self.protocol.min_depth)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the sums of all processes; one without images contributes none."""
        if not len(self.sums):
            parts = sum(map(len, self.parts.values()))
            self.sums.append(torch.empty(0, parts, len(_SUMS), device=self.device))
            self.samples.append(torch.empty(0, SAMPLE, 2, device=self.device))
            self.names.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)


def near_depth_edge(target: Tensor, mask: Tensor) -> Tensor:
    """(b, h, w) bool: where valid truth within a square of `EDGE_RADIUS` spans more than the factor `EDGE_RATIO`."""
    radius = max(1, round(EDGE_RADIUS * target.shape[1]))
    logs = target.clamp(min=1e-6).log()
    farthest = _largest_around(logs.masked_fill(~mask, -torch.inf), radius)
    nearest = -_largest_around((-logs).masked_fill(~mask, -torch.inf), radius)
    return farthest - nearest > math.log(EDGE_RATIO)


def group_rows(table: ImageTable) -> dict[str, Rows]:
    """The fields of `Breakdowns` on groups of images."""
    quarters = np.clip(np.ceil(4 * table.facts["valid_share"]), 1, 4)
    by_share = [
        {"from_share": (quarter - 1) / 4, "to_share": quarter / 4, **_averages(table, quarters == quarter)}
        for quarter in (1, 2, 3, 4)
    ]
    scenes = np.array(table.scene, dtype=object)
    by_scene = [{"scene": scene, **_averages(table, scenes == scene)} for scene in sorted({*table.scene} - {""})]
    by_scene = [row for row in by_scene if row["images"]]
    worst = next(iter(table.errors), "")
    return {
        "by_valid_share": [row for row in by_share if row["images"]],
        "by_scene": sorted(by_scene, key=lambda row: -row[worst]),
    }


def _averages(table: ImageTable, chosen: np.ndarray) -> dict[str, Any]:
    chosen = chosen & table.scored
    averages = {name: float(values[chosen].mean()) for name, values in table.errors.items()} if chosen.any() else {}
    return {"images": int(chosen.sum()), **averages}


def _part_rows(parts: Rows, sums: Sequence[Sequence[float]]) -> Rows:
    """The rows of the parts that have pixels, from their `_SUMS`."""
    named = [dict(zip(_SUMS, of_part, strict=True)) for of_part in sums]
    total = sum(of_part["pixels"] for of_part in named)
    rows = []
    for part, of_part in zip(parts, named, strict=True):
        if pixels := of_part["pixels"]:
            mean = {name: value / pixels for name, value in of_part.items()}
            row = {"abs_rel": mean["abs_rel"], "bias": mean["bias"], "rmse": mean["squared"] ** 0.5}
            row |= {"delta1": mean["delta1"], "mean_target": mean["target"], "mean_prediction": mean["prediction"]}
            rows.append({**part, "pixels": int(pixels), "share": pixels / total, **row})
    return rows


def _thirds(values: Tensor, dim: int) -> tuple[Tensor, ...]:
    ends = [round(third * values.shape[dim] / 3) for third in range(4)]
    return tuple(values.narrow(dim, start, end - start) for start, end in pairwise(ends))


def _largest_around(values: Tensor, radius: int) -> Tensor:
    """(b, h, w) largest value in the square around each pixel, first along rows, then along columns."""
    for padding, dim in (((radius, radius), 2), ((0, 0, radius, radius), 1)):
        values, size = F.pad(values, padding, value=-torch.inf), 1
        while size < 2 * radius + 1:  # maxima of windows of `size` pixels; two of them overlap or touch
            step = min(size, 2 * radius + 1 - size)
            length = values.shape[dim] - step
            values, size = torch.maximum(values.narrow(dim, 0, length), values.narrow(dim, step, length)), size + step
    return values

"""Metrics that are averages over images, as state that batches and processes add to."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depth_lightning.metrics.errors import ErrorFunction
from depth_lightning.metrics.intervals import Intervals, Units, mean_intervals, units_of

FACTS = ("valid_pixels", "valid_share", "target_min", "target_max", "scale", "shift")
"""What is known of an image beside its errors: `ImageTable.facts`."""


class ImageCounts(NamedTuple):
    """How many images the averages stand for."""

    scored: int
    without_valid_pixel: int
    """Nothing to compare with inside the protocol's crop and range; not in the averages."""
    not_aligned: int
    """The pixels do not determine the alignment, or the truth has no unit and none is fitted; not in the averages."""


class ImageTable(NamedTuple):
    """What was found for each image, sorted by id: the same on any number of processes."""

    id: list[str]
    scene: list[str]
    """Empty where scenes are not known."""
    status: list[str]
    """Of `ImageCounts`' fields, the one that counts this image."""
    errors: dict[str, np.ndarray]
    """Name → (n,) float64; NaN where the image is not scored."""
    facts: dict[str, np.ndarray]
    """(n,) float64: number and share of valid pixels, the range of their targets, the alignment's coefficients (NaN
    where nothing is fitted)."""

    @property
    def scored(self) -> np.ndarray:
        """(n,) bool."""
        return np.array([status == "scored" for status in self.status], dtype=bool)


class ValidationCounts(NamedTuple):
    """The images of a validation, by what their truth allows to measure."""

    depth: ImageCounts
    """Truth in metres or up to scale: the depth metrics."""
    affine: ImageCounts
    """Truth up to scale and shift: the affine metrics."""


class ValidationTables(NamedTuple):
    """The same images, one by one."""

    depth: ImageTable
    affine: ImageTable


class PerImageMetrics(Metric):
    """Averages over images of errors that a subclass computes for each.

    Nothing is read back to the host in `update`; `compute` averages in float64, so that neither the batch size nor
    the number of processes moves the result.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    rows: list[Tensor]
    names: list[Tensor]

    def __init__(self, errors: Mapping[str, ErrorFunction], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.errors = dict(errors)
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("names", default=[], dist_reduce_fx="cat")

    def update(
        self, prediction: Tensor, target: Tensor, mask: Tensor, ids: Sequence[str] = (), scenes: Sequence[str] = ()
    ) -> None:
        """Add images.

        Args:
            prediction: (b, h, w), at the target's resolution.
            target: (b, h, w).
            mask: (b, h, w) bool, True where the target is valid.
            ids: names of the images, for `images`.
            scenes: of the images, where known.

        Raises:
            ValueError: the shapes differ.
        """
        if not (prediction.shape == target.shape == mask.shape) or prediction.ndim != 3:
            raise ValueError(
                f"{type(self).__name__} takes (b, h, w) prediction, target and mask of one shape, found "
                f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}. "
                "Predictions are upsampled to the ground truth, never the other way round."
            )
        self.rows.append(self.image_rows(prediction.float(), target.float(), mask))
        unknown = [""] * len(mask)
        self.names.append(encode_names(ids or unknown, scenes or unknown).to(self.device, non_blocking=True))

    def image_rows(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """One row an image, as `with_facts` makes it."""
        raise NotImplementedError

    @staticmethod
    def with_facts(
        errors: Tensor, target: Tensor, valid: Tensor, determined: Tensor, scale: Tensor, shift: Tensor
    ) -> Tensor:
        """(b, errors + 7): (b, errors) errors, then `FACTS`, then whether the image could be scored."""
        pixels = valid.sum(dim=(1, 2))
        facts = [
            pixels,
            pixels / (valid.shape[1] * valid.shape[2]),
            target.masked_fill(~valid, torch.inf).amin(dim=(1, 2)),
            target.masked_fill(~valid, -torch.inf).amax(dim=(1, 2)),
            scale,
            shift,
            determined,
        ]
        return torch.cat([errors, torch.stack([fact.to(errors) for fact in facts], dim=1)], dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Every error by its name, averaged over the images scored; NaN where none was."""
        errors, scored, _ = self.table()
        means = errors[scored].mean(dim=0).float()
        return dict(zip(self.errors, means, strict=True))

    def counts(self) -> ImageCounts:
        """The images behind `compute`, of all processes: a collective call, to be made by every process."""
        with self.sync_context(should_sync=self._to_sync):
            _, scored, facts = self.table()
        valid = facts[:, 0] > 0
        return ImageCounts(int(scored.sum()), int((~valid).sum()), int((valid & ~scored).sum()))

    def images(self) -> ImageTable:
        """Every image of all processes: a collective call, to be made by every process."""
        with self.sync_context(should_sync=self._to_sync):
            errors, scored, facts = (part.numpy() for part in self.table())
            names = decode_names([dim_zero_cat(self.names)] if len(self.names) else [])
        order = sorted(range(len(names)), key=names.__getitem__)
        valid = facts[:, 0] > 0
        errors, facts = np.where(scored[:, None], errors, np.nan), np.where(valid[:, None], facts, np.nan)
        facts[~valid, :2] = 0
        return ImageTable(
            id=[names[row][0] for row in order],
            scene=[names[row][1] for row in order],
            status=[
                "scored" if scored[row] else "not_aligned" if valid[row] else "without_valid_pixel" for row in order
            ],
            errors={name: errors[order, column] for column, name in enumerate(self.errors)},
            facts={name: facts[order, column] for column, name in enumerate(FACTS)},
        )

    def intervals(self, images: ImageTable) -> Intervals:
        """95 % confidence intervals of `compute`, over what `images` gives or a part of it."""
        values = np.stack(list(images.errors.values()), axis=1)[images.scored]
        units = units_of([scene for scene, scored in zip(images.scene, images.scored, strict=True) if scored])
        bounds = self.bounds(values, images.facts["valid_pixels"][images.scored], units)
        return Intervals(bounds, units.name, units.total)

    def bounds(self, values: np.ndarray, pixels: np.ndarray, units: Units) -> dict[str, tuple[float, float]]:
        """Bounds of (n, errors) values' means; pixels is (n,)."""
        return dict(zip(self.errors, map(tuple, mean_intervals(values, units).tolist()), strict=True))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one that saw no image takes part with none."""
        if not len(self.rows):  # torchmetrics would gather a placeholder of another shape, and fail
            self.rows.append(torch.empty(0, len(self.errors) + len(FACTS) + 1, device=self.device))
            self.names.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def table(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of this process, in float64: errors (n, errors), whether each image is scored (n,), `FACTS` (n, facts)."""
        columns = len(self.errors) + len(FACTS) + 1
        table = dim_zero_cat(self.rows) if len(self.rows) else torch.empty(0, columns)
        rows = table.cpu().double()
        facts, determined = rows[:, len(self.errors) : -1], rows[:, -1].bool()
        return rows[:, : len(self.errors)], (facts[:, 0] > 0) & determined, facts


def encode_names(ids: Sequence[str], scenes: Sequence[str]) -> Tensor:
    """Ids and scenes as bytes of text, since processes exchange tensors: a line of JSON per image, (bytes,) uint8."""
    lines = "".join(f"{json.dumps(name)}\n" for name in zip(ids, scenes, strict=True))
    return torch.from_numpy(np.frombuffer(lines.encode(), np.uint8).copy())


def decode_names(encoded: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Id and scene of every image."""
    text = b"".join(bytes(part.cpu().numpy()) for part in encoded).decode()
    return [(name, scene) for name, scene in map(json.loads, text.splitlines())]

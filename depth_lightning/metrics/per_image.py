"""Metrics that are averages over images, accumulated over batches and processes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from depth_lightning.metrics.errors import ErrorFunction, with_intrinsics
from depth_lightning.metrics.intervals import Intervals, Units, mean_intervals, units_of


class ImageFacts(NamedTuple):
    """Facts about images besides their errors, each (n,)."""

    valid_pixels: Tensor
    valid_share: Tensor
    target_min: Tensor
    """Of the valid pixels, like `target_max`; infinite without one."""
    target_max: Tensor
    scale: Tensor
    """Of the alignment, like `shift`; NaN if it is not fitted."""
    shift: Tensor

    @classmethod
    def of(
        cls, target: Tensor, valid: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> "ImageFacts":
        """The facts of (b, h, w) targets and the pixels that count; a coefficient that is not fitted is None."""
        pixels = valid.sum(dim=(1, 2))
        unfitted = target.new_full(pixels.shape, torch.nan)
        return cls(
            valid_pixels=pixels,
            valid_share=pixels / (valid.shape[1] * valid.shape[2]),
            target_min=target.masked_fill(~valid, torch.inf).amin(dim=(1, 2)),
            target_max=target.masked_fill(~valid, -torch.inf).amax(dim=(1, 2)),
            scale=unfitted if scale is None else scale,
            shift=unfitted if shift is None else shift,
        )


FACTS = ImageFacts._fields
"""The columns of `ImageTable.facts`."""


class ImageRows(NamedTuple):
    """One row per image: added by `update`, and the basis of all averages."""

    errors: Tensor
    """(n, errors), in the order of `PerImageMetrics.errors`."""
    facts: ImageFacts
    determined: Tensor
    """(n,) bool: whether an image with a valid pixel can be scored."""

    @property
    def valid(self) -> Tensor:
        """(n,) bool: the images with a valid pixel."""
        return self.facts.valid_pixels > 0

    @property
    def scored(self) -> Tensor:
        """(n,) bool: the images included in the averages."""
        return self.valid & self.determined

    def packed(self) -> Tensor:
        """(n, errors + facts + 1), the one tensor that processes exchange."""
        columns = [column.to(self.errors) for column in (*self.facts, self.determined)]
        return torch.cat([self.errors, torch.stack(columns, dim=1)], dim=1)

    @classmethod
    def unpacked(cls, packed: Tensor, errors: int) -> "ImageRows":
        """The rows from `packed`, with the given number of errors."""
        of_errors, facts, determined = torch.split(packed, [errors, len(FACTS), 1], dim=1)
        return cls(of_errors, ImageFacts(*facts.unbind(dim=1)), determined.squeeze(1).bool())


class ImageCounts(NamedTuple):
    """How many images the averages are over."""

    scored: int
    without_valid_pixel: int
    """Nothing to compare with inside the protocol's crop and range; not in the averages."""
    not_aligned: int
    """The pixels do not determine the alignment, or the truth has no unit and none is fitted; not in the averages."""


class ImageTable(NamedTuple):
    """The results of each image, sorted by id: the same on any number of processes."""

    id: list[str]
    scene: list[str]
    """Empty strings where scenes are unknown."""
    status: list[str]
    """The field of `ImageCounts` that counts this image."""
    errors: dict[str, np.ndarray]
    """Name → (n,) float64; NaN where the image is not scored."""
    facts: dict[str, np.ndarray]
    """(n,) float64: number and share of valid pixels, the range of their targets, the alignment's coefficients (NaN
    if not fitted)."""

    @property
    def scored(self) -> np.ndarray:
        """(n,) bool."""
        return np.array([status == "scored" for status in self.status], dtype=bool)

    def part(self, name: str) -> "ImageTable":
        """The images of one part of a mixture, whose ids begin with its name."""
        chosen = np.array([id.startswith(f"{name}/") for id in self.id], dtype=bool)
        ids, scenes, status = (
            [text for text, kept in zip(texts, chosen, strict=True) if kept]
            for texts in (self.id, self.scene, self.status)
        )
        errors, facts = (
            {key: values[chosen] for key, values in columns.items()} for columns in (self.errors, self.facts)
        )
        return ImageTable(ids, scenes, status, errors, facts)


class ValidationCounts(NamedTuple):
    """The images of a validation, by the metrics that their truth supports."""

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

    Nothing is read back to the host in `update`. `compute` averages in float64, so that neither the batch size nor the
    number of processes changes the result.
    """

    is_differentiable = False
    higher_is_better: bool | None = None  # differs between the values; see `directions(metrics.errors)`
    full_state_update = False
    rows: list[Tensor]
    names: list[Tensor]

    def __init__(self, errors: Mapping[str, ErrorFunction], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.errors = dict(errors)
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("names", default=[], dist_reduce_fx="cat")

    def update(
        self,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor,
        ids: Sequence[str] = (),
        scenes: Sequence[str] = (),
        scale_known: bool = True,
        intrinsics: Tensor | None = None,
    ) -> None:
        """Add images.

        Args:
            prediction: (b, h, w), at the target's resolution.
            target: (b, h, w).
            mask: (b, h, w) bool, True where the target is valid.
            ids: names of the images, for `images`.
            scenes: of the images, where known.
            scale_known: whether the target has a unit. `DepthMetrics` scores an image whose target is up to scale
                only after an alignment; under the alignment "none" it counts as not aligned.
            intrinsics: (b, 4) fx, fy, cx, cy in pixels of the target, for errors that need them.

        Raises:
            ValueError: the shapes differ, or an error needs a camera that is unknown.
        """
        if not (prediction.shape == target.shape == mask.shape) or prediction.ndim != 3:
            raise ValueError(
                f"{type(self).__name__} takes (b, h, w) prediction, target and mask of one shape, found "
                f"{tuple(prediction.shape)}, {tuple(target.shape)} and {tuple(mask.shape)}. "
                "Upsample predictions to the ground truth, never resize the ground truth."
            )
        self.refuse_unknown_cameras(intrinsics, ids)
        self.rows.append(self.image_rows(prediction.float(), target.float(), mask, scale_known, intrinsics).packed())
        unknown = [""] * len(mask)
        self.names.append(encode_names(ids or unknown, scenes or unknown).to(self.device, non_blocking=True))

    def refuse_unknown_cameras(self, intrinsics: Tensor | None, ids: Sequence[str]) -> None:
        """Refuse images without a camera, if an error needs it.

        Args:
            intrinsics: (b, 4), NaN where unknown.
            ids: of the images, for the message.

        Raises:
            ValueError: a camera is unknown.
        """
        needing = [name for name, function in self.errors.items() if with_intrinsics(function)]
        if needing and (intrinsics is None or not bool(intrinsics.isfinite().all())):
            unknown = range(len(ids)) if intrinsics is None else (~intrinsics.isfinite().all(dim=1)).nonzero()[:, 0]
            of = next((ids[index] for index in unknown if ids), "an image")
            raise ValueError(
                f"metrics.{needing[0]} needs the camera of {of}, which is unknown. Type data.intrinsics=[fx,fy,cx,cy], "
                "in pixels, or write fx, fy, cx and cy as columns of data.manifest; or leave out metrics=…"
            )

    def image_rows(
        self, prediction: Tensor, target: Tensor, mask: Tensor, scale_known: bool, intrinsics: Tensor | None
    ) -> ImageRows:
        """The rows of a batch; the arguments are those of `update`, in float32."""
        raise NotImplementedError

    def image_errors(
        self, prediction: Tensor, target: Tensor, valid: Tensor, intrinsics: Tensor | None = None
    ) -> Tensor:
        """(b, errors) errors over the valid pixels."""
        maps = prediction, target, valid
        errors = (
            function(*maps, intrinsics) if with_intrinsics(function) else function(*maps)
            for function in self.errors.values()
        )
        return torch.stack(list(errors), dim=1)

    def compute(self) -> dict[str, Tensor]:
        """Name → error averaged over the scored images; NaN if there are none."""
        rows = self.table()
        means = rows.errors[rows.scored].mean(dim=0).float()
        return dict(zip(self.errors, means, strict=True))

    def counts(self) -> ImageCounts:
        """The image counts behind `compute`, over all processes: a collective call that every process must make."""
        with self.sync_context(should_sync=self._to_sync):
            rows = self.table()
        scored, valid = rows.scored, rows.valid
        return ImageCounts(int(scored.sum()), int((~valid).sum()), int((valid & ~scored).sum()))

    def images(self) -> ImageTable:
        """The images of all processes: a collective call that every process must make."""
        with self.sync_context(should_sync=self._to_sync):
            rows = self.table()
            names = decode_names([dim_zero_cat(self.names)] if len(self.names) else [])
        order = sorted(range(len(names)), key=names.__getitem__)
        valid, scored = rows.valid[order].numpy(), rows.scored[order].numpy()
        errors = np.where(scored[:, None], rows.errors[order].numpy(), np.nan)
        facts = {name: column[order].numpy() for name, column in rows.facts._asdict().items()}
        without = {"valid_pixels": 0.0, "valid_share": 0.0}
        return ImageTable(
            id=[names[row][0] for row in order],
            scene=[names[row][1] for row in order],
            status=[
                "scored" if of_scored else "not_aligned" if of_valid else "without_valid_pixel"
                for of_scored, of_valid in zip(scored, valid, strict=True)
            ],
            errors=dict(zip(self.errors, errors.T, strict=True)),
            facts={name: np.where(valid, column, without.get(name, np.nan)) for name, column in facts.items()},
        )

    def averages(self, images: ImageTable) -> dict[str, float]:
        """What `compute` gives for the images of a table, or for a part of them; empty if none of them is scored."""
        scored = images.scored
        return {name: float(values[scored].mean()) for name, values in images.errors.items()} if scored.any() else {}

    def intervals(self, images: ImageTable) -> Intervals:
        """95 % confidence intervals of `compute`, over the result of `images` or a part of it."""
        values = np.stack(list(images.errors.values()), axis=1)[images.scored]
        units = units_of([scene for scene, scored in zip(images.scene, images.scored, strict=True) if scored])
        bounds = self.bounds(values, images.facts["valid_pixels"][images.scored], units)
        return Intervals(bounds, units.name, units.total)

    def bounds(self, values: np.ndarray, pixels: np.ndarray, units: Units) -> dict[str, tuple[float, float]]:
        """Bounds of (n, errors) values' means; pixels is (n,)."""
        return dict(zip(self.errors, map(tuple, mean_intervals(values, units).tolist()), strict=True))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one without images contributes none."""
        if not len(self.rows):  # torchmetrics would gather a placeholder of another shape, and fail
            self.rows.append(self._no_rows())
            self.names.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def table(self) -> ImageRows:
        """The rows of this process, in float64 on the CPU."""
        packed = dim_zero_cat(self.rows) if len(self.rows) else self._no_rows()
        return ImageRows.unpacked(packed.cpu().double(), len(self.errors))

    def _no_rows(self) -> Tensor:
        return torch.empty(0, len(self.errors) + len(FACTS) + 1, device=self.device)


def encode_names(ids: Sequence[str], scenes: Sequence[str]) -> Tensor:
    """Ids and scenes as a (bytes,) uint8 tensor, which processes can exchange: one line of JSON per image."""
    lines = "".join(f"{json.dumps(name)}\n" for name in zip(ids, scenes, strict=True))
    return torch.from_numpy(np.frombuffer(lines.encode(), np.uint8).copy())


def decode_names(encoded: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Id and scene of every image."""
    text = b"".join(bytes(part.cpu().numpy()) for part in encoded).decode()
    return [(name, scene) for name, scene in map(json.loads, text.splitlines())]

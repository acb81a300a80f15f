"""Checks of samples. A broken sample either ends the run, or is replaced, listed and counted."""

import csv
import errno
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import numpy as np
from filelock import FileLock

from depth_lightning.atomic import explained
from depth_lightning.data.object_store import StorageError
from depth_lightning.data.reading import naming
from depth_lightning.sample import DepthDataset, DepthKind, DepthSample
from depth_lightning.settings import printable

log = logging.getLogger(__name__)

MOST: Final = 0.01
"""Share of a data set's samples that may be broken before the run ends."""
MIN_SIDE: Final = 14
"""Shortest side of an image, in pixels. A smaller image has no usable content."""
ASPECT_TOLERANCE: Final = 0.01
LONGEST_REASON: Final = 1000
"""Most characters of a reason in the list."""
COLUMNS: Final = ("split", "index", "path", "reason")


class TooManyBadSamplesError(ValueError):
    """More samples are broken than a run may skip."""


class BadSampleList:
    """The table of broken samples, a CSV to which several processes append.

    Args:
        file: the CSV file, created with the first broken sample.
        split: the split whose samples are added here; the file holds those of all splits.
    """

    def __init__(self, file: Path, split: str) -> None:
        self.file, self.split = file, split

    def add(self, index: int, path: str, reason: str) -> set[int]:
        """List sample `index`, only once even if several processes add it repeatedly.

        Returns:
            The indices of this split's broken samples so far.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with (
            explained(self.file),
            FileLock(self.file.with_name(f".{self.file.name}.lock")),
            self.file.open("a+", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            file.seek(0)
            known = self._indices(file)
            if index not in known:
                size = os.fstat(file.fileno()).st_size
                writer = csv.writer(rows := io.StringIO())
                if not size:
                    writer.writerow(COLUMNS)
                writer.writerow((self.split, index, path, reason))
                content = rows.getvalue().encode(errors="surrogateescape")
                if os.write(file.fileno(), content) < len(content):  # complete rows only, even on a full disk
                    os.ftruncate(file.fileno(), size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                log.warning(f"Passed over ({self.split}, listed in {self.file}): {printable(reason)}")
        return known | {index}

    def indices(self) -> set[int]:
        """The indices of this split's broken samples."""
        if not self.file.is_file():
            return set()
        with self.file.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return self._indices(file)

    def _indices(self, file: IO[str]) -> set[int]:
        with naming(self.file, "a list of broken samples", "Remove it."):
            return {int(row["index"]) for row in csv.DictReader(file) if row["split"] == self.split}


class Samples:
    """The samples of a data set as loaders read them: checked, and broken ones handled as `bad` determines.

    Args:
        source: the data set.
        bad: list of broken samples, which are then skipped; None to raise the error of the first one.

    Raises:
        OSError, ValueError: without `bad`, a sample is broken.
        StorageError: the storage does not respond; no sample is to blame.
        TooManyBadSamplesError: with `bad`, more than 1 % of the data set (in a mixture, of the part) is broken.
    """

    def __init__(self, source: DepthDataset, bad: BadSampleList | None = None) -> None:
        self.source, self.bad = source, bad

    def __len__(self) -> int:
        return len(self.source)

    def broken(self) -> int:
        """Number of samples listed as broken so far."""
        return len(self.bad.indices()) if self.bad is not None else 0

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index` as on disk, or a placeholder, see `transformed`."""
        return self.transformed(index, lambda sample: sample)

    def transformed(self, index: int, transform: Callable[[DepthSample], DepthSample]) -> DepthSample:
        """Sample `index` transformed, or a placeholder without ground truth if it is broken.

        The placeholder has the broken sample's path as its id and the next readable sample's image, so that its size
        matches the others. It has no valid pixel, and evaluation counts it as left out. A sample that `transform`
        refuses counts as broken too.
        """
        sample = self._read(index, transform)
        if sample is not None:
            return sample
        peers = peers_of(self.source, index)
        for step in range(1, len(peers)):
            other = self._read(peers[(index - peers.start + step) % len(peers)], transform)
            if other is not None:
                empty = np.zeros_like(other.target), np.zeros_like(other.mask)
                return other._replace(
                    target=empty[0], mask=empty[1], id=printable(path_of(self.source, index)), scene=""
                )
        raise self._too_many(index, "no other sample can be read either")

    def draw(self, index: int, seed: int) -> DepthSample:
        """Sample `index`, or if it is broken another one of the same data set, chosen by `seed` alone."""
        sample = self._read(index)
        if sample is not None:
            return sample
        for other in np.random.default_rng(seed).permutation(peers_of(self.source, index)).tolist():
            sample = self._read(other)
            if sample is not None:
                return sample
        raise self._too_many(index, "no other sample can be read either")

    def _read(
        self, index: int, transform: Callable[[DepthSample], DepthSample] = lambda sample: sample
    ) -> DepthSample | None:
        """Sample `index`; None if it is broken and listed."""
        try:
            sample = self.source[index]
            check_sample(sample)
            return transform(sample._replace(id=printable(sample.id), scene=printable(sample.scene)))
        except StorageError:
            raise
        except (OSError, ValueError) as error:
            if self.bad is None:
                raise
            reason = " ".join(str(error).split())[:LONGEST_REASON]
            known = self.bad.add(index, path_of(self.source, index), reason)
            peers = peers_of(self.source, index)
            if sum(other in peers for other in known) > MOST * len(peers):
                raise self._too_many(index, reason) from error
            return None

    def _too_many(self, index: int, reason: str) -> TooManyBadSamplesError:
        assert self.bad is not None
        peers = peers_of(self.source, index)
        broken = sum(other in peers for other in self.bad.indices())
        return TooManyBadSamplesError(
            f"{broken} of {len(peers)} {self.bad.split} samples cannot be read, which is more than the "
            f"{100 * MOST:.0f} % that data.on_error=skip passes over. They are listed in "
            f"{self.bad.file}; the last one: {reason}"
        )


def path_of(source: DepthDataset, index: int) -> str:
    """Path of sample `index` from the data set's own `path(index)`, if it has one."""
    path = getattr(source, "path", None)
    return str(path(index)) if path else f"sample {index}"


def peers_of(source: DepthDataset, index: int) -> range:
    """The samples of the data set that sample `index` belongs to: in a mixture, its part."""
    peers = getattr(source, "peers", None)
    return peers(index) if peers else range(len(source))


def same_aspect(image: tuple[int, ...], depth: tuple[int, ...]) -> bool:
    """Whether the two sizes (h, w) have the same aspect, up to rounding."""
    return abs(image[0] * depth[1] / (image[1] * depth[0]) - 1) <= ASPECT_TOLERANCE


def check_sample(sample: DepthSample) -> None:
    """Refuse a sample that cannot be trained on or evaluated, from any data set. Takes 0.1 ms.

    Raises:
        ValueError: see `check_arrays`; the image is smaller than `MIN_SIDE`, or its aspect differs from the target's.
    """
    check_arrays(sample)
    height, width, _ = sample.image.shape
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{sample.id}: expected an image of at least {MIN_SIDE}×{MIN_SIDE} pixels, with usable content, found "
            f"{height}×{width} (h×w). Take it out of the split."
        )
    depth_h, depth_w = sample.target.shape
    if not same_aspect((height, width), (depth_h, depth_w)):
        raise ValueError(
            f"{sample.id}: expected a target with the aspect of its image, found {depth_h}×{depth_w} for "
            f"{height}×{width} (h×w)."
        )


def check_arrays(sample: DepthSample) -> None:
    """Refuse a sample that does not match the description of `DepthSample`.

    Raises:
        ValueError: a wrong shape or dtype, non-finite values, valid depth that is not above 0, or intrinsics that no
            camera has.
    """
    image, target, mask, kind, id, *_ = sample
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
        raise ValueError(f"{id}: expected an image of (h, w, 3) uint8, found {image.shape} {image.dtype}.")
    if target.ndim != 2 or not target.size or target.dtype != np.float32:
        raise ValueError(f"{id}: expected a target of (h, w) float32, found {target.shape} {target.dtype}.")
    if mask.shape != target.shape or mask.dtype != np.bool_:
        raise ValueError(f"{id}: expected a mask of {target.shape} bool, found {mask.shape} {mask.dtype}.")
    lowest, highest = float(target.min()), float(target.max())  # NaN if any value is
    if not np.isfinite(lowest + highest):
        raise ValueError(f"{id}: expected finite values, and 0 where unknown, found {lowest} to {highest}.")
    if kind != DepthKind.DISPARITY and not ((target > 0) >= mask).all():
        raise ValueError(f"{id}: expected depth above 0 wherever the mask is True, found values from {lowest:g}.")
    camera = sample.intrinsics
    if camera.shape != (4,) or camera.dtype != np.float32:
        raise ValueError(f"{id}: expected intrinsics of (4,) float32, found {camera.shape} {camera.dtype}.")
    if not np.isnan(camera).all() and not (np.isfinite(camera).all() and (camera[:2] > 0).all()):
        raise ValueError(
            f"{id}: expected intrinsics [fx, fy, cx, cy] with focal lengths above 0, or NaN alone, found "
            f"{camera.tolist()}."
        )

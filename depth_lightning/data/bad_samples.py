"""What becomes of a sample that cannot be read: it ends the run, or is replaced, listed and counted."""

import csv
import errno
import io
import logging
import os
from pathlib import Path
from typing import Final, Literal

import numpy as np

from depth_lightning.atomic import explained
from depth_lightning.data.object_store import StorageError
from depth_lightning.sample import DepthDataset, DepthSample

log = logging.getLogger(__name__)

MOST: Final = 0.01
"""Share of a data set's samples that may be broken before the run ends."""
MIN_SIDE: Final = 14
"""Of an image, in pixels: one patch of the network. Blown up to its input size, less than that shows nothing."""
COLUMNS: Final = ("split", "index", "path", "reason")


class TooManyBadSamplesError(ValueError):
    """More samples are broken than a run may pass over."""


class BadSampleList:
    """The table of broken samples, a CSV that several processes add to.

    Args:
        file: appears with the first of them.
        split: whose samples are added here; the file holds those of all splits.
    """

    def __init__(self, file: Path, split: Literal["train", "val"]) -> None:
        self.file, self.split = file, split

    def add(self, index: int, path: str, reason: str) -> set[int]:
        """List sample `index`, once however often and by whomever it is added.

        Returns:
            The indices of this split's broken samples that are known by now.
        """
        import fcntl  # here: Windows has none, and trains without

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with explained(self.file), self.file.open("a+", newline="", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, by its end or the process's
            file.seek(0)
            known = self._indices(list(csv.DictReader(file)))
            if index not in known:
                size = os.fstat(file.fileno()).st_size
                writer = csv.writer(rows := io.StringIO())
                if not size:
                    writer.writerow(COLUMNS)
                writer.writerow((self.split, index, path, reason))
                content = rows.getvalue().encode()
                if os.write(file.fileno(), content) < len(content):  # whole rows only, also on a full disk
                    os.ftruncate(file.fileno(), size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                log.warning(f"Passed over ({self.split}, listed in {self.file}): {reason}")
        return known | {index}

    def indices(self) -> set[int]:
        """The indices of this split's broken samples."""
        if not self.file.is_file():
            return set()
        with self.file.open(newline="", encoding="utf-8") as file:
            return self._indices(list(csv.DictReader(file)))

    def _indices(self, rows: list[dict[str, str]]) -> set[int]:
        return {int(row["index"]) for row in rows if row["split"] == self.split}


class Samples:
    """The samples of a data set as loaders take them: checked, and where one cannot be read, as `bad` says.

    Args:
        source: the data set.
        bad: where broken samples are listed and passed over; None to let the first one's error through.

    Raises:
        OSError, ValueError: without `bad`, what is wrong with a sample.
        StorageError: storage does not answer, which is no sample's fault.
        TooManyBadSamplesError: with it, more than 1 % of the data set (of the part, in a mixture) are broken.
    """

    def __init__(self, source: DepthDataset, bad: BadSampleList | None = None) -> None:
        self.source, self.bad = source, bad

    def __len__(self) -> int:
        return len(self.source)

    def broken(self) -> int:
        """How many samples are listed as broken by now."""
        return len(self.bad.indices()) if self.bad is not None else 0

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index`, or in its place a stand-in without any truth.

        The stand-in has the broken sample's path for its id, and the next readable sample's image, so that its size
        goes with the others'. It has nothing to score, and evaluation counts it among what is left out.
        """
        sample = self._read(index)
        if sample is not None:
            return sample
        peers = peers_of(self.source, index)
        for step in range(1, len(peers)):
            other = self._read(peers[(index - peers.start + step) % len(peers)])
            if other is not None:
                empty = np.zeros_like(other.target), np.zeros_like(other.mask)
                return other._replace(target=empty[0], mask=empty[1], id=path_of(self.source, index), scene="")
        raise self._too_many(index, "no other sample can be read either")

    def draw(self, index: int, seed: int) -> DepthSample:
        """Sample `index`, or in its place another of the same data set, which `seed` alone chooses."""
        sample = self._read(index)
        if sample is not None:
            return sample
        for other in np.random.default_rng(seed).permutation(peers_of(self.source, index)).tolist():
            sample = self._read(other)
            if sample is not None:
                return sample
        raise self._too_many(index, "no other sample can be read either")

    def _read(self, index: int) -> DepthSample | None:
        """Sample `index`; None if it is broken and listed."""
        try:
            return _with_size(self.source[index])
        except StorageError:
            raise
        except (OSError, ValueError) as error:
            if self.bad is None:
                raise
            reason = " ".join(str(error).split())
            known = self.bad.add(index, path_of(self.source, index), reason)
            peers = peers_of(self.source, index)
            if sum(other in peers for other in known) > MOST * len(peers):
                raise self._too_many(index, reason) from error
            return None

    def _too_many(self, index: int, reason: str) -> TooManyBadSamplesError:
        assert self.bad is not None
        peers = peers_of(self.source, index)
        found = sum(other in peers for other in self.bad.indices())
        return TooManyBadSamplesError(
            f"{found} of {len(peers)} {self.bad.split} samples cannot be read, which is more than the {MOST:.0%} that "
            f"data.on_error=skip passes over. They are listed in {self.bad.file}; the last one: {reason}"
        )


def path_of(source: DepthDataset, index: int) -> str:
    """Where sample `index` is: what the data set's own `path(index)` says, if it has one."""
    path = getattr(source, "path", None)
    return str(path(index)) if path else f"sample {index}"


def peers_of(source: DepthDataset, index: int) -> range:
    """The samples that sample `index` is one of: in a mixture, those of its part."""
    peers = getattr(source, "peers", None)
    return peers(index) if peers else range(len(source))


def _with_size(sample: DepthSample) -> DepthSample:
    height, width = sample.image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{sample.id}: expected an image of at least {MIN_SIDE}×{MIN_SIDE} pixels, one patch of the network, found "
            f"{height}×{width} (h×w). Take it out of the split."
        )
    return sample

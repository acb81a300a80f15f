"""Shards of samples in a folder or in object storage, for data that does not fit on one disk.

The format is WebDataset's, but its reader is not used: it reads shards sequentially, which allows neither the exact
same order on any number of devices nor resuming in the middle of an epoch. Here every sample is read at its offset in
its shard.
"""

import errno
import hashlib
import os
import shutil
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from depth_lightning.data.object_store import ObjectStore, StorageError
from depth_lightning.data.reading import BrokenError, reading
from depth_lightning.data.shard_format import INDEX, Shard, Split, decode, digest, members, read_index
from depth_lightning.sample import DepthSample
from depth_lightning.settings import number, optional, text, whole_number


class DepthShards:
    """Shards written by `depth-lightning pack`.

    Args:
        root: a folder, or "s3://bucket/prefix".
        split: "train" or "val".
        window: number of shards that training mixes at a time; None for all. Fewer need less space and mix less.
        cache: folder for shards from object storage, shared by all processes of a machine. For shards in a folder it
            holds markers of those whose hashes were verified.
        cache_gb: largest size of the cache; the least recently used shard is deleted first.
        endpoint_url: see `ObjectStore`.

    Raises:
        SettingError: an argument is out of range.
        OSError: the index does not exist or may not be read.
        ValueError: the index is invalid, the split is empty, or the cache has no room for the window.
    """

    def __init__(
        self,
        root: str | Path,
        split: Split,
        window: int | None = 16,
        cache: str | Path = "~/.cache/depth_lightning/shards",
        cache_gb: float = 50,
        endpoint_url: str | None = None,
    ) -> None:
        self.store = ObjectStore(text("root", root, "a folder or s3://bucket/prefix"), endpoint_url)
        window = optional("window", window, partial(whole_number, otherwise=" null: all shards."))
        cache, cache_gb = text("cache", cache, "a path"), number("cache_gb", cache_gb, above=0)
        index = self.store.read_text(INDEX)
        self.shards = read_index(index, f"{root}/{INDEX}").get(split, [])
        if not self.shards:
            raise ValueError(f"{root}: the {split} split has no shards.")
        self.ends = np.cumsum([shard.samples for shard in self.shards])
        self.window = len(self.shards) if window is None else min(window, len(self.shards))
        largest = max(shard.bytes for shard in self.shards)
        needed = (self.window + 2) * largest / 1e9
        if self.store.remote and cache_gb < needed:
            raise ValueError(
                f"data.cache_gb={cache_gb:g} has no room for data.window={self.window} shards of "
                f"{largest / 1e9:.2g} GB and two in transfer. Give {needed:.2g}, or mix fewer."
            )
        name = hashlib.sha256(f"{root}\n{index}".encode(errors="surrogateescape")).hexdigest()[:16]
        self.cache, self.cache_bytes = Path(cache).expanduser() / name, int(cache_gb * 1e9)

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples; an epoch uses each once."""
        return len(self)

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index`; its shard is fetched first if necessary."""
        shard, number = self._place(index)
        while True:
            try:
                path = self._local(shard)
                places = _members(path, shard, self._mark(shard))[number]
                with path.open("rb") as file:
                    files = {key: _part(file, *place) for key, place in places.items()}
            except FileNotFoundError:
                if self.store.remote:  # another process has just made room
                    continue
                where = f"{self.store.root}/{shard.file}"
                raise FileNotFoundError(f"No file at {where}, which {INDEX} lists. Copy it again.") from None
            return decode(files, f"{path}, sample {number}")

    def path(self, index: int) -> str:
        """Address of sample `index`: its shard and its number in it."""
        shard, number = self._place(index)
        return f"{self.store.root}/{shard.file}:{number}"

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """The indices of one epoch: shards in random order, each spread over the span of `window` shards.

        At any time samples come from `window` shards, and new shards enter one by one: a shuffle buffer whose order
        depends on `rng` alone.
        """
        if self.window == len(self.shards):
            return rng.permutation(len(self))
        sizes = np.diff(self.ends, prepend=0)
        order = rng.permutation(len(sizes))
        starts = np.empty(len(sizes))
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
        spread = self.window * sizes.mean()
        return np.argsort(np.repeat(starts, sizes) + spread * rng.random(len(self)), kind="stable")

    def _place(self, index: int) -> tuple[Shard, int]:
        position = range(len(self))[index]
        number = int(np.searchsorted(self.ends, position, side="right"))
        return self.shards[number], position - int(self.ends[number]) + self.shards[number].samples

    def _local(self, shard: Shard) -> Path:
        if not self.store.remote:
            return Path(self.store.root).expanduser() / shard.file
        path = self.cache / shard.file
        if path.is_file():
            os.utime(path)
            return path
        try:
            self._fetch(shard, path)
        except StorageError:
            raise
        except OSError as error:  # from this machine's disk
            raise StorageError(
                f"{path}: {error.strerror or error}, for a shard of {shard.bytes / 1e9:.2g} GB. "
                "Choose another data.cache=…, or make room there."
            ) from error
        return path

    def _mark(self, shard: Shard) -> Path | None:
        """Marker file for a local shard whose hash was verified; None for remote ones, verified when fetched."""
        return None if self.store.remote else (self.cache / shard.file).with_suffix(".checked")

    def _fetch(self, shard: Shard, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with FileLock(path.with_suffix(".lock")):  # one process fetches it while the others wait
            if path.is_file():
                return
            for _ in range(2):  # retry once if it was damaged in transfer
                with partial.open("wb") as target:
                    self._reserve(target, shard.bytes)
                    self.store.download(shard.file, target, shard.bytes)
                if digest(partial) == shard.sha256:
                    with FileLock(self.cache / ".lock"):
                        partial.replace(path)
                    return
            partial.unlink()
            raise StorageError(
                f"{self.store.root}/{shard.file}: expected the content that {INDEX} describes, found another. "
                "Upload it again."
            )

    def _reserve(self, target: BinaryIO, size: int) -> None:
        """Extend `target` to its final size, deleting the least recently used shards until it fits."""
        with FileLock(self.cache / ".lock"):
            stored = [(path.stat(), path) for ending in ("tar", "partial") for path in self.cache.rglob(f"*.{ending}")]
            stored.sort(key=lambda item: item[0].st_mtime)
            total = sum(stat.st_size for stat, _ in stored) + size
            for stat, path in stored:
                if total <= self.cache_bytes:
                    break
                if path.suffix == ".tar" or _abandoned(path):
                    path.unlink()
                    total -= stat.st_size
            if size > shutil.disk_usage(self.cache).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            target.truncate(size)


def _part(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _abandoned(partial: Path) -> bool:
    """Whether the process that was fetching it was killed."""
    try:
        with FileLock(partial.with_suffix(".lock"), timeout=0):
            return True
    except Timeout:
        return False


@lru_cache(maxsize=64)
def _members(path: Path, shard: Shard, mark: Path | None) -> list[dict[str, tuple[int, int]]]:
    """`members` of a shard, after checking it."""
    if path.is_symlink() or path.parent.is_symlink():
        raise ValueError(f"{path}: expected a file below its folder, found a link. Copy what it links to in its place.")
    stat = path.stat()
    if stat.st_size != shard.bytes:
        raise ValueError(f"{path}: expected {shard.bytes} bytes, found {stat.st_size}. Copy it again.")
    if mark is not None:
        _check_content(path, shard.sha256, mark, stat.st_mtime_ns)
    samples = members(path)
    if len(samples) != shard.samples:
        raise ValueError(f"{path}: expected {shard.samples} samples, found {len(samples)}. Pack it again.")
    return samples


@cache
def _check_content(path: Path, sha256: str, mark: Path, changed_ns: int) -> None:
    """Verify the hash of a shard: once per process, or once per machine if a marker can be written.

    That takes as long as reading the shard, which happens next anyway. The marker has the shard's modification time.
    """

    def marked() -> bool:
        return mark.is_file() and mark.stat().st_mtime_ns == changed_ns

    if marked():
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(mark.with_suffix(".lock")):  # one process computes it while the others wait
            if not marked():
                _compare(path, sha256)
                mark.touch()
                os.utime(mark, ns=(changed_ns, changed_ns))
    except OSError:  # the cache cannot be written
        _compare(path, sha256)


def _compare(path: Path, sha256: str) -> None:
    with reading(path, "a shard"):
        if digest(path) != sha256:
            raise BrokenError(f"expected the content that {INDEX} describes, found another. Copy it again.")

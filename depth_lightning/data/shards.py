"""Shards of samples, from a folder or from object storage: for data that one disk does not hold.

The format is WebDataset's; its reader is not used, since it goes through shards from their beginning: neither the exact
order on any number of devices nor going on in the middle of an epoch could be kept. Here every sample is read by its
place in its shard.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np

from depth_lightning.data.object_store import ObjectStore
from depth_lightning.data.shard_format import INDEX, Shard, Split, decode, digest, members, read_index
from depth_lightning.sample import DepthSample

log = logging.getLogger(__name__)


class DepthShards:
    """What `python -m depth_lightning.commands.pack` wrote.

    Args:
        root: a folder, or "s3://bucket/prefix".
        split: "train" or "val".
        window: shards that training mixes at a time; None for all. Fewer need less room, and mix less.
        cache: folder for shards from object storage, which all processes of a machine share.
        cache_gb: most that they may take there; the one that was used longest ago goes first.
        endpoint_url: see `ObjectStore`.

    Raises:
        OSError: there is no index, or it may not be read.
        ValueError: it is another file, the split is empty, or the cache has no room for the window.
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
        self.store = ObjectStore(str(root), endpoint_url)
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
                f"{largest / 1e9:.2g} GB and two on their way. Give {needed:.2g}, or mix fewer."
            )
        name = hashlib.sha256(f"{root}\n{index}".encode()).hexdigest()[:16]
        self.cache, self.cache_bytes = Path(cache).expanduser() / name, int(cache_gb * 1e9)

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def samples_per_epoch(self) -> int:
        """All of them, once."""
        return len(self)

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index`; its shard is fetched first if need be."""
        shard, number = self._place(index)
        while True:
            path = self._local(shard)
            try:
                places = _members(path, shard.bytes)[number]
                with path.open("rb") as file:
                    files = {key: os.pread(file.fileno(), size, offset) for key, (offset, size) in places.items()}
            except FileNotFoundError:  # another process has just made room
                continue
            except IndexError as error:
                raise ValueError(f"{path}: expected {shard.samples} samples, found fewer. Pack it again.") from error
            return decode(files, f"{path}, sample {number}")

    def path(self, index: int) -> str:
        """Which sample of which shard it is."""
        shard, number = self._place(index)
        return f"{self.store.root}/{shard.file}:{number}"

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """The indices of one epoch: shards in a random order, each spread over the time that `window` of them take.

        At any time samples come from `window` shards, and one by one new ones come in: a shuffle buffer, whose order
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
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process fetches it, and the others wait
            if not path.is_file():
                self._make_room(shard.bytes)
                partial = path.with_suffix(".partial")
                self.store.download(shard.file, partial)
                if digest(partial) != shard.sha256:
                    raise ValueError(
                        f"{self.store.root}/{shard.file}: expected the content that {INDEX} describes, found another. "
                        "Upload it again."
                    )
                partial.replace(path)
        return path

    def _make_room(self, size: int) -> None:
        """Delete the shards that were used longest ago, until `size` bytes more are allowed."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = [(path.stat(), path) for path in self.cache.rglob("*.tar")]
            found.sort(key=lambda item: item[0].st_mtime)
            total = sum(stat.st_size for stat, _ in found) + size
            for stat, path in found:
                if total <= self.cache_bytes:
                    break
                path.unlink(missing_ok=True)
                total -= stat.st_size
            if size > shutil.disk_usage(self.cache).free:
                raise OSError(f"{self.cache}: no room for a shard of {size / 1e9:.2g} GB. Choose another data.cache=….")


@lru_cache(maxsize=64)
def _members(path: Path, size: int) -> list[dict[str, tuple[int, int]]]:
    if path.stat().st_size != size:
        raise ValueError(f"{path}: expected {size} bytes, found {path.stat().st_size}. Copy it again.")
    return members(path)

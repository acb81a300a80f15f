"""Write both splits of a data set into a few large files: `python -m depth_lightning pack data=… output=…`."""

import importlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from depth_lightning.data.bad_samples import BadSampleList, Samples, TooManyBadSamplesError, path_of
from depth_lightning.data.object_store import ObjectStore
from depth_lightning.data.shard_format import INDEX, Shard, Split, digest, encode, write_index
from depth_lightning.runs import objects
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.program import program
from depth_lightning.sample import DepthDataset

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(pack, cfg)


def pack(cfg: DictConfig) -> None:
    """Write the splits of `cfg.data` to `cfg.output`; the training split in an order that `cfg.seed` decides.

    In that order a shard shows many scenes. The index is written last: an output without one is not whole.

    Raises:
        FileExistsError: the output is there already.
        ValueError: a data set without depth maps.
    """
    check(cfg, "pack")
    objects.require_depth_maps(cfg.data)
    store = ObjectStore(cfg.output, cfg.endpoint_url)
    folder = None if store.remote else Path(cfg.output).expanduser()
    if store.has(INDEX) or (folder and folder.exists() and any(folder.iterdir())):
        raise FileExistsError(f"{cfg.output} exists already. Choose another output=…, or delete it.")
    data = objects.build_data(cfg)
    splits: dict[Split, list[Shard]] = {}
    for split in ("train", "val"):
        source = data.dataset(split=split)
        order = list(range(len(source)))
        if split == "train":
            order = np.random.default_rng(cfg.seed).permutation(len(source)).tolist()
        bad = BadSampleList(data.bad_samples, split) if data.bad_samples else None
        encoded = _read(source, order, cfg.compress, data.num_workers, bad)
        splits[split] = list(write_shards(track(encoded, f"Packing {split}", len(order)), split, store, cfg.shard_mb))
    index = write_index(splits, {"data": objects.plain(cfg.data), "seed": cfg.seed, "compress": cfg.compress})
    with _aside(store) as aside:
        path = Path(aside) / INDEX
        path.write_text(index)
        _deliver(path, INDEX, store)
    size = sum(shard.bytes for shards in splits.values() for shard in shards)
    counts = ", ".join(f"{split} {sum(shard.samples for shard in shards)}" for split, shards in splits.items())
    log.info(f"Packed into {cfg.output}: {counts} samples, {size / 1e9:.3g} GB")
    endpoint = f" data.endpoint_url={cfg.endpoint_url}" if cfg.endpoint_url else ""
    log.info(f"To train on it: python train.py data=shards data.root={cfg.output}{endpoint}")


class _Encoded(Dataset[dict[str, bytes] | tuple[int, str]]):
    """The files of each sample; of one that cannot be read and may be left out, its index and why."""

    def __init__(self, source: DepthDataset, order: Sequence[int], compress: bool, skip: bool) -> None:
        self.source, self.samples = source, Samples(source)
        self.order, self.compress, self.skip = order, compress, skip

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, bytes] | tuple[int, str]:
        index = self.order[position]
        try:
            return encode(self.samples[index], self.compress)
        except (OSError, ValueError) as error:
            if not self.skip:
                raise
            return index, " ".join(str(error).split())


def _read(
    source: DepthDataset, order: Sequence[int], compress: bool, num_workers: int, bad: BadSampleList | None
) -> Iterator[dict[str, bytes]]:
    """The files of the samples in their order.

    Raises:
        OSError, ValueError: a sample cannot be read, and `bad` is None.
        TooManyBadSamplesError: more cannot be read than a run would pass over.
    """
    data = _Encoded(source, order, compress, skip=bad is not None)
    for item in DataLoader(data, batch_size=None, num_workers=num_workers):
        if isinstance(item, dict):
            yield item
            continue
        index, reason = item
        assert bad is not None
        if len(bad.add(index, path_of(source, index), reason)) > max(1, 0.01 * len(source)):
            raise TooManyBadSamplesError(
                f"More than 1 % of the {bad.split} samples cannot be read, the most that data.on_error=skip leaves "
                f"out. They are listed in {bad.file}; the last one: {reason}"
            )


def write_shards(
    samples: Iterable[dict[str, bytes]], split: Split, store: ObjectStore, shard_mb: float
) -> Iterator[Shard]:
    """Write the samples into tar files of about `shard_mb` MB.

    Raises:
        ModuleNotFoundError: webdataset is not installed.
    """
    try:
        writer: Any = importlib.import_module("webdataset").TarWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Shards need webdataset: pip install 'depth-lightning[shards]'") from error
    remaining, number = iter(samples), 0
    following = next(remaining, None)
    with _aside(store) as aside:
        while following is not None:
            path, file = Path(aside) / "shard.tar", f"{split}/{number:06d}.tar"
            count = size = 0
            with path.open("wb") as stream, writer(stream, encoder=False, mtime=0) as archive:
                while following is not None and (not count or size < shard_mb * 1e6):
                    size += archive.write({"__key__": f"{number:06d}_{count:06d}", **following})
                    count += 1
                    following = next(remaining, None)
            shard = Shard(file, count, path.stat().st_size, digest(path))
            _deliver(path, file, store)
            yield shard
            number += 1


def _aside(store: ObjectStore) -> tempfile.TemporaryDirectory[str]:
    """A folder to write in, on the disk where the files belong."""
    if not store.remote:
        Path(store.root).expanduser().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=None if store.remote else Path(store.root).expanduser(), prefix=".partial_")


def _deliver(path: Path, file: str, store: ObjectStore) -> None:
    """Put a file that is whole where it belongs."""
    if store.remote:
        store.upload(path, file)
        return
    target = Path(store.root).expanduser() / file
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


if __name__ == "__main__":
    program("pack")

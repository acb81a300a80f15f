"""Write both splits of a data set into a few large files: `depth-lightning pack data=… output=…`."""

import io
import logging
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.progress import track
from torch.utils.data import Dataset

from depth_lightning.atomic import PARTIAL, atomically, write_text
from depth_lightning.data.bad_samples import BadSampleList, Samples, TooManyBadSamplesError, path_of
from depth_lightning.data.object_store import ObjectStore
from depth_lightning.data.shard_format import INDEX, Shard, Split, digest, encode, write_index
from depth_lightning.data.workers import Loader
from depth_lightning.invocation import command_line
from depth_lightning.runs import objects
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.program import program
from depth_lightning.sample import DepthDataset

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(pack, cfg, _kept)


def _kept(cfg: DictConfig) -> str:
    return f"{cfg.output} is incomplete, and no other command reads it. To start again, repeat the command."


def pack(cfg: DictConfig) -> None:
    """Write the splits of `cfg.data` to `cfg.output`, with the training split shuffled by `cfg.seed`.

    So every shard mixes many scenes. In a folder, the splits appear when both are complete, followed by the index. In
    object storage the index is written last, and an output without an index is incomplete.

    Raises:
        FileExistsError: the output exists already.
        ValueError: the data set has no depth maps.
    """
    check(cfg, "pack")
    objects.require_depth_maps(cfg.data)
    store = ObjectStore(cfg.output, cfg.endpoint_url)
    folder = None if store.remote else Path(cfg.output).expanduser()
    if store.has(INDEX) or (folder and folder.exists() and not _is_free(folder)):
        raise FileExistsError(f"{cfg.output} exists already. Choose another output=…, or delete it.")
    data = objects.build_data(cfg)
    splits: dict[Split, list[Shard]] = {}
    with ExitStack() as stack:
        for split in ("train", "val"):
            source = data.dataset(split=split)
            order = list(range(len(source)))
            if split == "train":
                order = np.random.default_rng(cfg.seed).permutation(len(source)).tolist()
            bad = BadSampleList(data.bad_samples, split) if data.bad_samples else None
            encoded = track(_read(source, order, cfg.compress, data.num_workers, bad), f"Packing {split}", len(order))
            aside = stack.enter_context(split_folder(store, split))
            splits[split] = list(write_shards(encoded, split, aside, store, cfg.shard_mb))
    index = write_index(splits, {"data": objects.plain(cfg.data), "seed": cfg.seed, "compress": cfg.compress})
    if folder:
        write_text(folder / INDEX, index)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / INDEX
            path.write_text(index, encoding="utf-8")
            store.upload(path, INDEX)
    size = sum(shard.bytes for shards in splits.values() for shard in shards)
    counts = ", ".join(f"{split} {sum(shard.samples for shard in shards)}" for split, shards in splits.items())
    log.info(f"Packed into {cfg.output}: {counts} samples, {size / 1e9:.3g} GB")
    endpoint = f" data.endpoint_url={cfg.endpoint_url}" if cfg.endpoint_url else ""
    log.info(f"To train on it: {command_line('train')} data=shards data.root={cfg.output}{endpoint}")


class _Encoded(Dataset[dict[str, bytes] | tuple[int, str]]):
    """The files of each sample; for an unreadable sample that may be skipped, its index and the reason."""

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
    """The files of the samples, in the given order.

    Raises:
        OSError, ValueError: a sample cannot be read, and `bad` is None.
        TooManyBadSamplesError: more samples cannot be read than a run would skip.
    """
    data = _Encoded(source, order, compress, skip=bad is not None)
    for item in Loader(data, batch_size=None, num_workers=num_workers):
        if isinstance(item, dict):
            yield item
            continue
        index, reason = item
        assert bad is not None
        if len(bad.add(index, path_of(source, index), reason)) > max(1, 0.01 * len(source)):
            raise TooManyBadSamplesError(
                f"More than 1 % of the {bad.split} samples cannot be read, the most that data.on_error=skip skips. "
                f"They are listed in {bad.file}; the last one: {reason}"
            )


@contextmanager
def split_folder(store: ObjectStore, split: Split) -> Iterator[Path]:
    """A folder to write a split's shards into; on a disk, it becomes the split's folder if no error occurs."""
    if store.remote:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    with atomically(Path(store.root).expanduser() / split) as folder:
        folder.mkdir()
        yield folder


def write_shards(
    samples: Iterable[dict[str, bytes]], split: Split, folder: Path, store: ObjectStore, shard_mb: float
) -> Iterator[Shard]:
    """Write the samples into tar files of about `shard_mb` MB in `folder`, and upload them if `store` is remote.

    The same samples give the same bytes.
    """
    remaining, number = iter(samples), 0
    following = next(remaining, None)
    while following is not None:
        path = folder / f"{number:06d}.tar"
        count = size = 0
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            while following is not None and (not count or size < shard_mb * 1e6):
                for extension, content in following.items():
                    member = tarfile.TarInfo(f"{number:06d}_{count:06d}.{extension}")  # of user 0, at time 0
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                    size += member.size
                count += 1
                following = next(remaining, None)
        shard = Shard(f"{split}/{path.name}", count, path.stat().st_size, digest(path))
        if store.remote:
            store.upload(path, shard.file)
            path.unlink()
        yield shard
        number += 1


def _is_free(folder: Path) -> bool:
    """Whether the folder is empty except for leftovers of a killed pack, which the next pack removes."""
    return all(path.name.startswith(PARTIAL) for path in folder.iterdir())


if __name__ == "__main__":
    program("pack")

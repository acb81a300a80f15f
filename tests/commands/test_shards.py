"""Shards: what was packed comes back, in an order that the seed decides, from a folder and from object storage."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from depth_lightning.commands.packing import pack, write_shards
from depth_lightning.data import NYUDepthV2
from depth_lightning.data.object_store import ObjectStore
from depth_lightning.data.sampling import Draw, TrainSampler
from depth_lightning.data.shard_format import decode, encode, write_index
from depth_lightning.data.shards import DepthShards
from depth_lightning.sample import DepthKind, DepthSample

webdataset = pytest.importorskip("webdataset", reason="needs the extra shards")


def sample(number: int, kind: DepthKind = DepthKind.METRES) -> DepthSample:
    rng = np.random.default_rng(number)
    target = rng.uniform(0.5, 9, (20, 30)).astype(np.float32)
    mask = rng.random((20, 30)) > 0.3
    target[~mask] = 0
    target[0, 0], mask[0, 0] = 0, True  # the sky of a disparity: 0, and valid
    return DepthSample(
        rng.integers(0, 256, (20, 30, 3), np.uint8), target, mask, kind, f"s/é.{number}.png", f"s{number}"
    )


def equal(one: DepthSample, other: DepthSample) -> bool:
    arrays = all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one[:3], other[:3], strict=True))
    return arrays and one[3:] == other[3:]


def packed(root: str, numbers: range, shard_mb: float = 0.015, endpoint_url: str | None = None) -> ObjectStore:
    store = ObjectStore(root, endpoint_url)
    shards = list(write_shards((encode(sample(number)) for number in numbers), "train", store, shard_mb))
    index = write_index({"train": shards}, {})
    if store.remote:
        store._do("put_object", Bucket=root.split("/")[2], Key=store._place("index.json")[1], Body=index.encode())
    else:
        (Path(root) / "index.json").write_text(index)
    return store


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a server on the loopback, with a bucket named data."""
    server = pytest.importorskip("moto.server", reason="needs moto").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    ObjectStore("s3://data", url)._do("create_bucket", Bucket="data")
    yield url
    server.stop()
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        del os.environ[key]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", DepthKind)
def test_nothing_is_lost(compress: bool, kind: DepthKind) -> None:
    assert equal(decode(encode(sample(3, kind), compress), "here"), sample(3, kind))


def test_every_sample_is_found_and_webdataset_finds_the_same(tmp_path: Path) -> None:
    packed(str(tmp_path), range(23))
    shards = DepthShards(tmp_path, "train")
    assert len(shards.shards) >= 4
    assert all(equal(shards[number], sample(number)) for number in range(23))
    with pytest.raises(IndexError):
        shards[23]
    files = [str(tmp_path / shard.file) for shard in shards.shards]
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    assert len(theirs) == 23
    for number, item in enumerate(theirs):
        assert equal(decode({key: item[key] for key in item if not key.startswith("__")}, ""), sample(number))


def test_the_order_mixes_a_window_and_has_every_sample_once(tmp_path: Path) -> None:
    packed(str(tmp_path), range(60), shard_mb=0.01)
    shards = DepthShards(tmp_path, "train", window=3)
    count = len(shards.shards)
    assert count > 12
    order = shards.epoch_order(np.random.default_rng(7))
    assert sorted(order) == list(range(60))
    assert np.array_equal(order, shards.epoch_order(np.random.default_rng(7)))
    assert not np.array_equal(order, shards.epoch_order(np.random.default_rng(8)))
    of_shard = np.searchsorted(shards.ends, order, side="right")
    firsts, lasts = (np.array([np.flatnonzero(of_shard == n)[end] for n in range(count)]) for end in (0, -1))
    at_a_time = [((firsts <= now) & (now <= lasts)).sum() for now in range(60)]
    assert max(at_a_time) <= 4 and np.mean(at_a_time) > 1.5
    everything = DepthShards(tmp_path, "train", window=None).epoch_order(np.random.default_rng(7))
    assert np.array_equal(everything, np.random.default_rng(7).permutation(60))


def test_object_storage_gives_the_same_within_its_cache(s3: str, tmp_path: Path) -> None:
    packed("s3://data/a/b", range(40), endpoint_url=s3)
    largest = 41_000
    remote = DepthShards("s3://data/a/b/", "train", 2, tmp_path / "cache", 5 * largest / 1e9, s3)
    assert len(remote.shards) > 6
    order = remote.epoch_order(np.random.default_rng(0)).tolist()
    for index in order:
        assert equal(remote[index], sample(index))
        assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.tar")) <= 5 * largest
    packed(str(tmp_path / "local"), range(40))
    local = DepthShards(tmp_path / "local", "train", 2)
    assert local.epoch_order(np.random.default_rng(0)).tolist() == order


def test_what_object_storage_says_is_passed_on(s3: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"s3://none/a at http.*NoSuchBucket.*data\.root"):
        DepthShards("s3://none/a", "train", endpoint_url=s3)
    store = packed("s3://data/damaged", range(3), endpoint_url=s3)
    with pytest.raises(ValueError, match=r"cache_gb=1e-05 has no room for data\.window=\d shards"):
        DepthShards("s3://data/damaged", "train", None, tmp_path, 1e-5, s3)
    remote = DepthShards("s3://data/damaged", "train", None, tmp_path, 1, s3)
    store._do("put_object", Bucket="data", Key="damaged/train/000000.tar", Body=b"another")
    with pytest.raises(ValueError, match=r"000000\.tar: expected the content that index\.json describes"):
        remote[0]
    assert not list(tmp_path.rglob("*.tar"))


def _cut(root: Path) -> None:
    shard = root / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-2000])


def _other_index(root: Path) -> None:
    (root / "index.json").write_text(json.dumps({"format": "another", "splits": {}}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_cut, r"000000\.tar: expected \d+ bytes, found \d+"),
        (_other_index, r"index\.json: expected the index of .*found the format 'another'"),
        (lambda root: (root / "index.json").unlink(), r"No file at .*index\.json\. Does data\.root"),
    ],
)
def test_what_is_wrong_is_said(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    packed(str(tmp_path), range(3))
    harm(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DepthShards(tmp_path, "train")[0]
    packed(str(tmp_path / "fresh"), range(3))
    with pytest.raises(ValueError, match="val split has no shards"):
        DepthShards(tmp_path / "fresh", "val")


def test_real_frames_are_packed_by_the_command(realdata: Path, compose_config: Callable, tmp_path: Path) -> None:
    output = tmp_path / "packed"
    overrides = [f"data.root={realdata / 'nyu_h5'}", f"output={output}", "shard_mb=5", "data.num_workers=0"]
    cfg = compose_config("pack", overrides, tmp_path)
    pack(cfg)
    for split in ("train", "val"):
        source = NYUDepthV2(realdata / "nyu_h5", split)
        by_id = {s.id: s for s in (source[index] for index in range(len(source)))}
        shards = DepthShards(output, split)
        assert len(shards) == len(source)
        assert all(equal(s, by_id.pop(s.id)) for s in (shards[index] for index in range(len(shards))))
    before = hashlib.sha256((output / "index.json").read_bytes()).hexdigest()
    with pytest.raises(FileExistsError, match="exists already"):
        pack(cfg)
    assert hashlib.sha256((output / "index.json").read_bytes()).hexdigest() == before


def test_the_order_is_elastic_and_goes_on(tmp_path: Path) -> None:
    packed(str(tmp_path), range(60), shard_mb=0.01)
    shards = DepthShards(tmp_path, "train", window=3)

    def batches(world_size: int, resumed: int = 0) -> list[set[Draw]]:
        ranks = [TrainSampler(60, 5, 8, rank, world_size, shards.epoch_order) for rank in range(world_size)]
        for sampler in ranks:
            sampler.set_epoch(2)
            sampler.resume(2, resumed)
        drawn = [list(sampler) for sampler in ranks]
        each = 8 // world_size
        return [{d for rank in drawn for d in rank[n : n + each]} for n in range(0, len(drawn[0]), each)]

    one = batches(1)
    assert len(one) == 7 and all(len(batch) == 8 for batch in one)
    assert batches(2) == batches(4) == one
    assert batches(2, resumed=24) == one[3:]

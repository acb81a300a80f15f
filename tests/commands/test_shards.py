"""Shards: what was packed comes back, in an order that the seed decides, from a folder and from object storage."""

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from depth_lightning import atomic
from depth_lightning.commands.pack import pack, split_folder, write_shards
from depth_lightning.data import NYUDepthV2, object_store
from depth_lightning.data.bad_samples import BadSampleList, Samples
from depth_lightning.data.object_store import ObjectStore, StorageError
from depth_lightning.data.sampling import TrainSampler
from depth_lightning.data.shard_format import decode, encode, write_index
from depth_lightning.data.shards import DepthShards
from depth_lightning.sample import DepthKind, DepthSample

if TYPE_CHECKING:
    pass


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def sample(number, kind=DepthKind.METRES):
    rng = np.random.default_rng(number)
    target = rng.uniform(0.5, 9, (20, 30)).astype(np.float32)
    mask = rng.random((20, 30)) > 0.3
    target[~mask] = 0
    target[0, 0], mask[0, 0] = 0, True  # the sky of a disparity: 0, and valid
    return DepthSample(
        rng.integers(0, 256, (20, 30, 3), np.uint8), target, mask, kind, f"s/é.{number}.png", f"s{number}"
    )


def equal(one, other):
    arrays = all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one[:3], other[:3], strict=True))
    return arrays and one[3:-1] == other[3:-1] and np.array_equal(one[-1], other[-1], equal_nan=True)


def packed(root, numbers, shard_mb=0.015, endpoint_url=None):
    store = ObjectStore(root, endpoint_url)
    encoded = (encode(sample(number)) for number in numbers)
    with split_folder(store, "train") as folder:
        shards = list(write_shards(encoded, "train", folder, store, shard_mb))
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index.json"
        index.write_text(write_index({"train": shards}, {}))
        if store.remote:
            store.upload(index, "index.json")
        else:
            shutil.copy(index, root)
    return store


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("moto.server", reason="needs moto")
    from object_server import object_server

    with object_server() as server:
        yield server


@pytest.fixture
def s3(server, monkeypatch):
    """The endpoint of a server on the loopback, with a bucket named data; nobody waits for it for long."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(object_store, "WAITS_S", (0.01, 0.01, 0.01))
    return server.url


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", DepthKind)
def test_nothing_is_lost(compress, kind):
    assert equal(decode(encode(sample(3, kind), compress), "here"), sample(3, kind))


def test_every_sample_is_found(tmp_path):
    packed(str(tmp_path), range(23))
    shards = DepthShards(tmp_path, "train")
    assert len(shards.shards) >= 4
    assert all(equal(shards[number], sample(number)) for number in range(23))
    with pytest.raises(IndexError):
        shards[23]


def test_the_same_samples_make_the_same_bytes(tmp_path):
    for folder in ("one", "other"):
        packed(str(tmp_path / folder), range(5))
    one, other = (sorted((tmp_path / folder).rglob("*.tar")) for folder in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other] and one
    with tarfile.open(one[0]) as archive:
        members = archive.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    keys = [member.name.partition(".")[0] for member in members]
    assert keys == sorted(keys) and keys[:3] == 3 * ["000000_000000"]  # of a sample side by side, as webdataset wants


def test_webdataset_reads_the_same(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    packed(str(tmp_path), range(23))
    files = [str(path) for path in sorted(tmp_path.rglob("*.tar"))]
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    assert len(theirs) == 23
    for number, item in enumerate(theirs):
        assert equal(decode({key: item[key] for key in item if not key.startswith("__")}, ""), sample(number))


def test_the_order_mixes_a_window_and_has_every_sample_once(tmp_path):
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


def test_object_storage_gives_the_same_within_its_cache(s3, tmp_path):
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


def test_what_object_storage_says_is_passed_on(s3, tmp_path):
    with pytest.raises(StorageError, match=r"s3://none/a/index\.json at http.*NoSuchBucket.*data\.root"):
        DepthShards("s3://none/a", "train", endpoint_url=s3)
    with pytest.raises(StorageError, match=r"Could not connect to the endpoint URL.*data\.root"):
        DepthShards("s3://data/a", "train", endpoint_url="http://127.0.0.1:1")
    store = packed("s3://data/damaged", range(3), endpoint_url=s3)
    with pytest.raises(ValueError, match=r"cache_gb=1e-05 has no room for data\.window=\d shards"):
        DepthShards("s3://data/damaged", "train", None, tmp_path, 1e-5, s3)
    remote = DepthShards("s3://data/damaged", "train", None, tmp_path, 1, s3)
    another = tmp_path / "another"
    another.write_bytes(b"another")
    store.upload(another, "train/000000.tar")
    with pytest.raises(StorageError, match=r"000000\.tar: expected the content that index\.json describes"):
        remote[0]
    assert not list(tmp_path.rglob("*.tar"))


@pytest.fixture
def remote(s3, server, tmp_path):
    """Samples 0 to 39 in more than six shards; the cache has room for five."""
    packed("s3://data/remote", range(40), endpoint_url=s3)
    yield DepthShards("s3://data/remote", "train", 2, tmp_path / "cache", 5 * 41_000 / 1e9, s3)
    server.answers.clear()


def test_storage_in_trouble_is_waited_for(remote, server, caplog):
    from object_server import cut, garble, refuse

    server.answers += [refuse, cut, refuse]
    assert equal(remote[0], sample(0))
    server.answers += [garble]
    assert equal(remote[39], sample(39))
    assert not server.answers
    assert f"s3://data/remote/{remote.shards[0].file} at {server.url}: " in caplog.text
    assert caplog.text.count("Trying again in 0.01 s.") == 3  # what is cut short boto3 gets again by itself


def test_storage_that_stays_away_ends_a_run_and_blames_no_sample(remote, server, tmp_path):
    from object_server import cut, refuse

    bad = BadSampleList(tmp_path / "bad_samples.csv", "train")
    for answer in (refuse, cut):
        server.answers[:] = 20 * [answer]
        with pytest.raises(StorageError, match=r"remote/train/000000\.tar at http.*All retries failed"):
            Samples(remote, bad)[0]
    server.answers.clear()
    ObjectStore(remote.store.root, server.url)._client().delete_object(Bucket="data", Key="remote/train/000000.tar")
    with pytest.raises(StorageError, match=r"remote/train/000000\.tar at http.*404.*data\.root"):
        Samples(remote, bad)[0]
    assert not bad.file.exists()


def test_a_cache_that_cannot_be_written_is_named(remote, tmp_path, monkeypatch):
    full = rf"cache/.*000000\.tar: {os.strerror(errno.ENOSPC)}, for a shard of .* GB\. Choose another data\.cache"
    with monkeypatch.context() as patch, pytest.raises(StorageError, match=full):
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
        remote[0]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match=rf"000000\.tar: {os.strerror(errno.EFBIG)}.*data\.cache"):
            remote[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert equal(remote[0], sample(0))
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match=rf"000000\.tar: {os.strerror(errno.ENOTDIR)}.*data\.cache"):
        remote[0]


def test_what_a_killed_process_left_makes_room(remote, server, tmp_path):
    from object_server import slowly

    def kept():
        return [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".tar", ".partial")]

    server.answers += 4 * [slowly(0.2)]
    for count, number in enumerate((0, 10, 20, 30), 1):
        process = multiprocessing.get_context("fork").Process(target=remote.__getitem__, args=(number,))
        process.start()
        while len(kept()) < count or len(server.answers) > 4 - count:
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
    assert {path.suffix for path in kept()} == {".partial"}
    for number in range(40):
        assert equal(remote[number], sample(number))
        assert sum(path.stat().st_size for path in kept()) <= remote.cache_bytes
    assert {path.suffix for path in kept()} == {".tar"}


def test_what_another_process_fetches_is_left_alone(remote, server, tmp_path):
    """It counts as what it will be, and takes the place of what is there."""
    from object_server import slowly

    server.answers += [slowly(0.5)]
    process = multiprocessing.get_context("fork").Process(target=remote.__getitem__, args=(0,))
    process.start()
    while server.answers:
        assert process.is_alive()
        time.sleep(0.01)
    (partial,) = (tmp_path / "cache").rglob("*.partial")
    for number in range(6, 40):
        remote[number]
        shards = list((tmp_path / "cache").rglob("*.tar"))
        assert sum(path.stat().st_size for path in [*shards, partial]) <= remote.cache_bytes
    assert process.is_alive() and partial.stat().st_size == remote.shards[0].bytes
    process.join()
    assert process.exitcode == 0


def test_a_process_that_is_forked_has_its_own_connections(remote):
    own, there = remote.store._client(), multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=lambda: there.put(id(remote.store._client())))
    process.start()
    assert there.get() != id(own)
    process.join()
    assert remote.store._client() is own


def _cut(root):
    shard = root / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-2000])


def _other_index(root):
    (root / "index.json").write_text(json.dumps({"format": "another", "splits": {}}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_cut, r"000000\.tar: expected \d+ bytes, found \d+"),
        (_other_index, r"index\.json: expected the index of .*found the format 'another'"),
        (lambda root: (root / "train" / "000000.tar").unlink(), r"No file at .*000000\.tar, which index\.json lists"),
        (lambda root: (root / "index.json").unlink(), r"No file at .*index\.json\. Does data\.root"),
    ],
)
def test_what_is_wrong_is_said(harm, message, tmp_path):
    packed(str(tmp_path), range(3))
    harm(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DepthShards(tmp_path, "train")[0]
    packed(str(tmp_path / "fresh"), range(3))
    with pytest.raises(ValueError, match="val split has no shards"):
        DepthShards(tmp_path / "fresh", "val")


def test_real_frames_are_packed_by_the_command(realdata, compose_config, tmp_path):
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


def test_the_order_is_elastic_and_goes_on(tmp_path):
    packed(str(tmp_path), range(60), shard_mb=0.01)
    shards = DepthShards(tmp_path, "train", window=3)

    def batches(world_size, resumed=0):
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


def test_a_pack_that_ended_early_is_not_in_the_way_of_the_next(compose_config, tmp_path, monkeypatch):
    output, done = tmp_path / "packed", 0
    overrides = ["data=rooms", f"data.root={tmp_path}", "data.train_images=5", "data.val_images=3"]
    cfg = compose_config("pack", [*overrides, f"output={output}"], tmp_path)

    def at_the_last(meanwhile):
        def counting(sample, compress):
            nonlocal done
            done += 1
            if done == 8:
                meanwhile()
            return encode(sample, compress)

        monkeypatch.setattr("depth_lightning.commands.pack.encode", counting)

    def interrupt():
        raise KeyboardInterrupt

    at_the_last(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(cfg)
    assert done == 8 and not list(output.iterdir())

    killed = output / f".partial-{atomic._machine()}-999999999-000000-0-train"
    killed.mkdir()
    (killed / "000000.tar").write_bytes(b"half")
    monkeypatch.undo()
    atomic._remove_abandoned.cache_clear()  # as in a new process
    pack(cfg)
    assert sorted(path.name for path in output.iterdir()) == ["index.json", "train", "val"]
    assert [len(DepthShards(output, split)) for split in ("train", "val")] == [5, 3]

    shutil.rmtree(output)
    done = 0

    def another():
        monkeypatch.undo()
        pack(cfg)

    at_the_last(another)
    with pytest.raises(FileExistsError, match=rf"{output}/val exists: another process has written it meanwhile"):
        pack(cfg)
    assert sorted(path.name for path in output.iterdir()) == ["index.json", "train", "val"]
    assert [len(DepthShards(output, split)) for split in ("train", "val")] == [5, 3]
    assert len(DepthShards(output, "train")[0].image) == 84

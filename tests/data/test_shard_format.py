"""Shards that are not what their index says, and indices that name what is none of theirs."""

import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest

from depth_lightning.data import shards as shards_module
from depth_lightning.data.bad_samples import BadSampleList, Samples
from depth_lightning.data.shard_format import Shard, encode, read_index, write_index
from depth_lightning.data.shards import DepthShards
from depth_lightning.sample import DepthKind, DepthSample

H, W = 28, 42


def sample(number):
    rng = np.random.default_rng(number)
    target = rng.uniform(1, 9, (H, W)).astype(np.float32)
    image = rng.integers(0, 256, (H, W, 3), np.uint8)
    return DepthSample(image, target, np.ones((H, W), bool), DepthKind.METRES, f"{number}.png", "s")


def npy(array, **options):
    packed = io.BytesIO()
    np.save(packed, array, **options)
    return packed.getvalue()


def tar(samples):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number, files in enumerate(samples):
            for extension, content in files.items():
                member = tarfile.TarInfo(f"000000_{number:06}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def entry(content, samples, file="train/000000.tar"):
    return Shard(file, samples, len(content), hashlib.sha256(content).hexdigest())


def write(root, content, samples):
    (root / "train").mkdir(parents=True, exist_ok=True)
    (root / "train/000000.tar").write_bytes(content)
    (root / "index.json").write_text(write_index({"train": [entry(content, samples)]}, {}))
    return DepthShards(root, "train", cache=root / "cache")


@pytest.fixture
def whole():
    return tar([encode(sample(number), compress=number % 2 == 0) for number in range(3)])


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../x.tar"},
        {"file": "/etc/x.tar"},
        {"file": "train/../train/000000.tar"},
        {"file": "train//000000.tar"},
        {"file": "./train/000000.tar"},
        {"file": "val/000000.tar"},
        {"file": "train/a.tar"},
        {"file": "train/٣.tar"},
        {"file": "train/000000.tar\n"},
        {"file": "train"},
        {"file": ""},
        {"file": 5},
        {"file": None},
        {"bytes": "x"},
        {"bytes": 0},
        {"bytes": -5},
        {"bytes": True},
        {"bytes": 2**62},
        {"bytes": 1e5},
        {"samples": 0},
        {"samples": -5},
        {"samples": "3"},
        {"samples": 3.5},
        {"samples": True},
        {"samples": 10**12},
        {"samples": 10**30},
        {"sha256": "0"},
        {"sha256": 5},
        {"sha256": "G" * 64},
        {"colour": "x"},
    ],
    ids=str,
)
def test_an_index_names_only_its_own_shards_with_numbers_that_can_be(change, tmp_path, whole):
    write(tmp_path, whole, 3)
    listed = json.loads((tmp_path / "index.json").read_text())
    listed["splits"]["train"][0] |= change
    (tmp_path / "index.json").write_text(json.dumps(listed))
    expected = r"expected (train/<number>\.tar with the numbers of its samples and bytes|the index of)"
    with pytest.raises(ValueError, match=rf"^{tmp_path}/index\.json: {expected}"):
        DepthShards(tmp_path, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "train"]


def index(splits):
    return f'{{"format": "depth_lightning shards 1", "splits": {splits}}}'


OUTSIDE = f'{{"../x": [{{"file": "../x/0.tar", "samples": 1, "bytes": 9999, "sha256": "{"0" * 64}"}}]}}'
NO_INDICES = [
    *("", "[]", "null", "{}", "5", '"a"', "[" * 100_000, '{"format"', '{"format": "v9", "splits": {}}'),
    *map(index, ("[]", '{"train": 3}', '{"train": [3]}', '{"train": [{}]}', OUTSIDE)),
    index('{"train": [{"bytes": ' + "9" * 5000 + "}]}"),
]


@pytest.mark.parametrize("content", NO_INDICES, ids=lambda content: content[-50:])
def test_an_index_that_is_none(content):
    with pytest.raises(ValueError, match=r"^there/index\.json: expected .*Pack it again\.$"):
        read_index(content, "there/index.json")


def test_a_shard_is_listed_once(whole):
    twice = write_index({"train": [entry(whole, 3), entry(whole, 3)]}, {})
    with pytest.raises(ValueError, match=r"expected each shard once, found train/000000\.tar several times"):
        read_index(twice, "there")


def test_shards_are_no_links(tmp_path, whole):
    write(tmp_path / "elsewhere", whole, 3)
    for name, target in (("a", "train"), ("b", "train/000000.tar")):
        data = write(tmp_path / name, whole, 3)
        if target.endswith("tar"):
            (tmp_path / name / target).unlink()
        else:
            (tmp_path / name / "train").rename(tmp_path / name / "moved")
        (tmp_path / name / target).symlink_to(tmp_path / "elsewhere" / target)
        with pytest.raises(ValueError, match=r"train/000000\.tar: expected a file below its folder, found a link"):
            data[0]
    (tmp_path / "c").symlink_to(tmp_path / "elsewhere")  # the data set itself may lie elsewhere
    assert DepthShards(tmp_path / "c", "train", cache=tmp_path / "cache")[0].id == "0.png"


def test_local_shards_are_compared_with_their_hash_once_on_a_machine(tmp_path, whole, monkeypatch):
    compared = []

    def digest(path):
        compared.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def of_another_process():
        shards_module._members.cache_clear()
        shards_module._check_content.cache_clear()
        return DepthShards(tmp_path, "train", cache=tmp_path / "cache")

    monkeypatch.setattr(shards_module, "digest", digest)
    data = write(tmp_path, whole, 3)
    assert [data[number].id for number in range(3)] == ["0.png", "1.png", "2.png"]
    assert of_another_process()[1].id == "1.png"
    assert len(compared) == 1
    path = tmp_path / "train/000000.tar"
    os.utime(path, (1, 1))
    assert of_another_process()[1].id == "1.png"
    assert len(compared) == 2
    path.write_bytes(whole[:1000] + bytes(8) + whole[1008:])
    with pytest.raises(ValueError, match=r"train/000000\.tar: expected the content that index\.json describes, found"):
        of_another_process()[1]
    path.write_bytes(whole[:-512])
    with pytest.raises(ValueError, match=rf"000000\.tar: expected {len(whole)} bytes, found {len(whole) - 512}\. Copy"):
        of_another_process()[1]


def test_where_nothing_can_be_marked_each_process_compares(tmp_path, whole, monkeypatch):
    (tmp_path / "cache").write_text("a file, where no folder can be made")
    data = write(tmp_path, whole, 3)
    assert data[0].id == "0.png"
    shards_module._members.cache_clear()
    monkeypatch.setattr(shards_module, "digest", lambda path: pytest.fail("compared again"))
    assert data[0].id == "0.png"
    shards_module._check_content.cache_clear()
    shards_module._members.cache_clear()
    monkeypatch.setattr(shards_module, "digest", lambda path: "0" * 64)
    with pytest.raises(ValueError, match=r"expected the content that index\.json describes"):
        data[0]


def header(**fields):
    member = tarfile.TarInfo("000000_000000.image.npy")
    for name, value in fields.items():
        setattr(member, name, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def endless():
    """A member of negative size, at which Python's tarfile goes round in circles."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("000000_000000.json")
        member.pax_headers = {"size": "-2048"}
        archive.addfile(member)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(size=2**62) + bytes(2048), "expected a tar file, found one whose members overlap or go beyond its end"),
        (endless(), "expected a tar file, found one"),
        (b"hello" * 500, "expected a tar file, found one that is cut short or damaged"),
        (bytes(10240), "expected 1 samples, found 0. Pack it again."),
    ],
    ids=["huge", "negative", "text", "zeros"],
)
def test_tar_files_that_are_none(content, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        write(tmp_path, content, 1)[0]
    assert str(caught.value).startswith(f"{tmp_path}/train/000000.tar: {message}")


def test_tar_files_with_other_than_their_samples(tmp_path, whole):
    for count in (2, 4):
        with pytest.raises(ValueError, match=rf"000000\.tar: expected {count} samples, found 3\. Pack it again"):
            write(tmp_path / str(count), whole, count)[0]
    cut = whole[: len(whole) // 2]
    with pytest.raises(ValueError, match=r"000000\.tar: expected a tar file, found one"):
        write(tmp_path / "cut", cut, 3)[0]


GOOD = {
    "image.npy": npy(np.zeros((H, W, 3), np.uint8)),
    "target.npy": npy(np.ones((H, W), np.float32)),
    "json": b'{"id":"a","scene":"s","kind":"METRES"}',
}


def with_target(array, **options):
    return {**GOOD, "target.npy": npy(array, **options)}


def with_image(array):
    return {**GOOD, "image.npy": npy(array)}


SAMPLES = [
    ({"json": GOOD["json"]}, r"sample 0: expected the files of a sample among \['json'\], found one that is cut short"),
    ({**GOOD, "json": b"[1]"}, "sample 0: expected the files of a sample"),
    ({**GOOD, "json": b"[" * 100_000}, "sample 0: expected the files of a sample .*recursion"),
    ({**GOOD, "json": b'{"id":"a","scene":"s","kind":["METRES"]}'}, "sample 0: expected the files of a sample"),
    (
        {**GOOD, "json": b'{"id":null,"scene":5,"kind":"METRES"}'},
        "sample 0: expected id and scene as text, found None and 5",
    ),
    ({**GOOD, "json": b'{"id":"a","scene":"s","kind":"INCHES"}'}, "sample 0: expected the files of a sample .*INCHES"),
    (with_image(np.zeros((H, W, 3))), r"a: expected an image of \(h, w, 3\) uint8, found \(28, 42, 3\) float64"),
    (with_image(np.zeros((H, W), np.uint8)), r"a: expected an image of \(h, w, 3\) uint8, found \(28, 42\) uint8"),
    (with_image(np.zeros(5, np.uint8)), r"sample 0: expected one value per pixel, \(h, w\), found an array of \(5,\)"),
    (with_target(np.ones((H, W, 2), np.float32)), r"sample 0: expected one value per pixel, .* \(28, 42, 2\)"),
    (
        with_target(np.ones((14, 99), np.float32)),
        "a: expected a target with the aspect of its image, found 14×99 for 28×42",
    ),
    (with_target(np.ones((H, W), int)), r"a: expected a target of \(h, w\) float32, found \(28, 42\) int64"),
    (
        with_target(np.full((H, W), -np.inf, np.float32)),
        "a: expected finite values, and 0 where unknown, found -inf to -inf",
    ),
    (
        with_target(np.full((H, W), np.inf, np.float32)),
        "a: expected finite values, and 0 where unknown, found inf to inf",
    ),
    (
        with_target(np.full((H, W), -1, np.float32)),
        "a: expected depth above 0 wherever the mask is True, found .* -1",
    ),
    (with_target(np.zeros((H, W), np.float32)), "a: expected depth above 0 wherever the mask is True, found .* 0"),
    (
        with_target(np.array([[None]]), allow_pickle=True),
        "sample 0: expected whole or floating-point numbers, found object",
    ),
    ({**GOOD, "target.npy": GOOD["target.npy"][:200]}, "sample 0: expected 4704 bytes for an array"),
    ({**GOOD, "target.npy": b""}, "sample 0: expected the files of a sample"),
    (
        {"image.png": b"\x89PNG", "target.npz": b"PK", "json": GOOD["json"]},
        "sample 0: expected an image, found one that OpenCV cannot decode",
    ),
    (
        {"image.png": encode(sample(0))["image.png"], "target.npz": b"PK\3\4" + bytes(99), "json": GOOD["json"]},
        "sample 0: expected the files of a sample .*File is not a zip file",
    ),
]


@pytest.mark.parametrize(("files", "message"), SAMPLES, ids=lambda value: str(value)[-60:])
def test_each_sample_is_checked(files, message, tmp_path):
    data = write(tmp_path, tar([files]), 1)
    with pytest.raises(ValueError, match=message):
        Samples(data)[0]


def test_broken_samples_of_shards_are_passed_over(tmp_path):
    samples = [encode(sample(number), compress=False) for number in range(100)]
    samples[42] = with_image(np.zeros((H, W, 3)))
    source = write(tmp_path, tar(samples), 100)
    data = Samples(source, BadSampleList(tmp_path / "bad.csv", "train"))
    assert sum(data[number].mask.any() for number in range(100)) == 99
    assert "000000.tar:42" in (tmp_path / "bad.csv").read_text()


def test_disparity_may_be_zero(tmp_path):
    sky = sample(0)._replace(kind=DepthKind.DISPARITY)
    sky.target[0] = 0
    data = Samples(write(tmp_path, tar([encode(sky)]), 1))
    assert data[0].mask.all() and (data[0].target[0] == 0).all()

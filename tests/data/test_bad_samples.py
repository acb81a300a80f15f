"""Each kind of broken sample with its message, and runs that go on without them."""

import csv
import logging
import os
import re
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from depth_lightning.data import DepthDataModule, DepthEncoding, DepthPairs, Mixture, NYUDepthV2
from depth_lightning.data.bad_samples import BadSampleList, Samples, TooManyBadSamplesError
from depth_lightning.data.files import read_image, read_map
from depth_lightning.data.reading import MAX_SIDE
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.sample import DepthDataset, DepthKind, DepthSample

H, W = 28, 42
MILLIMETRES = DepthEncoding(depth_scale=1000)


def write_pair(root, name, metres=2.0):
    image, depth = root / "rgb" / f"{name}.png", root / "depth" / f"{name}.png"
    for path in (image, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), np.full((H, W, 3), (10, 20, 30), np.uint8))
    cv2.imwrite(str(depth), np.full((H, W), 1000 * metres, np.uint16))
    return image, depth


def pairs_of(root, encoding=MILLIMETRES, depth="depth/*.png"):
    return DepthPairs("train", root, "rgb/*.png", depth, split_list=["rgb/b.png"], encoding=encoding)


@pytest.fixture
def pair(tmp_path):
    """Image and depth of the first of two pairs."""
    write_pair(tmp_path, "b")
    return write_pair(tmp_path, "a")


def _folder(path):
    path.unlink()
    path.mkdir()


def _png(array):
    return lambda path: cv2.imwrite(str(path), array)


@pytest.mark.parametrize(
    ("which", "breaks", "message"),
    [
        ("image", lambda path: path.write_bytes(b""), r"ValueError: \S*rgb/a\.png: expected an image, found an empty"),
        ("depth", lambda path: path.write_bytes(b""), r"ValueError: \S*depth/a\.png: expected an image, found an emp"),
        ("image", lambda path: path.write_bytes(path.read_bytes()[:60]), r"rgb/a\.png: .*found one that OpenCV cannot"),
        ("image", Path.unlink, r"FileNotFoundError: No file at \S*rgb/a\.png\. Was it moved, or does data\.root="),
        ("depth", Path.unlink, r"FileNotFoundError: No file at \S*depth/a\.png\. Was it moved, or does data\.root="),
        ("image", _folder, r"IsADirectoryError: \S*rgb/a\.png: expected a file, found a folder"),
        ("depth", _folder, r"IsADirectoryError: \S*depth/a\.png: expected a file, found a folder"),
        ("depth", _png(np.zeros((H, W), np.uint16)), r"depth/a\.png: expected some depth, found nothing but holes"),
        ("depth", _png(np.ones((H, W), np.uint8)), r"depth/a\.png: expected depth of 16 bits or float, found 8 bits"),
        ("depth", _png(np.ones((H, W, 3), np.uint16)), r"depth/a\.png: .*found an array of \(28, 42, 3\)"),
        ("depth", _png(np.full((W, H), 2000, np.uint16)), r"depth/a\.png: expected the aspect of its image, .*42×28 f"),
        ("image", _png(np.zeros((2, 20_000, 3), np.uint8)), rf"rgb/a\.png: .*at most {MAX_SIDE} pixels, found 2×20000"),
        ("depth", _png(np.zeros((2, 20_000), np.uint16)), rf"depth/a\.png: .*at most {MAX_SIDE} pixels, found 2×20000"),
    ],
)
def test_broken_files(pair, which, breaks, message, tmp_path):
    data = pairs_of(tmp_path)
    breaks(pair[["image", "depth"].index(which)])
    with pytest.raises((ValueError, OSError)) as caught:
        data[0]
    assert re.search(message, f"{type(caught.value).__name__}: {caught.value}")


def test_one_pixel_is_no_image(pair, tmp_path):
    _png(np.zeros((1, 1, 3), np.uint8))(pair[0])
    _png(np.full((1, 1), 2000, np.uint16))(pair[1])
    with pytest.raises(ValueError, match=r"rgb/a\.png: expected an image of at least 14×14 pixels, .* found 1×1"):
        Samples(pairs_of(tmp_path))[0]


@pytest.mark.parametrize("kind", ["rgba", "grey", "grey with alpha", "16 bits", "palette"])
def test_images_of_other_kinds_are_converted(kind, pair, tmp_path):
    """Alpha is dropped, grey is repeated, 16 bits are scaled to 8."""
    rgb = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    alpha = np.full((H, W), 30, np.uint8)
    expected = rgb if kind in ("rgba", "16 bits") else np.dstack([rgb[..., 0]] * 3)
    if kind == "rgba":
        Image.fromarray(np.dstack([rgb, alpha])).save(pair[0])
    elif kind == "grey":
        Image.fromarray(rgb[..., 0]).save(pair[0])
    elif kind == "grey with alpha":
        Image.fromarray(np.dstack([rgb[..., 0], alpha]), "LA").save(pair[0])
    elif kind == "palette":
        Image.fromarray(rgb[..., 0]).convert("P").save(pair[0])
    else:
        cv2.imwrite(str(pair[0]), rgb[..., ::-1].astype(np.uint16) * 257)
    assert (pairs_of(tmp_path)[0].image == expected).all()


def test_depth_that_is_no_number_is_a_hole(pair, tmp_path):
    depth = np.full((H, W), 2, np.float32)
    depth[0, :3] = np.nan, np.inf, -np.inf
    for name in "ab":
        np.save(tmp_path / "depth" / f"{name}.npy", depth)
    sample = pairs_of(tmp_path, DepthEncoding(), "depth/*.npy")[0]
    assert np.flatnonzero(~sample.mask).tolist() == [0, 1, 2]
    assert (sample.target[~sample.mask] == 0).all()
    depth[1, 0] = -1  # which may be anything: a hole, or a wrong offset
    np.save(tmp_path / "depth" / "a.npy", depth)
    with pytest.raises(ValueError, match=r"a\.npy: expected depth above 0 .*found .*\[-1\.0\].*data\.invalid=\[0, -1"):
        pairs_of(tmp_path, DepthEncoding(), "depth/*.npy")[0]
    assert pairs_of(tmp_path, DepthEncoding(invalid=(0, -1)), "depth/*.npy")[0].mask.sum() == H * W - 4


def test_nyu_depth_that_is_no_number_is_a_hole(tmp_path):
    """NYU's files have nothing but metres and 0, so there is one way to read these."""
    depth = np.full((H, W), 2, np.float32)
    depth[0, :4] = np.nan, np.inf, -np.inf, -1
    write_frame(tmp_path / "train/s/a.h5", depth)
    sample = NYUDepthV2(tmp_path, "train")[0]
    assert np.flatnonzero(~sample.mask).tolist() == [0, 1, 2, 3]
    assert (sample.target[~sample.mask] == 0).all()


def test_millimetres_as_metres(tmp_path, pair):
    with pytest.raises(ValueError, match=r"depth/a\.png: expected depth in metres, found a median of 2000.*=1000\?"):
        pairs_of(tmp_path, DepthEncoding())[0]
    write_frame(tmp_path / "train/s/a.h5", np.full((H, W), 2000, np.float32))
    with pytest.raises(ValueError, match=r"s/a\.h5: expected depth in metres, found a median of 2000.*millimetres"):
        NYUDepthV2(tmp_path, "train", "h5")[0]


def test_paths_beyond_ascii(tmp_path):
    root = tmp_path / "Räume 深度 🛋"
    for name in ("b", "ñandú 目"):
        write_pair(root, name)
    data = pairs_of(root)
    assert data[0].id == "rgb/ñandú 目.png"
    assert data[0].target.mean() == 2
    write_frame(root / "train/Küche/ä.h5", np.full((H, W), 2, np.float32))
    assert NYUDepthV2(root, "train", "h5")[0].scene == "Küche"


@pytest.fixture
def unprivileged():
    """A folder in which files of mode 0 cannot be read, by root either."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


@pytest.mark.parametrize(("name", "read"), [("a.png", read_image), ("a.npy", read_map), ("a.h5", read_map)])
def test_files_without_permission(name, read, unprivileged):
    owner = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    (unprivileged / name).write_bytes(b"content")
    (unprivileged / name).chmod(0)
    if os.getuid() == 0:
        os.seteuid(owner)
    with pytest.raises(PermissionError, match=rf"{name}: expected a file that can be read, found no permission"):
        read(unprivileged / name)


def write_frame(path, depth, shade=99):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["rgb"] = np.full((3, *depth.shape), shade, np.uint8)
        file["depth"] = depth


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """400 training frames and 200 for validation, each of its own shade."""
    root = tmp_path_factory.mktemp("nyu")
    for split, count in (("train", 400), ("val", 200)):
        for number in range(count):
            write_frame(
                root / split / "s" / f"{number:03d}.h5", np.full((H, W), 1 + number / 100, np.float32), number % 256
            )
    return root


BROKEN = ("train/s/007.h5", "train/s/300.h5", "val/s/005.h5", "val/s/199.h5")


@pytest.fixture
def broken(whole, tmp_path):
    """The same with four broken files: 0.5 % of the one split, 1 % of the other."""
    root = tmp_path / "broken"
    shutil.copytree(whole, root, copy_function=os.link)
    for name in BROKEN:
        (root / name).unlink()
        (root / name).write_bytes(b"")
    return root


def loaded(root, listing, num_workers=0, world_size=1, epochs=2):
    """Per epoch, the training batches of all processes in their order, and the validation batches."""

    class Process:
        accumulate_grad_batches = 1

        def __init__(self, rank):
            self.global_rank, self.world_size, self.training = rank, world_size, True

    shares = []
    for rank in range(world_size):
        data = DepthDataModule(
            partial(NYUDepthV2, root),
            TrainTransform(28, (28, 28), flip_probability=0),
            EvaluationTransform(28),
            batch_size=20 // world_size,
            eval_batch_size=10,
            num_workers=num_workers,
            seed=3,
            bad_samples=listing,
        )
        data.trainer = Process(rank)  # type: ignore[assignment]
        data.setup("fit")
        loader, trained = data.train_dataloader(), []
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            trained.append(list(loader))
        shares.append((trained, list(data.val_dataloader())))
    steps = [
        sorted(name for share in step for name in share.id)
        for epoch in range(epochs)
        for step in zip(*(trained[epoch] for trained, _ in shares), strict=True)
    ]
    return [steps, [batch for _, validated in shares for batch in validated]]


def test_replacements_are_the_same_for_any_workers_and_devices(whole, broken, tmp_path, caplog):
    clean, _ = loaded(whole, None)
    expected, validated = loaded(broken, tmp_path / "a" / "bad_samples.csv")
    assert (
        f"Passed over (train, listed in {tmp_path}/a/bad_samples.csv): {broken}/train/s/007.h5: expected" in caplog.text
    )
    for name, (number, options) in {"b": (1, {"num_workers": 2}), "c": (2, {"world_size": 2})}.items():
        assert loaded(broken, tmp_path / name / "bad_samples.csv", **options)[0] == expected, number
    # Two of 400 are replaced in either epoch, by others, and nothing else moves.
    replaced = [(set(a) - set(b), set(b) - set(a)) for a, b in zip(clean, expected, strict=True) if a != b]
    assert sorted(name for gone, _ in replaced for name in gone) == sorted(2 * BROKEN[:2])
    assert len({name for _, come in replaced for name in come} - set(BROKEN)) >= 3
    # Validation keeps all places; the broken ones have nothing to score.
    ids = [name for batch in validated for name in batch.id]
    assert len(ids) == 200
    assert [str(broken / name) for name in BROKEN[2:]] == [ids[5], ids[199]]
    empty = [name for batch in validated for name, mask in zip(batch.id, batch.mask, strict=True) if not mask.any()]
    assert empty == [ids[5], ids[199]]
    for name in "abc":
        with (tmp_path / name / "bad_samples.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sorted((row["split"], row["path"]) for row in rows) == [
            (path.split("/")[0], str(broken / path)) for path in BROKEN
        ]
        assert all("expected an HDF5 file, found one that is cut short" in row["reason"] for row in rows)


class Given(list[DepthSample]):
    """A data set of these samples."""


GOOD = DepthSample(
    np.zeros((H, W, 3), np.uint8), np.ones((H, W), np.float32), np.ones((H, W), bool), DepthKind.METRES, "a"
)
NAN = np.where(np.eye(H, W) > 0, np.float32(np.nan), np.float32(1))
IMAGE = "expected an image of (h, w, 3) uint8, found"
TARGET = "expected a target of (h, w) float32, found"
MASK = "expected a mask of (28, 42) bool, found"
FINITE = "expected finite values, and 0 where unknown, found nan to nan."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((H, W), np.uint8)}, f"a: {IMAGE} (28, 42) uint8."),
        ({"image": np.zeros((H, W, 4), np.uint8)}, f"a: {IMAGE} (28, 42, 4) uint8."),
        ({"image": np.zeros((H, W, 3))}, f"a: {IMAGE} (28, 42, 3) float64."),
        ({"image": np.zeros((0, W, 3), np.uint8)}, f"a: {IMAGE} (0, 42, 3) uint8."),
        ({"target": np.ones((H, W))}, f"a: {TARGET} (28, 42) float64."),
        ({"target": np.ones((H, W, 1), np.float32)}, f"a: {TARGET} (28, 42, 1) float32."),
        ({"mask": np.ones((H, W))}, f"a: {MASK} (28, 42) float64."),
        ({"mask": np.ones((W, H), bool)}, f"a: {MASK} (42, 28) bool."),
        ({"target": NAN}, f"a: {FINITE}"),
        ({"target": NAN, "mask": np.isfinite(NAN)}, f"a: {FINITE}"),
        ({"target": NAN, "kind": DepthKind.DISPARITY}, f"a: {FINITE}"),
        (
            {"target": -np.eye(H, W, dtype=np.float32)},
            "a: expected depth above 0 wherever the mask is True, found values from -1.",
        ),
        (
            {"target": np.ones((W, H), np.float32), "mask": np.ones((W, H), bool)},
            "a: expected a target with the aspect of its image, found 42×28 for 28×42 (h×w).",
        ),
    ],
)
def test_every_data_set_is_checked_by_the_same_function(change, message):
    for data in (Samples(Given([GOOD._replace(**change)])), Samples(Mixture({"x": Given([GOOD._replace(**change)])}))):
        with pytest.raises(ValueError) as caught:
            data[0]
        assert str(caught.value) in (message, f"x/{message}")
    holes = np.where(NAN == 1, NAN, 0)
    assert Samples(Given([GOOD._replace(target=holes, mask=holes > 0)]))[0].mask.sum() == H * W - H
    assert Samples(Given([GOOD._replace(target=-np.ones((H, W), np.float32), kind=DepthKind.DISPARITY)]))[0].mask.all()


def test_evaluation_passes_over_an_image_that_costs_too_much(tmp_path):
    strip = GOOD._replace(
        image=np.zeros((20, 2000, 3), np.uint8), target=np.ones((20, 2000), np.float32), mask=np.ones((20, 2000), bool)
    )
    source = Given([GOOD._replace(id=str(number)) for number in range(100)])
    source[7] = strip._replace(id="strip")
    data = DepthDataModule(
        lambda split: source,
        TrainTransform(28, (28, 28)),
        EvaluationTransform(518),
        2,
        bad_samples=tmp_path / "bad.csv",
    )
    evaluated = [data.val_data[number] for number in range(100)]
    assert sum(sample.mask.any() for sample in evaluated) == 99 and not evaluated[7].mask.any()
    assert (
        "strip: expected an image that takes the network at most 16,384 tokens, found 136,900"
        in (tmp_path / "bad.csv").read_text()
    )
    whole = DepthDataModule(lambda split: source, TrainTransform(28, (28, 28)), EvaluationTransform(518), 2)
    with pytest.raises(ValueError, match=r"^strip: expected an image that takes the network at most 16,384 tokens"):
        whole.val_data[7]
    # A crop of it costs what any crop does.
    assert whole.train_data[7].image.shape == (28, 28, 3)


def test_reasons_and_names_that_a_table_cannot_hold(tmp_path):
    bad = BadSampleList(tmp_path / "bad.csv", "train")
    bad.add(3, "caf\udce9.png", "caf\udce9.png: broken")
    assert bad.indices() == {3}
    source = Given([GOOD] * 300)
    data = Samples(source, bad)
    source[5] = GOOD._replace(id="long" * 100_000, image=np.zeros(3))
    assert data[5].mask.sum() == 0
    assert bad.indices() == {3, 5} and (tmp_path / "bad.csv").stat().st_size < 2000


def test_the_first_broken_sample_ends_the_run_by_default(broken):
    with pytest.raises(ValueError, match=r"train/s/(007|300)\.h5: expected an HDF5 file"):
        loaded(broken, None)


def test_more_than_one_per_cent_ends_the_run(broken, tmp_path):
    for number in range(20, 22):
        (broken / f"val/s/{number:03d}.h5").unlink()
        (broken / f"val/s/{number:03d}.h5").write_bytes(b"")
    message = (
        r"3 of 200 val samples cannot be read, which is more than the 1 % that data\.on_error=skip passes over\. "
        r"They are listed in .*bad_samples\.csv; the last one: .*val/s/.*\.h5: expected an HDF5 file"
    )
    for workers in (0, 1):
        with pytest.raises(TooManyBadSamplesError, match=message) as caught:
            loaded(broken, tmp_path / f"{workers}" / "bad_samples.csv", num_workers=workers, epochs=1)
        assert "\n" not in str(caught.value).strip().splitlines()[-1]


class Numbers(DepthDataset):
    """A data set without paths whose samples are constants, some of them broken."""

    def __init__(self, length, broken=frozenset()):  # type: ignore[assignment]
        self.length, self.broken = length, broken

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError(f"number {index} is\nbroken")
        depth = np.full((H, W), 1 + index, np.float32)
        return DepthSample(np.zeros((H, W, 3), np.uint8), depth, depth > 0, DepthKind.METRES, str(index))


def test_a_mixtures_part_replaces_its_own(tmp_path):
    mixture = Mixture({"small": Numbers(100, {3}), "large": Numbers(1000)})
    samples = Samples(mixture, BadSampleList(tmp_path / "bad.csv", "train"))
    for seed in range(20):
        assert samples.draw(3, seed).id.startswith("small/")
    assert samples[3].id == "sample 3"
    mixture = Mixture({"small": Numbers(100, {3, 4}), "large": Numbers(1000)})
    samples = Samples(mixture, BadSampleList(tmp_path / "more.csv", "train"))
    samples.draw(3, 0)
    with pytest.raises(TooManyBadSamplesError, match=r"2 of 100 train samples .*the last one: number 4 is broken"):
        samples.draw(4, 0)


def _add(file, number):
    listing = BadSampleList(file, "train")
    return max(len(listing.add(index, f"path, {index}", "a reason,\nwith a comma")) for index in range(number % 3, 30))


def test_processes_list_each_sample_once(tmp_path, caplog):
    file = tmp_path / "run" / "bad_samples.csv"
    caplog.set_level(logging.ERROR)
    with ProcessPoolExecutor(4) as pool:
        assert max(pool.map(partial(_add, file), range(8))) == 30
    with file.open(newline="") as content:
        rows = list(csv.DictReader(content))
    assert sorted(int(row["index"]) for row in rows) == list(range(30))
    assert {row["reason"] for row in rows} == {"a reason,\nwith a comma"}


def test_all_of_them_are_broken(tmp_path):
    samples = Samples(Numbers(1, {0}), BadSampleList(tmp_path / "bad.csv", "val"))
    with pytest.raises(TooManyBadSamplesError, match="1 of 1 val samples"):
        samples[0]

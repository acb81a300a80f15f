import hashlib
import multiprocessing
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from depth_lightning.data import NYUDepthV2, rooms
from depth_lightning.data.rooms import RenderedRooms, render_room, write_rooms
from depth_lightning.sample import DepthKind

HEIGHT, WIDTH = 42, 56
FORK = multiprocessing.get_context("fork")  # spares the children the import of torch


def digest(folder):
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.h5"))
    }


@pytest.fixture(scope="module")
def pictures():
    images, depths = zip(*(render_room((0, 0, room), HEIGHT, WIDTH) for room in range(60)), strict=True)
    return np.stack(images), np.stack(depths)


def test_ranges(pictures):
    images, depths = pictures
    assert images.shape == (60, HEIGHT, WIDTH, 3) and images.dtype == np.uint8
    assert depths.shape == (60, HEIGHT, WIDTH) and depths.dtype == np.float32
    assert np.isfinite(depths).all() and depths.min() == 0 and depths.max() <= 10
    assert depths[depths > 0].min() > 0.1
    assert (images == 255).mean() < 0.01 and (images == 0).mean() < 0.01
    assert 60 < images.mean() < 190


def test_few_holes_but_some(pictures):
    holes = (pictures[1] == 0).mean(axis=(1, 2))
    assert 0.001 < holes.mean() < 0.05
    assert holes.max() < 0.5


def test_variety(pictures):
    """Rooms differ in depth and in light, so that neither a constant nor a mean image predicts them."""
    images, depths = pictures
    medians = np.array([np.median(depth[depth > 0]) for depth in depths])
    assert np.percentile(medians, 90) / np.percentile(medians, 10) > 1.6
    assert images.mean(axis=(1, 2, 3)).std() > 10


def test_depth_is_exact_where_it_is_measured(monkeypatch):
    _, with_holes = render_room((5,), HEIGHT, WIDTH)
    monkeypatch.setattr(rooms, "measured", lambda rng, boxes, camera, hits: np.ones(hits.depth.shape, bool))
    _, whole = render_room((5,), HEIGHT, WIDTH)
    assert (whole > 0).all()
    np.testing.assert_array_equal(with_holes[with_holes > 0], whole[with_holes > 0])


def test_views_share_the_room_and_nothing_else():
    first, second = (render_room((3,), HEIGHT, WIDTH, view) for view in range(2))
    assert not np.array_equal(first[1], second[1])
    assert np.array_equal(first[0], render_room((3,), HEIGHT, WIDTH, view=0)[0])


@pytest.mark.parametrize("seed", range(5))
def test_light_falls_off_with_distance(seed):
    """The cue that is meant to be there: over many rooms, what is nearer is brighter."""
    images, depths = zip(*(render_room((seed, room), HEIGHT, WIDTH) for room in range(12)), strict=True)
    near = np.concatenate([i[(d > 0) & (d < 1.8)].ravel() for i, d in zip(images, depths, strict=True)])
    far = np.concatenate([i[d > 3.5].ravel() for i, d in zip(images, depths, strict=True)])
    assert near.mean() > far.mean() + 15


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    first = write_rooms(tmp_path / "first", "train", 6, 7, HEIGHT, WIDTH)
    second = write_rooms(tmp_path / "second", "train", 6, 7, HEIGHT, WIDTH)
    other = write_rooms(tmp_path / "other", "train", 6, 8, HEIGHT, WIDTH)
    assert len(digest(first)) == 6
    assert digest(first) == digest(second)
    assert not set(digest(first).values()) & set(digest(other).values())


def test_more_images_begin_with_the_same(tmp_path):
    few = digest(write_rooms(tmp_path / "few", "train", 5, 0, HEIGHT, WIDTH))
    many = digest(write_rooms(tmp_path / "many", "train", 9, 0, HEIGHT, WIDTH))
    assert few.items() <= many.items()


def test_held_out_rooms_are_other_rooms(tmp_path):
    train, val = (RenderedRooms(tmp_path, split, 8, height=HEIGHT, width=WIDTH) for split in ("train", "val"))
    assert not {sample.scene for sample in map(train.__getitem__, range(8))} & {val[i].scene for i in range(8)}
    for i in range(8):
        assert not any(np.array_equal(val[i].target, train[j].target) for j in range(8))
    split = list(rooms.VIEWS).index
    boxes = [
        rooms.random_room(np.random.default_rng([0, split(name), room, 0])).boxes.half_size[0]
        for name in ("train", "val")
        for room in range(8)
    ]
    assert len(np.unique(boxes, axis=0)) == 16


def test_samples(tmp_path):
    dataset = RenderedRooms(tmp_path, "train", 6, height=HEIGHT, width=WIDTH)
    assert len(dataset) == 6
    sample = dataset[5]
    assert sample.image.shape == (HEIGHT, WIDTH, 3) and sample.image.dtype == np.uint8
    assert sample.target.shape == (HEIGHT, WIDTH) and sample.target.dtype == np.float32
    np.testing.assert_array_equal(sample.mask, sample.target > 0)
    assert sample.kind is DepthKind.METRES
    assert (sample.id, sample.scene) == ("train/train_00001/00001.h5", "train_00001")
    rgb, depth = render_room((0, 0, 1), HEIGHT, WIDTH, view=1)
    np.testing.assert_array_equal(sample.image, rgb)
    np.testing.assert_array_equal(sample.target, depth)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_folder_reads_as_nyu(tmp_path, split):
    ours = RenderedRooms(tmp_path, split, 5, height=HEIGHT, width=WIDTH)
    theirs = NYUDepthV2(root=ours.folder, split=split)
    assert len(theirs) == len(ours)
    for i in range(5):
        for mine, read in zip(ours[i][:-1], theirs[i][:-1], strict=True):  # all but the camera
            np.testing.assert_array_equal(mine, read)


def test_what_is_cached_is_read_not_rendered(tmp_path, monkeypatch):
    first = RenderedRooms(tmp_path, "val", 3, height=HEIGHT, width=WIDTH)
    written = [file.stat().st_mtime_ns for file in first.files]
    monkeypatch.setattr(rooms, "render_room", None)
    second = RenderedRooms(tmp_path, "val", 3, height=HEIGHT, width=WIDTH)
    assert second.files == first.files and len(second.files) == 3
    assert [file.stat().st_mtime_ns for file in second.files] == written


def test_other_parameters_have_another_folder(tmp_path):
    base = {"split": "val", "count": 2, "seed": 0, "height": 14, "width": 14}
    changes = [{}, {"split": "train"}, {"count": 3}, {"seed": 1}, {"height": 28}, {"width": 28}]
    folders = {RenderedRooms(tmp_path, **(base | change)).folder for change in changes}
    assert len(folders) == len(changes)


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    rendered = []

    def interrupted(*args):
        rendered.append(args)
        if len(rendered) == 3:
            raise KeyboardInterrupt
        return render_room(*args)

    monkeypatch.setattr(rooms, "render_room", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_rooms(tmp_path, "train", 6, 0, HEIGHT, WIDTH)
    assert len(rendered) == 3
    assert not list(tmp_path.iterdir())

    monkeypatch.undo()
    assert len(digest(write_rooms(tmp_path, "train", 6, 0, HEIGHT, WIDTH))) == 6


def test_a_kill_leaves_no_half_cache(tmp_path):
    """SIGKILL in the middle: what is left is not taken for the data set, and the next call renders all of it."""
    process = FORK.Process(target=write_rooms, args=(tmp_path, "train", 5000, 0, HEIGHT, WIDTH))
    process.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.h5")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert list(tmp_path.rglob("*.h5"))
    assert not (tmp_path / "train").exists()
    assert len(digest(write_rooms(tmp_path, "train", 4, 0, HEIGHT, WIDTH))) == 4


def render(root):
    return digest(write_rooms(Path(root), "train", 24, 0, HEIGHT, WIDTH))


def test_two_processes_at_once_agree(tmp_path):
    with FORK.Pool(2) as pool:
        first, second = pool.map(render, [str(tmp_path)] * 2)
    assert first == second == render(str(tmp_path / "alone"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "train"]


def test_the_slower_process_keeps_what_the_faster_wrote(tmp_path, monkeypatch):
    def overtaken(*args):
        if not (tmp_path / "train").exists():
            monkeypatch.undo()
            write_rooms(tmp_path, "train", 4, 0, HEIGHT, WIDTH)
        return render_room(*args)

    monkeypatch.setattr(rooms, "render_room", overtaken)
    write_rooms(tmp_path, "train", 2, 0, HEIGHT, WIDTH)
    assert len(digest(tmp_path / "train")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_the_files_are_those_of_nyu(tmp_path):
    folder = write_rooms(tmp_path, "val", 1, 0, HEIGHT, WIDTH)
    with h5py.File(folder / "val_00000" / "00000.h5") as file:
        assert set(file) == {"rgb", "depth", "intrinsics"}
        assert file["rgb"].shape == (3, HEIGHT, WIDTH) and file["rgb"].dtype == np.uint8
        assert file["depth"].shape == (HEIGHT, WIDTH) and file["depth"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "test"}, "^split is train or val, found 'test'"),
        ({"count": 0}, "^count is a whole number, 1 or above, found 0"),
        ({"count": {"train": 0, "val": 1}}, r"^count\.train is a whole number, 1 or above, found 0"),
        ({"seed": -1}, "^seed is a whole number, 0 or above, found -1"),
    ],
)
def test_wrong_parameters(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        RenderedRooms(tmp_path / "new", **({"split": "val", "count": 2} | change))
    assert not (tmp_path / "new").exists()

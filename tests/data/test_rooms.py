import hashlib
import multiprocessing
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from depth_lightning.data import NYUDepthV2, rooms
from depth_lightning.data.rooms import RenderedRooms, photograph, render_room, write_rooms
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
    monkeypatch.setattr(rooms, "photograph", None)
    second = RenderedRooms(tmp_path, "val", 3, height=HEIGHT, width=WIDTH)
    assert second.files == first.files and len(second.files) == 3
    assert [file.stat().st_mtime_ns for file in second.files] == written


def test_other_parameters_have_another_folder(tmp_path):
    base = {"split": "val", "count": 2, "seed": 0, "height": 14, "width": 14}
    changes = [{}, {"split": "train"}, {"count": 3}, {"seed": 1}, {"height": 28}, {"width": 28}]
    changes += [{"look": "open"}, {"val_fov_deg": (30, 40)}, {"off_centre": 0.1}]
    folders = {RenderedRooms(tmp_path, **(base | change)).folder for change in changes}
    assert len(folders) == len(changes)


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    rendered = []

    def interrupted(*args):
        rendered.append(args)
        if len(rendered) == 3:
            raise KeyboardInterrupt
        return photograph(*args)

    monkeypatch.setattr(rooms, "photograph", interrupted)
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
        return photograph(*args)

    monkeypatch.setattr(rooms, "photograph", overtaken)
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
        ({"look": "night"}, "^look is one of usual, daylight, flash, clutter, open, mixed, found 'night'"),
        ({"fov_deg": 60}, r"^fov_deg is the lowest and the highest angle in degrees, .* such as \[45,60\], found 60"),
        ({"val_fov_deg": [60, 45]}, r"^val_fov_deg is the lowest and the highest angle .*, found \[60, 45\]"),
        ({"fov_deg": [45, 180]}, r"^fov_deg is the lowest and the highest angle .*, found \[45, 180\]"),
        ({"off_centre": 0.6}, "^off_centre is a number from 0 to 0.5, found 0.6"),
        ({"sky": "near"}, "^sky is ignore or far, found 'near'"),
    ],
)
def test_wrong_parameters(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        RenderedRooms(tmp_path / "new", **({"split": "val", "count": 2} | change))
    assert not (tmp_path / "new").exists()


def test_the_usual_look_is_what_it_was():
    """Means of images and depths, from before there were other looks; a random number more would change them."""
    pictures = [render_room((0, 0, room), 84, 112, room % 2) for room in range(6)]
    means = [(image.mean(), depth.mean()) for image, depth in pictures]
    recorded = [
        (99.64, 2.3332),
        (121.945, 2.2506),
        (119.228, 2.6285),
        (78.802, 4.0577),
        (168.622, 1.0278),
        (91.804, 3.5951),
    ]
    np.testing.assert_allclose(means, recorded, rtol=1e-4)


@pytest.mark.parametrize("look", ["daylight", "flash", "clutter", "open"])
def test_every_look_is_varied_and_well_exposed(look):
    photos = [photograph((0, room), HEIGHT, WIDTH, look=look) for room in range(40)]
    images = np.stack([photo.image for photo in photos])
    assert 60 < images.mean() < 190 and images.mean(axis=(1, 2, 3)).std() > 10
    assert (images == 255).mean() < 0.05 and (images == 0).mean() < 0.05
    farthest = 200 if look == "open" else 10
    depths = np.concatenate([photo.depth.ravel() for photo in photos])
    assert depths.min() > 0.02 and depths[np.isfinite(depths)].max() <= farthest
    assert (np.isinf(depths).mean() > 0.1) == (look == "open")
    usual = np.stack([photograph((0, room), HEIGHT, WIDTH).image for room in range(40)])
    assert np.abs(images.mean(axis=0) - usual.mean(axis=0)).mean() > 3


def test_mixed_has_every_look_but_the_usual():
    seen = [photograph((0, room), 14, 14, look="mixed").image for room in range(12)]
    of = {
        look: [photograph((0, room), 14, 14, look=look).image for room in range(12)]
        for look in ("usual", "daylight", "flash", "clutter", "open")
    }
    which = [[look for look in of if np.array_equal(of[look][room], seen[room])] for room in range(12)]
    assert {look for (look,) in which} == {"daylight", "flash", "clutter", "open"}


@pytest.mark.parametrize("look", ["usual", "daylight", "clutter", "open"])
def test_the_camera_that_is_named_saw_the_picture(look):
    """Planes, from depth and intrinsics alone: normals of reprojected points are the true ones."""
    photo = photograph((4, 1), 84, 112, look=look, lens=rooms.Lens((50, 60), 0.2))
    fx, fy, cx, cy = photo.intrinsics.astype(float)
    fov_deg = 2 * np.degrees(np.arctan(112 / 2 / fx))
    assert 50 <= fov_deg <= 60 and abs((cx + 0.5) / 112 - 0.5) <= 0.2 and cx != 55.5
    depth = photo.depth.astype(float)
    rows, columns = np.mgrid[:84, :112]
    points = np.stack([(columns - cx) / fx * depth, (rows - cy) / fy * depth, depth], axis=-1)
    with np.errstate(invalid="ignore"):
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normal = np.cross(down, across)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    true = photo.normal[1:-1, 1:-1]
    flat = np.ones((82, 110), bool)
    for rows_off in (-1, 0, 1):
        for columns_off in (-1, 0, 1):
            near = photo.normal[1 + rows_off : 83 + rows_off, 1 + columns_off : 111 + columns_off]
            flat &= np.abs(near - true).max(axis=-1) < 1e-4
    flat &= np.isfinite(normal).all(axis=-1) & (depth[1:-1, 1:-1] > 0)
    angle = np.degrees(np.arccos(np.clip((normal * true).sum(axis=-1), -1, 1)))[flat]
    assert flat.mean() > 0.05 and np.median(angle) < 0.1
    assert (true[flat] * points[1:-1, 1:-1][flat]).sum(axis=-1).max() < 0  # towards the camera


def test_training_and_validation_may_have_other_lenses(tmp_path, monkeypatch):
    seen = []

    def noted(seed, height, width, view, look, lens):
        seen.append((seed[1], lens))
        return photograph(seed, height, width, view, look, lens)

    monkeypatch.setattr(rooms, "photograph", noted)
    lenses = {"fov_deg": [45, 60], "val_fov_deg": [30, 40], "off_centre": 0.1, "val_off_centre": 0.0}
    for split in ("train", "val"):
        RenderedRooms(tmp_path, split, 1, height=14, width=14, **lenses)
    assert seen == [(0, rooms.Lens((45, 60), 0.1)), (1, rooms.Lens((30, 40), 0.0))]
    seen.clear()
    RenderedRooms(None, "val", 1, height=14, width=14, fov_deg=[45, 60], off_centre=0.1)[0]
    assert seen == [(1, rooms.Lens((45, 60), 0.1))]


@pytest.mark.parametrize("look", ["usual", "open"])
def test_what_is_not_kept_is_rendered_each_time(tmp_path, look):
    kept = RenderedRooms(tmp_path, "train", 5, height=HEIGHT, width=WIDTH, look=look)
    fresh = RenderedRooms(None, "train", 5, height=HEIGHT, width=WIDTH, look=look)
    assert len(fresh) == 5
    for i in (0, 4, -1):
        for one, other in zip(kept[i], fresh[i], strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError):
        fresh[5]


def test_the_sky_is_a_hole_or_far_away():
    holes, far = (RenderedRooms(None, "val", 5, height=42, width=56, look="open", sky=sky) for sky in ("ignore", "far"))
    for without, whole in zip(holes, far, strict=True):
        assert whole.mask.all() and whole.target.max() <= 200
        np.testing.assert_array_equal(without.target, np.where(without.mask, whole.target, 0))
        assert (whole.target[~without.mask] == 200).all()
    assert not all(sample.mask.all() for sample in holes)

"""data=hub on local folders of Parquet files, as the hub holds them."""

import io
import pickle
import sys

import cv2
import numpy as np
import pytest

from depth_lightning.runs.objects import dataset_of
from depth_lightning.runs.options import check
from depth_lightning.settings import SettingError

datasets = pytest.importorskip("datasets", reason="needs the extra hub")

H, W = 28, 42
RGB = np.full((H, W, 3), (30, 20, 10), np.uint8)


def metres(number):
    depth = np.full((H, W), 1 + number, np.float32)
    depth[0, 0], depth[5, 7] = 0, 2 + number
    return depth


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


KINDS = {
    "png": (datasets.Image(), lambda depth: png((1000 * depth).astype(np.uint16)), 1000),
    "tiff": (datasets.Image(), lambda depth: cv2.imencode(".tiff", depth)[1].tobytes(), 1),
    "npy": (datasets.Value("binary"), npy, 1),
    "array": (datasets.Array2D((H, W), "float32"), lambda depth: depth, 1),
    "lists": (datasets.List(datasets.List(datasets.Value("float64"))), lambda depth: depth.tolist(), 1),
}
"""Kind of depth column → its feature, the content for a map in metres, and data.depth_scale."""


def write(folder, kind, counts, image="image", depth="depth"):
    """One Parquet file per split, as the hub names them."""
    feature, stored, _ = KINDS[kind]
    (folder / "data").mkdir(parents=True)
    for split, count in counts.items():
        features = datasets.Features({image: datasets.Image(), depth: feature, "room": datasets.Value("string")})
        rows = {
            image: [{"bytes": png(RGB[..., ::-1]), "path": None}] * count,
            depth: [stored(metres(number)) for number in range(count)],
            "room": [f"room {number // 2}" for number in range(count)],
        }
        if isinstance(feature, datasets.Image):
            rows[depth] = [{"bytes": content, "path": None} for content in rows[depth]]
        path = folder / f"data/{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return folder


@pytest.fixture
def opened(compose_config, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def open_split(split, *overrides):
        cfg = compose_config("train", ["data=hub", f"data.path={tmp_path}/set", *overrides], tmp_path)
        check(cfg, "train")
        return dataset_of(cfg.data)(split=split)

    return open_split


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_column(kind, opened, tmp_path):
    write(tmp_path / "set", kind, {"train": 3, "validation": 2})
    data = opened("train", f"data.depth_scale={KINDS[kind][2]}", "data.scene=room")
    assert len(data) == 3 and len(opened("val")) == 2
    for number in range(3):
        sample = pickle.loads(pickle.dumps(data))[number]  # as a worker gets it
        np.testing.assert_array_equal(sample.image, RGB)
        np.testing.assert_allclose(sample.target, metres(number), rtol=1e-6)
        np.testing.assert_array_equal(sample.mask, metres(number) > 0)
        assert sample.target.dtype == np.float32
        assert (sample.id, sample.scene) == (f"train/{number}", f"room {number // 2}")


def test_other_columns_and_slices_of_the_only_split(opened, tmp_path):
    write(tmp_path / "set", "array", {"train": 10}, image="rgb", depth="depth_map")
    typed = ["data.image=rgb", "data.depth=depth_map", "data.train_split='train[:80%]'", "data.val_split='train[80%:]'"]
    assert (len(opened("train", *typed)), len(opened("val", *typed))) == (8, 2)
    assert opened("val", *typed)[0].target[-1, -1] == 9


def test_what_does_not_exist_is_named_with_what_does(opened, tmp_path):
    write(tmp_path / "set", "array", {"train": 2})
    with pytest.raises(SettingError, match=r"^data\.depth is one of image, depth, room, found 'depth_map'\."):
        opened("train", "data.depth=depth_map")
    with pytest.raises(
        SettingError, match=r"^data\.val_split is a split of .*/set, or a slice of one, found 'validation': .*train"
    ):
        opened("val")
    with pytest.raises(
        SettingError, match=r"^data\.path is an id such as org/name, or a folder of Parquet files, found None"
    ):
        opened("train", "data.path=null")
    with pytest.raises(SettingError, match=r"^data\.depht is not an option\. Did you mean data\.depth\?"):
        opened("train", "+data.depht=x")


def test_a_broken_row_is_named(opened, tmp_path):
    write(tmp_path / "set", "npy", {"train": 2})
    path = tmp_path / "set/data/train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path)).to_dict()
    rows["depth"] = [b"nothing", npy(np.full((H, W), 3, np.uint8)), None]
    rows = {"image": rows["image"][:1] * 3, "depth": rows["depth"], "room": ["room"] * 3}
    datasets.Dataset.from_dict(rows).to_parquet(path)
    data = opened("train")
    for row, problem in enumerate(
        (
            "expected an image, found one that OpenCV cannot decode",
            "expected depth of 16 bits or float, found 8 bits",
            "expected a depth map as the bytes of a file, found NoneType",
        )
    ):
        with pytest.raises(ValueError, match=rf"^{tmp_path}/set, row {row} of train: {problem}"):
            data[row]


def test_a_picture_by_path_reads_no_file_of_this_machine(opened, tmp_path):
    """A Parquet file may name any path in place of the bytes."""
    cv2.imwrite(str(tmp_path / "private.png"), RGB)
    write(tmp_path / "set", "array", {"train": 1})
    path = tmp_path / "set/data/train-00000-of-00001.parquet"
    whole = datasets.Dataset.from_parquet(str(path))
    rows = whole.cast_column("image", datasets.Image(decode=False)).to_dict()
    rows["image"] = [{"bytes": None, "path": str(tmp_path / "private.png")}]
    datasets.Dataset.from_dict(rows, features=whole.features).to_parquet(path)
    with pytest.raises(ValueError, match="expected an image as the bytes of a file, found NoneType"):
        opened("train")[0]


def test_implausible_depth_is_refused(opened, tmp_path):
    write(tmp_path / "set", "png", {"train": 1})
    with pytest.raises(ValueError, match=r"row 0 of train: expected depth in metres, found a median of 1000 m"):
        opened("train")[0]
    assert opened("train").read(0).mask.any()  # for inspection


def test_without_the_package(opened, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"^data=hub needs the package datasets: pip install 'depth-lightning\[hub\]'$"
    ):
        opened("train")

import logging
import pickle
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from depth_lightning.data import NYUDepthV2
from depth_lightning.data.nyu import SPLITS_URL, read_h5
from depth_lightning.sample import DepthKind

H, W = 6, 8


def frame(seed):
    """An image (H, W, 3) and its depth in whole millimetres, with one hole at the top right."""
    rng = np.random.default_rng(seed)
    depth = rng.integers(500, 9000, (H, W)).astype(np.float32) / 1000
    depth[0, -1] = 0
    return rng.integers(0, 256, (H, W, 3), np.uint8), depth


def write_h5(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.fixture
def h5_root(tmp_path):
    for number, name in enumerate(("train/kitchen/00002", "train/kitchen/00001", "train/den/00001", "val/official/7")):
        image, depth = frame(number)
        write_h5(tmp_path / f"{name}.h5", rgb=image.transpose(2, 0, 1), depth=depth)
    return tmp_path


@pytest.fixture
def labelled(tmp_path):
    """Five labelled images as MATLAB stores them, with a filled depth that must not be read."""
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    images, depths = zip(*(frame(number) for number in range(1, 6)), strict=True)
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([image.transpose(2, 1, 0) for image in images])
        file["rawDepths"] = np.stack([depth.T for depth in depths])
        file["depths"] = np.full((5, W, H), 3.0, np.float32)
        names = [f"room_000{number}" for number in range(1, 6)]
        for name in names:
            file[f"#refs#/{name}"] = np.array([[ord(letter)] for letter in name], np.uint16)
        references = [[file[f"#refs#/{name}"].ref for name in names]]
        file.create_dataset("scenes", data=references, dtype=h5py.ref_dtype)
    scipy.io.savemat(
        tmp_path / "splits.mat", {"trainNdxs": np.array([[1], [4], [5]]), "testNdxs": np.array([[2], [3]])}
    )
    return path


@pytest.fixture
def png_root(tmp_path):
    for number, scene in enumerate(("bathroom_0001", "study_0003")):
        image, depth = frame(number)
        (tmp_path / scene).mkdir()
        cv2.imwrite(str(tmp_path / scene / "rgb_1.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / scene / "sync_depth_1.png"), np.round(depth * 1000).astype(np.uint16))
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text(
        "/bathroom_0001/rgb_1.png /bathroom_0001/sync_depth_1.png 518.8579\n"
        "study_0003/rgb_2.png None 518.8579\n\n"
        "study_0003/rgb_1.png study_0003/sync_depth_1.png\n"
    )
    shutil.copytree(tmp_path / "study_0003", tmp_path / "study")
    (tmp_path / "nyudepthv2_test_files_with_gt.txt").write_text("study/rgb_1.png study/sync_depth_1.png 5\n")
    return tmp_path


def test_h5_release(h5_root):
    data = NYUDepthV2(h5_root, "train")
    assert [sample.id for sample in (data[i] for i in range(len(data)))] == [
        "train/den/00001.h5",
        "train/kitchen/00001.h5",
        "train/kitchen/00002.h5",
    ]
    image, depth = frame(0)
    sample = data[2]
    assert (sample.image == image).all()
    assert (sample.target == depth).all()
    assert (sample.mask == (depth > 0)).all()
    assert not sample.mask[0, -1]
    assert (sample.kind, sample.scene) == (DepthKind.METRES, "kitchen")
    assert (sample.image.dtype, sample.target.dtype, sample.mask.dtype) == (np.uint8, np.float32, bool)
    assert NYUDepthV2(h5_root, "val")[0].scene == ""  # the folder of all test images is no scene
    assert NYUDepthV2(h5_root, "test")[0].id == NYUDepthV2(h5_root, "val")[0].id


@pytest.mark.parametrize("given", ["file", "folder"])
def test_labelled_set_is_transposed_and_raw_and_counted_from_one(labelled, given):
    data = NYUDepthV2(labelled if given == "file" else labelled.parent, "val")
    assert len(data) == 2
    image, depth = frame(3)
    sample = data[1]
    assert (sample.image == image).all()
    assert (sample.target == depth).all()
    assert (sample.id, sample.scene) == ("labelled/3", "room_0003")
    assert len(NYUDepthV2(labelled, "train")) == 3


def test_png_release(png_root, caplog):
    with caplog.at_level(logging.WARNING):
        data = NYUDepthV2(png_root, "train")
    assert "skipped 1 of 3 images" in caplog.text
    assert len(data) == 2
    image, depth = frame(0)
    sample = data[0]
    assert (sample.image == image).all()
    np.testing.assert_allclose(sample.target, depth, rtol=1e-6)
    assert (sample.id, sample.scene) == ("bathroom_0001/rgb_1.png", "bathroom_0001")
    assert [NYUDepthV2(png_root, "val")[0].id] == ["study/rgb_1.png"]


def test_real_frames(realdata):
    for split, count in (("train", 65), ("val", 4)):
        data = NYUDepthV2(realdata / "nyu_h5", split)
        assert len(data) == count
        for index in range(0, count, 1 if split == "val" else 8):
            sample = data[index]
            assert sample.image.shape == (480, 640, 3)
            assert sample.target.shape == sample.mask.shape == (480, 640)
            assert 0.3 < np.median(sample.target[sample.mask]) < 8
            assert sample.mask.mean() > 0.3


@pytest.mark.parametrize("root", ["h5_root", "labelled", "png_root"])
def test_opens_files_per_sample(root, request):
    data = NYUDepthV2(request.getfixturevalue(root), "train")
    again = pickle.loads(pickle.dumps(data))  # what a spawned worker gets
    assert (again[0].image == data[0].image).all()
    for descriptor in Path("/proc/self/fd").glob("*"):
        assert not (descriptor.exists() and descriptor.readlink().suffix in (".h5", ".mat"))


def test_missing_root_says_what_to_set(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*NYU_ROOT.*data\.root=.*\.h5.*splits\.mat"):
        NYUDepthV2(tmp_path / "nowhere", "train")


def test_wrong_split(h5_root):
    with pytest.raises(ValueError, match=r"^split is one of train, val, test, found 'all'"):
        NYUDepthV2(h5_root, "all")  # type: ignore[arg-type]


def test_no_layout_and_several(h5_root, labelled, tmp_path):
    with pytest.raises(ValueError, match=r"several layouts.*\['h5', 'labelled'\].*data\.layout="):
        NYUDepthV2(tmp_path, "train")
    assert len(NYUDepthV2(tmp_path, "train", layout="h5")) == len(NYUDepthV2(tmp_path, "train", layout="labelled")) == 3
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"no layout.*'h5'.*'labelled'.*'png'.*an empty folder"):
        NYUDepthV2(tmp_path / "other", "train")
    (tmp_path / "other" / "notes.md").touch()
    with pytest.raises(ValueError, match=r"found \['notes\.md'\]"):
        NYUDepthV2(tmp_path / "other", "train")
    with pytest.raises(ValueError, match=r"notes\.md: expected a folder or the labelled \.mat"):
        NYUDepthV2(tmp_path / "other" / "notes.md", "train")


def test_empty_split(h5_root):
    (h5_root / "val/official/7.h5").unlink()
    with pytest.raises(ValueError, match=r"The val split of .* is empty"):
        NYUDepthV2(h5_root, "val")


IMAGE, DEPTH = np.zeros((3, H, W), np.uint8), np.ones((H, W), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"rgb": IMAGE}, r"a\.h5: expected the data sets 'rgb' and 'depth', found \['rgb'\]"),
        ({"depth": DEPTH}, r"a\.h5: expected the data sets 'rgb' and 'depth', found \['depth'\]"),
        ({"rgb": IMAGE.transpose(1, 2, 0), "depth": DEPTH}, r"'rgb' as \(3, h, w\) uint8, found \(6, 8, 3\) uint8"),
        ({"rgb": IMAGE.astype(np.float32), "depth": DEPTH}, r"'rgb' as .* found \(3, 6, 8\) float32"),
        ({"rgb": IMAGE, "depth": DEPTH[None]}, r"'depth' as \(h, w\) float32 in metres, found \(1, 6, 8\)"),
        ({"rgb": IMAGE, "depth": DEPTH.astype(np.uint16)}, r"'depth' as .* found \(6, 8\) uint16"),
        ({"rgb": IMAGE, "depth": DEPTH[1:]}, r"image and depth of one size, found \(6, 8\) and \(5, 8\)"),
        (
            {"rgb": IMAGE, "depth": 1500 * DEPTH},
            r"train/s/a\.h5: expected depth in metres, found a median of 1500\..*millim",
        ),
        ({"rgb": IMAGE, "depth": 0 * DEPTH}, r"train/s/a\.h5: expected some depth, found nothing but holes"),
        ({"rgb": IMAGE, "depth": -DEPTH}, r"train/s/a\.h5: .* nothing but holes"),
        ({"rgb": IMAGE, "depth": np.nan * DEPTH}, r"train/s/a\.h5: .* nothing but holes"),
        ({"rgb": IMAGE, "depth": DEPTH.T}, r"found \(6, 8\) and \(8, 6\) \(h, w\)\. One of them is transposed"),
    ],
)
def test_bad_h5(tmp_path, arrays, message):
    write_h5(tmp_path / "train/s/a.h5", **arrays)
    data = NYUDepthV2(tmp_path, "train")
    with pytest.raises(ValueError, match=message):
        data[0]


def test_damaged_and_missing_h5(h5_root):
    path = h5_root / "train/den/00001.h5"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"00001\.h5: expected an HDF5 file, found .*truncated.*Copy it again"):
        read_h5(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"00001\.h5: expected an HDF5 file"):
        read_h5(path)
    data = NYUDepthV2(h5_root, "train")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"No file at .*00001\.h5"):
        data[0]


def test_labelled_without_usable_splits(labelled):
    splits = labelled.with_name("splits.mat")
    scipy.io.savemat(splits, {"testNdxs": np.array([[2], [6]])})
    with pytest.raises(ValueError, match=r"splits\.mat: expected numbers from 1 to 5.* found 2 to 6"):
        NYUDepthV2(labelled, "val")
    with pytest.raises(ValueError, match=rf"splits\.mat: expected a MATLAB file with 'trainNdxs'.*{SPLITS_URL}"):
        NYUDepthV2(labelled, "train")
    splits.write_text("<html>404</html>" * 20)
    with pytest.raises(ValueError, match=rf"splits\.mat: expected a MATLAB file.*{SPLITS_URL}"):
        NYUDepthV2(labelled, "val")
    splits.unlink()
    with pytest.raises(FileNotFoundError, match=rf"splits\.mat.*Eigen's 654.*{SPLITS_URL}"):
        NYUDepthV2(labelled, "val")


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("rawDepths", None, r"expected 'images' and 'rawDepths', found \['#refs#', 'depths', 'images', 'scenes'\]"),
        ("rawDepths", np.ones((5, H, W), np.float32), r"'rawDepths' as \(n, w, h\).*found \(5, 6, 8\) float32"),
        ("rawDepths", np.ones((5, W, H), np.uint16), r"'rawDepths' as \(n, w, h\).*found \(5, 8, 6\) uint16"),
        ("images", np.ones((5, W, H, 3), np.uint8), r"'images' as \(n, 3, w, h\) uint8, found \(5, 8, 6, 3\)"),
    ],
)
def test_bad_labelled_file(labelled, key, array, message):
    with h5py.File(labelled, "a") as file:
        del file[key]
        if array is not None:
            file[key] = array
    with pytest.raises(ValueError, match=message):
        NYUDepthV2(labelled, "val")


def test_labelled_file_that_is_no_hdf5(labelled):
    labelled.write_bytes(labelled.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"labeled\.mat: expected an HDF5 file, found one that is cut short"):
        NYUDepthV2(labelled, "val")


def test_bad_png(png_root):
    data = NYUDepthV2(png_root, "train")
    depth = png_root / "bathroom_0001/sync_depth_1.png"
    cv2.imwrite(str(depth), np.ones((H, W), np.uint8))
    with pytest.raises(ValueError, match=r"sync_depth_1\.png: expected a 16-bit PNG.*found \(6, 8\) uint8"):
        data[0]
    cv2.imwrite(str(depth), np.ones((H, W, 3), np.uint16))
    with pytest.raises(ValueError, match=r"one value per pixel.*found an array of \(6, 8, 3\)"):
        data[0]
    cv2.imwrite(str(depth), np.ones((H, W + 1), np.uint16))
    with pytest.raises(ValueError, match=r"sync_depth_1\.png: .*one size, found \(6, 8\) and \(6, 9\)"):
        data[0]
    cv2.imwrite(str(depth), np.zeros((H, W), np.uint16))
    with pytest.raises(ValueError, match=r"rgb_1\.png: expected some depth, found nothing but holes"):
        data[0]
    depth.write_bytes(b"")
    with pytest.raises(ValueError, match=r"sync_depth_1\.png: expected an image"):
        data[0]
    depth.unlink()
    with pytest.raises(FileNotFoundError, match=r"No file at .*sync_depth_1\.png.*data\.root"):
        data[0]


def test_an_image_in_both_lists(png_root):
    (png_root / "nyudepthv2_test_files_with_gt.txt").write_text("/study_0003/rgb_1.png study_0003/sync_depth_1.png\n")
    message = (
        r"train_files_with_gt\.txt: expected no image of nyudepthv2_test_files_with_gt\.txt, found 1 \(study_0003/"
    )
    with pytest.raises(ValueError, match=message):
        NYUDepthV2(png_root, "train")
    with pytest.raises(
        ValueError, match=r"test_files_with_gt\.txt: expected no image of nyudepthv2_train_files_with_gt"
    ):
        NYUDepthV2(png_root, "val")


def test_bad_list_file(png_root):
    (png_root / "train.txt").touch()
    with pytest.raises(ValueError, match=r"one list file for the train split, found \['nyu.*', 'train\.txt'\]"):
        NYUDepthV2(png_root, "train")
    (png_root / "nyudepthv2_train_files_with_gt.txt").unlink()
    with pytest.raises(ValueError, match=r"The train split of .* is empty"):
        NYUDepthV2(png_root, "train")
    (png_root / "train.txt").write_text("a.png b.png\nalone.png\n")
    with pytest.raises(ValueError, match=r"train\.txt, line 2: expected 'image depth \[focal\]', found 'alone\.png'"):
        NYUDepthV2(png_root, "train")

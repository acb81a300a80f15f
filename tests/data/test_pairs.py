import json
import logging
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from depth_lightning.data import DepthEncoding, DepthPairs
from depth_lightning.runs.objects import dataset_of
from depth_lightning.sample import DepthKind
from depth_lightning.settings import SettingError

CONF = Path(__file__).resolve().parents[2] / "conf"


def write(root, image, depth, metres=2.0, size=(6, 8)):
    for path in (root / image, root / depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / image), np.full((6, 8, 3), (10, 20, 30), np.uint8))
    cv2.imwrite(str(root / depth), np.full(size, 1000 * metres, np.uint16))


def dataset(*overrides, split="train"):
    """What a user gets who types the overrides."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", ["data=pairs", *overrides])
    return dataset_of(cfg.data)(split=split)


@pytest.fixture
def folder(tmp_path):
    """Two scenes of two frames, whose depths are 1, 2, 3 and 4 m."""
    for number, (scene, frame) in enumerate((s, f) for s in "ab" for f in "01"):
        write(tmp_path, f"{scene}/rgb/{frame}.png", f"{scene}/depth/{frame}_mm.png", number + 1)
    return tmp_path


@pytest.mark.parametrize(
    ("image", "depth", "scenes"),
    [
        ("*/rgb/*.png", "*/depth/*_mm.png", {""}),
        ("**/rgb/?.png", "**/depth/?_mm.png", {""}),
        ("'{scene}/rgb/{frame}.{ext}'", "'{scene}/depth/{frame}_{unit}.png'", {"a", "b"}),
    ],
)
def test_patterns_find_what_belongs_together(image, depth, scenes, folder):
    overrides = [f"data.root={folder}", f"data.image={image}", f"data.depth={depth}", "data.depth_scale=1000"]
    samples = [s for split in ("train", "val") for s in dataset(*overrides, "data.val_share=0.5", split=split)]
    assert {s.id: s.target.mean() for s in samples} == {
        "a/rgb/0.png": 1,
        "a/rgb/1.png": 2,
        "b/rgb/0.png": 3,
        "b/rgb/1.png": 4,
    }
    assert {s.scene for s in samples} == scenes
    assert all(s.image[0, 0].tolist() == [30, 20, 10] and s.mask.all() for s in samples)


def test_folders_that_are_links_are_found(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("links")
    (root / "data").symlink_to(folder)
    pairs = DepthPairs("train", root, "**/rgb/*.png", "**/depth/*_mm.png", encoding=DepthEncoding(depth_scale=1000))
    assert len(pairs) == 3


def test_unmatched_files(folder, caplog):
    (folder / "a/depth/0_mm.png").rename(folder / "a/depth/9_mm.png")
    encoding = DepthEncoding(depth_scale=1000)
    with pytest.raises(
        ValueError,
        match=r"1 of 4 images without depth \(a/rgb/0\.png\), and 1 depth map without image \(a/depth/9_mm\.png\)"
        r".*data\.unmatched=skip",
    ):
        DepthPairs("train", folder, "*/rgb/*.png", "*/depth/*_mm.png", encoding=encoding)
    with caplog.at_level(logging.INFO):
        pairs = DepthPairs("train", folder, "*/rgb/*.png", "*/depth/*_mm.png", unmatched="skip", encoding=encoding)
    assert len(pairs) == 2
    assert "1 of 4 images without depth (a/rgb/0.png)" in caplog.text


@pytest.mark.parametrize(
    ("image", "depth", "message"),
    [
        ("*/color/*.png", "*/depth/*_mm.png", r"data\.image='\*/color/\*\.png'.*which holds \['a', 'b'\]"),
        ("*/rgb/*.png", "*/depth/*.exr", r"No file matches data\.depth='\*/depth/\*\.exr'"),
        ("*/rgb/*.*", "*/depth/*_mm.png", "has 3 wildcards .* has 2"),
        ("{scene}/rgb/0.png", "{scene}/depth/{frame}_mm.png", "several files for one image: a/depth/0_mm.png, a/"),
        ("a/rgb/0.png", "a/depth/0_mm.png", "nothing in common"),
    ],
)
def test_patterns_that_do_not_fit(image, depth, message, folder):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DepthPairs("train", folder, image, depth)


def test_masks(folder):
    for scene in "ab":
        for frame in "01":
            (folder / scene / "mask").mkdir(exist_ok=True)
            mask = np.zeros((6, 8), np.uint8)
            mask[2:] = 255
            cv2.imwrite(str(folder / scene / "mask" / f"{frame}.png"), mask)
    patterns = ("*/rgb/*.png", "*/depth/*_mm.png", "*/mask/*.png")
    sample = DepthPairs("train", folder, *patterns, encoding=DepthEncoding(depth_scale=1000))[0]
    assert sample.mask.tolist() == [[False] * 8] * 2 + [[True] * 8] * 4
    assert (sample.target[:2] == 0).all()
    (folder / "b/mask/1.png").unlink()
    with pytest.raises(ValueError, match=r"1 image without a mask '\*/mask/\*\.png' \(b/rgb/1\.png\)"):
        DepthPairs("train", folder, *patterns)
    cv2.imwrite(str(folder / "b/mask/1.png"), np.ones((3, 4), np.uint8))
    pairs = DepthPairs("train", folder, *patterns, split_list=["a"], encoding=DepthEncoding(depth_scale=1000))
    with pytest.raises(ValueError, match=r"mask of the depth map's size \(6, 8\), found \(3, 4\) in .*b/mask/1\.png"):
        pairs[1]


def manifest(folder, text, name="my.csv"):
    (folder / name).write_text(text)
    return folder / name


def test_manifest(folder, tmp_path_factory, caplog):
    """Relative and absolute paths, columns in any order, an own scale for a row, and one column of no use."""
    rows = [
        ("train", "a/depth/0_mm.png", "a/rgb/0.png", "", "x"),
        ("train", folder / "a/depth/1_mm.png", folder / "a/rgb/1.png", "500", "x"),
        ("val", "b/depth/0_mm.png", "b/rgb/0.png", "", "y"),
        ("test", "b/depth/1_mm.png", "b/rgb/1.png", "", "y"),
    ]
    names = ("split", "depth", "image", "depth_scale", "weather")
    text = "\n".join(",".join(map(str, row)) for row in (names, *rows))
    lines = "\n".join(json.dumps({k: str(v) or None for k, v in zip(names, row, strict=True)}) for row in rows)
    elsewhere = tmp_path_factory.mktemp("manifests")
    for overrides in (
        [f"data.manifest={manifest(folder, text)}"],
        [f"data.manifest={manifest(elsewhere, text)}", f"data.root={folder}"],
        [f"data.manifest={manifest(folder, lines, 'my.jsonl')}"],
    ):
        with caplog.at_level(logging.INFO):
            train = dataset(*overrides, "data.depth_scale=1000")
        assert [(s.id, s.target.mean()) for s in train] == [("a/rgb/0.png", 1), ("a/rgb/1.png", 4)]
        (val,) = dataset(*overrides, "data.depth_scale=1000", split="val")
        assert (val.id, val.target.mean()) == ("b/rgb/0.png", 3)
    assert "the columns weather are not used" in caplog.text
    assert "'test': 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "rgb,depth\na/rgb/0.png,a/depth/0_mm.png\n", r"line 2: .*nothing for image among \['rgb', 'depth'\]"),
        ("a.csv", "image,depth\na/rgb/0.png,\n", "line 2: .*nothing for depth"),
        ("a.csv", "image,depth\na/rgb/0.png,a,b/depth/0_mm.png\n", "line 2: expected 2 cells"),
        ("a.csv", "image,depth\n", "found no row"),
        ("a.csv", "image,depth,focal_px\na/rgb/0.png,a/depth/0_mm.png,5mm\n", "line 2: expected a number, .*'5mm'"),
        (
            "a.csv",
            "image,depth\na/rgb/0.png,a/depth/0_mm.png\na/rgb/7.png,a/depth/7.png",
            r"names 2 .*line 3: .*7\.png",
        ),
        ("a.csv", "image,depth,depth_scale\na/rgb/0.png,a/depth/0_mm.png,0\nb/rgb/0.png,b/depth/0_mm.png,0", "above 0"),
        ("a.jsonl", "image,depth\n", "line 1: expected one JSON object per line"),
        ("a.jsonl", "[1]\n", r"line 1: expected a JSON object, found '\[1\]'"),
        ("a.txt", "image,depth\n", r"expected a manifest as \.csv or \.jsonl, found '\.txt'"),
    ],
)
def test_wrong_manifests(name, text, message, folder):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DepthPairs("train", manifest=manifest(folder, text, name))


def test_a_row_says_what_its_numbers_mean(folder):
    disparity = np.array([[0, 2], [4, np.nan]], np.float16).repeat(3, 0).repeat(4, 1)
    np.savez(folder / "label.npz", disparity=disparity)
    path = manifest(
        folder,
        "image,depth,kind,depth_scale,depth_offset,invalid\n"
        "a/rgb/0.png,a/depth/0_mm.png,,,,\n"
        "a/rgb/1.png,label.npz,Disparity,2,1,-1\n",
    )
    pairs = DepthPairs("all", manifest=path, encoding=DepthEncoding(depth_scale=1000))
    depth, label = pairs[0], pairs[1]
    assert depth.kind == DepthKind.METRES and (depth.target == 1).all()
    assert label.kind == DepthKind.DISPARITY and (label.mask == ~np.isnan(disparity)).all()
    np.testing.assert_array_equal(label.target, np.where(label.mask, np.nan_to_num(disparity) / 2 + 1, 0))
    wrong = manifest(folder, "image,depth,kind\na/rgb/0.png,a/depth/0_mm.png,meters\n")
    message = r"^a/rgb/0\.png, in its row of the manifest: kind is one of metres, .* found 'meters'"
    with pytest.raises(ValueError, match=message):
        DepthPairs("all", manifest=wrong)


def test_nothing_is_chosen(folder):
    with pytest.raises(ValueError, match=r"data\.root=… with data\.image=.*or data\.manifest=my\.csv"):
        dataset()
    with pytest.raises(FileNotFoundError, match=r"No manifest at data\.manifest=/nowhere/my\.csv"):
        dataset("data.manifest=/nowhere/my.csv")
    with pytest.raises(FileNotFoundError, match=r"No folder at data\.root=/nowhere"):
        dataset("data.root=/nowhere", "data.image=a*", "data.depth=b*")
    with pytest.raises(SettingError, match=r"^data\.kind is one of metres, up_to_scale, disparity, found 'inches'\.$"):
        dataset("data.kind=inches")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data.val_share=0", r"^data\.val_share is a number .* below 1, found 0\. .* split=all scores every image\.$"),
        ("data.unmatched=warn", r"^data\.unmatched is error or skip, found 'warn'\.$"),
        ("data.depth_key=3", r"^data\.depth_key is a name, found 3\."),
        (
            "data.split_list=3",
            r"^data\.split_list is a file below root, or a list .*, found 3\.$",
        ),
        ("data.root=2011_09_26", r"^data\.root is a path or a pattern, found 20110926\. .*quotes"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(typed, message):
    with pytest.raises(SettingError, match=message):
        dataset("data.manifest=/nowhere/my.csv", typed)


def test_millimetres_are_refused_and_can_be_looked_at(folder):
    pairs = DepthPairs("train", folder, "*/rgb/*.png", "*/depth/*_mm.png", split_list=["b"])
    with pytest.raises(ValueError, match=r"a/depth/0_mm\.png: expected depth in metres.*data\.depth_scale=1000\?"):
        pairs[0]
    assert (pairs.read(0).target == 1000).all()


def test_aspects_that_differ(folder):
    encoding = DepthEncoding(depth_scale=1000)
    patterns = ("train", folder, "{scene}/rgb/*.png", "{scene}/depth/*_mm.png")
    write(folder, "a/rgb/0.png", "a/depth/0_mm.png", size=(3, 4))
    sample = DepthPairs(*patterns, split_list=["b"], encoding=encoding)[0]
    assert (sample.image.shape, sample.target.shape) == ((6, 8, 3), (3, 4))
    write(folder, "a/rgb/0.png", "a/depth/0_mm.png", size=(8, 6))
    with pytest.raises(ValueError, match=r"a/depth/0_mm\.png: .*found depth 8×6 for 6×8 of .*a/rgb/0\.png"):
        DepthPairs(*patterns, split_list=["b"], encoding=encoding)[0]


def _layout(name, root):
    """Two scenes of the releases that the yamls are for, as (image, depth)."""
    frames = {
        "kitti": (
            "2011_09_26/2011_09_26_drive_000{i}_sync/image_02/data/0000000005.png",
            "{split}/2011_09_26_drive_000{i}_sync/proj_depth/groundtruth/image_02/0000000005.png",
        ),
        "hypersim": (
            "ai_001_00{i}/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg",
            "ai_001_00{i}/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5",
        ),
        "vkitti2": (
            "Scene{scene}/fog/frames/rgb/Camera_1/rgb_00007.jpg",
            "Scene{scene}/fog/frames/depth/Camera_1/depth_00007.png",
        ),
        "diode": (
            "{split}/indoors/scene_0000{i}/scan_00019/0000{i}_00019_indoors_000_010.png",
            "{split}/indoors/scene_0000{i}/scan_00019/0000{i}_00019_indoors_000_010_depth.npy",
        ),
        "middlebury": ("Adirondack{i}/im0.png", "Adirondack{i}/disp0.pfm"),
    }[name]
    values = [{"i": i, "split": split, "scene": scene} for i, split, scene in ((1, "train", "01"), (2, "val", "20"))]
    return [tuple(path.format(**value) for path in frames) for value in values]  # type: ignore[misc]


@pytest.mark.parametrize("name", ["kitti", "hypersim", "vkitti2", "diode", "middlebury"])
def test_yamls_find_the_layouts_of_their_releases(name, tmp_path):
    for image, depth in _layout(name, tmp_path):
        write(tmp_path, image, "rubbish.png")
        path = tmp_path / depth
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "hypersim":
            with h5py.File(path, "w") as file:
                x, y = np.arange(8) - 3.5, np.arange(6)[:, None] - 2.5
                distance = 5 * np.sqrt(1 + (x**2 + y**2) / (886.81 * 8 / 1024) ** 2)
                file["dataset"] = np.where(np.arange(8) % 2, np.nan, distance).astype(np.float16)
        elif name == "diode":
            np.save(path, np.full((6, 8, 1), 5, np.float32))
            np.save(str(path).replace("_depth", "_depth_mask"), np.array([[1, 0] * 4] * 6, np.float32))
        elif name == "middlebury":
            cv2.imwrite(str(path), np.array([[5, np.inf] * 4] * 6, np.float32))
        else:
            unit, hole = {"kitti": (256, 0), "vkitti2": (100, 65535)}[name]
            cv2.imwrite(str(path), np.array([[5 * unit, hole] * 4] * 6, np.uint16))
    if name == "kitti":  # a drive's first frames have no depth
        write(tmp_path, "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png", "rubbish.png")
    for split in ("train", "val"):
        (sample,) = dataset(f"data={name}", f"data.root={tmp_path}", split=split)
        assert sample.kind == (DepthKind.DISPARITY if name == "middlebury" else DepthKind.METRES)
        assert sample.scene
        assert sample.mask.tolist() == [[True, False] * 4] * 6
        np.testing.assert_allclose(sample.target[sample.mask], 5, rtol=1e-3 if name == "hypersim" else 1e-6)

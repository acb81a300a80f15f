"""Data sets by their yaml, on small imitations of the layouts that their authors describe."""

import json
import logging
import re

import cv2
import numpy as np
import pytest
import scipy.io

from depth_lightning.data.stereo import OAKD, match, write_oakd_depth
from depth_lightning.data.tum import associate, read_frames
from depth_lightning.runs.objects import dataset_of
from depth_lightning.sample import DepthKind
from depth_lightning.settings import SettingError

H, W = 28, 42
RGB = (30, 20, 10)


def image(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), RGB[::-1], np.uint8))


def depth(path, stored, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.broadcast_to(np.asarray(stored, np.uint16), size).copy()
    values[0, 0] = 0
    cv2.imwrite(str(path), values)


@pytest.fixture
def opened(compose_config, tmp_path):
    """opened(name, split, overrides): a split of data=name in tmp_path."""

    def open_split(name, split, *overrides):
        cfg = compose_config("train", [f"data={name}", f"data.root={tmp_path}", *overrides])
        return dataset_of(cfg.data)(split=split)

    return open_split


def samples(data):
    """Id → (scene, depth of the last pixel in metres), once the rest of each sample is as written."""
    found = {}
    for index in range(len(data)):
        sample = data[index]
        assert sample.kind == DepthKind.METRES and sample.image.shape[2] == 3
        assert np.abs(sample.image[0, 0].astype(int) - RGB).max() <= 3  # JPEG
        assert not sample.mask[0, 0] and sample.mask[-1, -1] and sample.target[0, 0] == 0
        found[sample.id] = sample.scene, pytest.approx(float(sample.target[-1, -1]), rel=1e-6)
    return found


def test_eth3d(opened, tmp_path):
    """https://www.eth3d.net/documentation: float32 dumps under the images' names, infinity where unknown."""
    for number, scene in enumerate(("courtyard", "relief_2"), start=1):
        image(tmp_path / scene / "images/dslr_images/DSC_0001.JPG")
        image(tmp_path / scene / "images/dslr_images/DSC_0002.JPG")  # without depth
        path = tmp_path / scene / "ground_truth_depth/dslr_images/DSC_0001.JPG"
        path.parent.mkdir(parents=True)
        values = np.arange(H * W, dtype="<f4").reshape(H, W) / 100 + number
        values[0, 0] = np.inf
        path.write_bytes(values.tobytes())
    data = opened("eth3d", "val")
    last = (H * W - 1) / 100
    names = [f"{scene}/images/dslr_images/DSC_0001.JPG" for scene in ("courtyard", "relief_2")]
    assert samples(data) == {names[0]: ("courtyard", 1 + last), names[1]: ("relief_2", 2 + last)}
    np.testing.assert_allclose(data[0].target[1], values[1] - 1, rtol=1e-6)  # rows are rows
    with pytest.raises(ValueError, match="The train split is empty"):
        opened("eth3d", "train")
    assert len(opened("eth3d", "train", "data.split_list=[relief_2]")) == 1
    path.write_bytes(values.tobytes()[:-4])
    message = (
        r"expected 4704 bytes, a float32 for each pixel of .*DSC_0001\.JPG \(28×42, h×w\), found 4700\. .*dslr_jpg"
    )
    with pytest.raises(ValueError, match=rf"^{path}: {message}"):
        opened("eth3d", "val")[1]


def test_ibims1(opened, tmp_path):
    """The readme of ibims1_core_raw: 16 bits whose 65535 is 50 m; mask_invalid is 0 where depth is invalid."""
    for name, stored in (("livingroom_01", 65535), ("office_02", 2621)):
        image(tmp_path / f"rgb/{name}.png")
        depth(tmp_path / f"depth/{name}.png", stored)
        for mask in ("mask_invalid", "mask_transp"):
            valid = np.full((H, W), 255, np.uint8)
            valid[3] = 0 if mask == "mask_invalid" else 255
            (tmp_path / mask).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / mask / f"{name}.png"), valid, [cv2.IMWRITE_PNG_BILEVEL, 1])
    data = opened("ibims1", "val")
    assert samples(data) == {"rgb/livingroom_01.png": ("", 50), "rgb/office_02.png": ("", 2621 / 65535 * 50)}
    assert not data[0].mask[3].any() and data[0].mask[4].all()
    with pytest.raises(ValueError, match="The train split is empty"):
        opened("ibims1", "train")


def sequence(folder, images, maps):
    """A TUM sequence: image times, and times of depth maps → metres."""
    for kind, times in (("rgb", images), ("depth", maps)):
        for time in times:
            if kind == "rgb":
                image(folder / f"rgb/{time}.png")
            else:
                depth(folder / f"depth/{time}.png", round(5000 * maps[time]))
        lines = [f"{time} {kind}/{time}.png" for time in times]
        (folder / f"{kind}.txt").write_text("\n".join([f"# {kind} maps", "# timestamp filename", *lines, ""]))


def test_tum(opened, tmp_path):
    """https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: lists of times, 5000 stored units per metre."""
    sequence(
        tmp_path / "rgbd_dataset_freiburg1_desk",
        ["1.000000", "1.033000", "1.090000"],
        {"1.005000": 1.5, "1.030000": 2.5},
    )
    sequence(tmp_path / "rgbd_dataset_freiburg3_sitting", ["7.100000"], {"7.119900": 4, "7.120000": 5})
    found = samples(opened("tum", "train")) | samples(opened("tum", "val"))
    assert found == {
        "rgbd_dataset_freiburg1_desk/rgb/1.000000.png": ("rgbd_dataset_freiburg1_desk", 1.5),
        "rgbd_dataset_freiburg1_desk/rgb/1.033000.png": ("rgbd_dataset_freiburg1_desk", 2.5),
        "rgbd_dataset_freiburg3_sitting/rgb/7.100000.png": ("rgbd_dataset_freiburg3_sitting", 4),
    }
    longer = [len(opened("tum", split, "data.max_difference_s=0.07")) for split in ("train", "val")]
    assert sum(longer) == 3  # a depth map belongs to one image
    with pytest.raises(SettingError, match=r"^data\.max_difference_s is a number above 0, found 0"):
        opened("tum", "val", "data.max_difference_s=0")
    with pytest.raises(
        ValueError, match=r"desk/rgb\.txt: expected frames at the times of .*within data\.max_difference_s=0\.001"
    ):
        opened("tum", "val", "data.max_difference_s=0.001")
    images = ["data.image='*/rgb/*.png'", "data.depth='*/rgb/*.png'"]
    with pytest.raises(SettingError, match=r"^data\.image names lists of frames, as \*\*/rgb\.txt does, found"):
        opened("tum", "val", *images)


def test_frames_are_associated_as_the_benchmark_does():
    """Against its description: of all pairs closer than the limit, the closest first, and none twice."""
    rng = np.random.default_rng(0)
    first, second = (np.unique(np.cumsum(rng.uniform(0, 0.05, 200))).tolist() for _ in range(2))
    free, expected = (set(first), set(second)), []
    for _, a, b in sorted((abs(a - b), a, b) for a in first for b in second if abs(a - b) < 0.02):
        if a in free[0] and b in free[1]:
            free[0].remove(a)
            free[1].remove(b)
            expected.append((a, b))
    assert associate(first, second, 0.02) == sorted(expected) and 50 < len(expected) < 200


@pytest.mark.parametrize("line", ["1.5", "one rgb/1.png", "1.5 "])
def test_a_broken_list_of_frames_is_named(line, tmp_path):
    (tmp_path / "rgb.txt").write_text(f"# times\n1.0 rgb/0.png\n{line}\n")
    with pytest.raises(ValueError, match=rf"rgb\.txt, line 3: expected 'timestamp file', found '{line}'"):
        read_frames(tmp_path / "rgb.txt")


def rotated(millimetres):
    """As SUN RGB-D stores it: the low three bits of its 16 come last."""
    return (millimetres << 3 | millimetres >> 13) & 0xFFFF


VIEWS = (
    "kv1/NYUdata/NYU0001",
    "kv2/kinect2data/000002_2014-05-26_rgbf000103-resize",
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000001-000000020431",
)


def sunrgbd(root):
    for view, millimetres in zip(VIEWS, (1234, 7999, 5), strict=True):
        image(root / "SUNRGBD" / view / "image/0000001-000000020431.jpg")
        depth(root / "SUNRGBD" / view / "depth/0000002-000000033369.png", rotated(millimetres))
        depth(root / "SUNRGBD" / view / "depth_bfx/0000002-000000033369.png", rotated(2000))
        image(root / "SUNRGBD" / view / "fullres/0000001.jpg")
    cells = {}
    for key, views in (("alltrain", VIEWS[:2]), ("alltest", VIEWS[2:])):
        cells[key] = np.empty((1, len(views)), object)
        for index, view in enumerate(views):
            cells[key][0, index] = f"/n/fs/sun3d/data/SUNRGBD/{view}" + "/" * index
    (root / "SUNRGBDtoolbox/traintestSUNRGBD").mkdir(parents=True)
    scipy.io.savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", cells)


def test_sunrgbd(opened, tmp_path, caplog):
    """read3dPoints.m and allsplit.mat of https://rgbd.cs.princeton.edu: 16 bits rotated by three, an official split."""
    sunrgbd(tmp_path)
    names = [f"SUNRGBD/{view}/image/0000001-000000020431.jpg" for view in VIEWS]
    assert samples(opened("sunrgbd", "train")) == {names[0]: ("", 1.234), names[1]: ("", 7.999)}
    val = opened("sunrgbd", "val")
    assert [val.read(index).id for index in range(len(val))] == names[2:]
    assert val.read(0).target[-1, -1] == np.float32(0.005)
    filled = opened("sunrgbd", "train", "data.depth='SUNRGBD/**/depth_bfx/{depth}.png'")
    assert list(samples(filled).values()) == [("", 2.0)] * 2
    assert len(opened("sunrgbd", "train", f"data.split_list=[{VIEWS[0]}]")) == 2
    (tmp_path / "SUNRGBDtoolbox").rename(tmp_path / "elsewhere")
    assert len(opened("sunrgbd", "val", "data.val_share=0.4")) == 1
    with caplog.at_level(logging.WARNING):
        opened("sunrgbd", "train", "data.val_share=0.4")
    assert "images are split one by one" in caplog.text


def test_sunrgbd_of_another_layout(opened, tmp_path):
    sunrgbd(tmp_path)
    cells = {key: np.array([["/n/fs/other"]], object) for key in ("alltrain", "alltest")}
    scipy.io.savemat(tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", cells)
    with pytest.raises(
        ValueError, match=r"allsplit\.mat: expected the folders of the views below .*, found none, such as kv1/NYU"
    ):
        opened("sunrgbd", "train")
    scipy.io.savemat(tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", {"other": 1})
    with pytest.raises(ValueError, match=r"allsplit\.mat: expected allsplit\.mat with 'alltrain' and 'alltest', found"):
        opened("sunrgbd", "train")


def test_sunrgbd_of_eight_bits(opened, tmp_path):
    sunrgbd(tmp_path)
    path = tmp_path / "SUNRGBD" / VIEWS[0] / "depth/0000002-000000033369.png"
    cv2.imwrite(str(path), np.full((H, W), 9, np.uint8))
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))}: expected one channel of 16 bits, as data\.packing=sunrgbd"
    ):
        opened("sunrgbd", "train")[0]


def test_scannet(opened, tmp_path):
    """SensReader of https://github.com/ScanNet/ScanNet: color and depth, in millimetres; lists of scans."""
    for number, scan in enumerate(("scene0000_00", "scene0000_01", "scene0707_00"), start=1):
        image(tmp_path / scan / "color/0.jpg", (121, 162))  # 968×1296, and 480×640 for depth
        depth(tmp_path / scan / "depth/0.png", 1000 * number, (60, 80))
    with pytest.raises(FileNotFoundError, match=r"No list file at data\.split_list=.*scannetv2_val\.txt"):
        opened("scannet", "val")
    (tmp_path / "scannetv2_train.txt").write_text("scene0000_00\nscene0000_01\n")
    (tmp_path / "scannetv2_val.txt").write_text("scene0707_00\n")
    train = {f"scene0000_0{scan}/color/0.jpg": ("scene0000", scan + 1) for scan in (0, 1)}
    assert samples(opened("scannet", "train")) == train
    assert samples(opened("scannet", "val")) == {"scene0707_00/color/0.jpg": ("scene0707", 3)}
    assert samples(opened("scannet", "train", "data.split_list=null", "data.val_share=0.5")).keys() <= {
        *train,
        "scene0707_00/color/0.jpg",
    }


def test_arkitscenes(opened, tmp_path):
    """depth_upsampling/README.md and dataset.py of https://github.com/apple/ARKitScenes; millimetres, DATA.md."""
    for number, (fold, video) in enumerate((("Training", "41069021"), ("Validation", "41069042")), start=1):
        folder, name = tmp_path / fold / video, f"{video}_305.244.png"
        image(folder / "wide" / name)
        image(folder / "wide" / f"{video}_306.png")  # without depth
        depth(folder / "highres_depth" / name, 1000 * number)
        image(folder / "lowres_wide" / name, (14, 21))
        depth(folder / "lowres_depth" / name, 5000, (14, 21))
    assert samples(opened("arkitscenes", "train")) == {"Training/41069021/wide/41069021_305.244.png": ("41069021", 1)}
    assert samples(opened("arkitscenes", "val")) == {"Validation/41069042/wide/41069042_305.244.png": ("41069042", 2)}
    lidar = [
        f"data.{key}='{{fold}}/{{scene}}/lowres_{kind}/*.png'" for key, kind in (("image", "wide"), ("depth", "depth"))
    ]
    assert samples(opened("arkitscenes", "val", *lidar)) == {
        "Validation/41069042/lowres_wide/41069042_305.244.png": ("41069042", 5)
    }


def pair(disparity, size=(120, 256)):
    """A textured plane seen by two cameras, and what is nearer: a square in its middle."""
    rng = np.random.default_rng(0)
    texture = [
        cv2.GaussianBlur(rng.integers(0, 256, (size[0], size[1] + 64, 3), np.uint8), (3, 3), 0) for _ in range(2)
    ]
    views = []
    for camera in (0, 1):  # in the right image everything is farther to the left
        view = texture[0][:, 32 + disparity * camera :][:, : size[1]].copy()
        left = 120 - 2 * disparity * camera
        view[40:80, left : left + 60] = texture[1][40:80, :60]
        views.append(view)
    return views


def test_semi_global_matching_finds_a_known_disparity():
    left, right = pair(8)
    disparity = match(left, right, disparities=64)
    near, far = disparity[44:76, 124:176], disparity[:30]
    assert (near[near > 0] == pytest.approx(16, abs=0.5)) and (near > 0).mean() > 0.9
    assert np.median(far[far > 0]) == pytest.approx(8, abs=0.1) and (far[:, 8:] > 0).mean() > 0.9
    assert (disparity[:, :4] == 0).all()  # not in the right image
    occluded = disparity[42:78, 112:119]  # beside the square, seen by the left camera alone
    assert (occluded > 0).mean() < 0.35


def test_oakd(opened, tmp_path):
    """metres = fx · baseline / disparity: 450 · 0.075 / 8."""
    camera = {"width": 256, "height": 120, "fx": 450, "baseline_meters": 0.075}
    camera["left_image_rect_normalized"] = [0, 0.1, 0.9, 1]
    folder = tmp_path / OAKD
    folder.mkdir(parents=True)
    (folder / "stereodemo_calibration.json").write_text(json.dumps(camera))
    for name in ("desk", "stairs"):
        for side, view in zip(("left", "right"), pair(8), strict=True):
            cv2.imwrite(str(folder / f"{name}_{side}.png"), view)
    write_oakd_depth(tmp_path)
    stored = cv2.imread(str(folder / "desk_depth.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and np.median(stored[stored > 0]) == pytest.approx(1000 * 450 * 0.075 / 8, abs=60)
    assert not stored[:12].any() and not stored[:, 231:].any() and stored[13].any()
    data = [opened("oakd", split, f"data.root={folder}")[0] for split in ("train", "val")]
    assert {sample.scene for sample in data} == {"desk", "stairs"}
    assert np.median(data[0].target[data[0].mask]) == pytest.approx(450 * 0.075 / 8, rel=0.02)


def test_oakd_without_its_calibration(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"stereodemo_calibration\.json"):
        write_oakd_depth(tmp_path)
    (tmp_path / OAKD).mkdir(parents=True)
    (tmp_path / OAKD / "stereodemo_calibration.json").write_text('{"fx": 450}')
    with pytest.raises(ValueError, match=r"stereodemo_calibration\.json: expected a calibration of stereodemo, found"):
        write_oakd_depth(tmp_path)

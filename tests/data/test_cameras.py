"""The cameras of data sets: declared, in a manifest, in published calibration files, and in shards."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from depth_lightning import camera
from depth_lightning.data import RenderedRooms, calibrations, raycast, rooms
from depth_lightning.data.calibrations import intrinsics_of, read_calibration
from depth_lightning.data.shard_format import decode, encode
from depth_lightning.runs.objects import dataset_of
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import SettingError
from tests.data.test_pairs import CONF

H, W = 30, 40


def image(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 99, np.uint8))


def depth(path, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size, 2000, np.uint16))


def opened(name, root, *overrides, split="train"):
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", [f"data={name}", f"data.root={root}", *overrides])
    return dataset_of(cfg.data)(split=split)


@pytest.fixture
def pairs(tmp_path):
    """A function that opens two pairs of images with the overrides."""
    for number in range(2):
        image(tmp_path / f"rgb/{number}.png")
        depth(tmp_path / f"depth/{number}.png")
    own = ["data.image=rgb/*.png", "data.depth=depth/*.png", "data.depth_scale=1000", "data.val_share=0.5"]
    return lambda *overrides: opened("pairs", tmp_path, *own, *overrides)


def test_no_camera_is_assumed(pairs):
    assert np.isnan(pairs()[0].intrinsics).all()


def test_declared_intrinsics_are_scaled_to_the_images(pairs):
    known = pairs("data.intrinsics=[300,310,199.5,149.5]", "data.intrinsics_size=[300,400]")[0].intrinsics
    assert known.dtype == np.float32
    np.testing.assert_allclose(known, [30, 31, 19.5, 14.5])  # the centre stays the centre
    np.testing.assert_allclose(pairs("data.intrinsics=[30,31,19.5,14.5]")[0].intrinsics, known)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.intrinsics=[300,310,199.5]"], r"^data\.intrinsics is \[fx,fy,cx,cy\] in pixels, found \[300,"),
        (["data.intrinsics=[300,0,199.5,2]"], r"^data\.intrinsics is \[fx,fy,cx,cy\] with focal lengths above 0"),
        (["data.intrinsics_size=[30,40]"], r"^data\.intrinsics_size is the size that intrinsics are for: set data"),
        (["data.intrinsics=[3,3,2,2]", "data.intrinsics_size=[30,0]"], r"^data\.intrinsics_size is \[h,w\]"),
        (["data.calibration=nyu"], r"^data\.calibration is one of kitti, vkitti2, .*, found 'nyu'"),
    ],
)
def test_declarations_that_cannot_be_right(pairs, overrides, message):
    with pytest.raises(SettingError, match=message):
        pairs(*overrides)


def test_intrinsics_of_another_image_are_refused(pairs):
    with pytest.raises(ValueError, match=r"rgb/\d\.png: The intrinsics are for 400×400, and the image is 40×30"):
        pairs("data.intrinsics=[300,310,199.5,149.5]", "data.intrinsics_size=[400,400]")[0]
    with pytest.raises(
        ValueError, match=r"point \(199\.5, 149\.5\) is outside .* 40×30 .*data\.intrinsics_size=\[h,w\]"
    ):
        pairs("data.intrinsics=[300,310,199.5,149.5]")[0]


def manifest(root, header, *rows):
    for number in range(len(rows)):
        image(root / f"{number}.png", (H, W) if number < 2 else (W, H))
        depth(root / f"{number}_d.png", (H, W) if number < 2 else (W, H))
    lines = [f"image,depth,split,{header}", *(f"{n}.png,{n}_d.png,train,{row}" for n, row in enumerate(rows))]
    (root / "table.csv").write_text("\n".join(lines))
    return opened("pairs", root, f"data.manifest={root}/table.csv", "data.depth_scale=1000")


def test_rows_of_a_manifest_have_cameras_of_their_own(tmp_path):
    data = manifest(tmp_path, "fx,fy,cx,cy,fov_deg", "35,36,20,15,", ",,,,90", ",,,,90", ",,,,")
    np.testing.assert_allclose(data[0].intrinsics, [35, 36, 20, 15])
    np.testing.assert_allclose(data[1].intrinsics, [20, 20, 19.5, 14.5])  # of the longer side, so that
    np.testing.assert_allclose(data[2].intrinsics, [20, 20, 14.5, 19.5])  # an upright image has the same focal length
    assert np.isnan(data[3].intrinsics).all()


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("fx,fy,cx,cy", "35,36,20,", r"0\.png, in its row of the manifest: expected .* found fx and fy and cx"),
        ("fx,fov_deg", "35,60", r"expected a camera as fx, fy, cx and cy, or as fov_deg, found fx and fov_deg"),
        ("fov_deg", "180", r"0\.png, in its row of the manifest: fov_deg is a number above 0 and below 180, found 180"),
        ("fx,fy,cx,cy", "-35,36,20,3", r"fx, fy, cx, cy is \[fx,fy,cx,cy\] with focal lengths above 0"),
    ],
)
def test_rows_whose_camera_cannot_be_right(tmp_path, header, row, message):
    with pytest.raises(ValueError, match=message):
        manifest(tmp_path, header, row)


def test_kitti(tmp_path):
    """calib_cam_to_cam.txt as the devkit of the raw data describes it; image_02 and image_03 differ."""
    drive = "2011_09_26_drive_0001_sync"
    for side in ("image_02", "image_03"):
        image(tmp_path / f"2011_09_26/{drive}/{side}/data/0000000005.png", (75, 248))
        depth(tmp_path / f"train/{drive}/proj_depth/groundtruth/{side}/0000000005.png", (75, 248))
    (tmp_path / "2011_09_26/calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\n"
        "S_rect_02: 1.242000e+03 3.750000e+02\n"
        "P_rect_02: 7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.728540e+02 2.163791e-01 0 0 1 2.7e-03\n"
        "S_rect_03: 1.242000e+03 3.750000e+02\n"
        "P_rect_03: 7.3e+02 0 6.1e+02 4.4e+01 0 7.4e+02 1.7e+02 2.1e-01 0 0 1 2.7e-03\n"
    )
    for sample in (data := opened("kitti", tmp_path))[0], data[1]:
        sides = {"image_02": [721.5377, 721.5377, 609.5593, 172.854], "image_03": [730, 740, 610, 170]}
        expected = np.array(sides[sample.id.split("/")[2]])
        np.testing.assert_allclose(sample.intrinsics[:2], expected[:2] * [248 / 1242, 75 / 375], rtol=1e-5)
        np.testing.assert_allclose(sample.intrinsics[2] + 0.5, (expected[2] + 0.5) * 248 / 1242, rtol=1e-5)
    (tmp_path / "2011_09_26/calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3\nS_rect_02: 1242 375\n")
    calibrations._text.cache_clear()
    with pytest.raises(ValueError, match=r"calib_cam_to_cam\.txt: expected 12 numbers, found 3"):
        data[0]


def test_eth3d(tmp_path):
    """COLMAP's cameras.txt and images.txt; its first pixel's centre is at (0.5, 0.5)."""
    for name in ("DSC_1", "DSC_2"):
        image(tmp_path / f"pipes/images/dslr_images/{name}.JPG")
        path = tmp_path / f"pipes/ground_truth_depth/dslr_images/{name}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(np.full(H * W, 2, "<f4").tobytes())
    folder = tmp_path / "pipes/dslr_calibration_jpg"
    folder.mkdir()
    (folder / "cameras.txt").write_text(
        "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n7 THIN_PRISM_FISHEYE 400 300 340 341 201 149 0.1 0.2\n"
    )
    (folder / "images.txt").write_text(
        "# IMAGE_ID, QW, …\n1 1 0 0 0 0 0 0 7 dslr_images/DSC_1.JPG\n1.5 2.5 3 1.5 2.5 4\n"
    )
    first, second = (opened("eth3d", tmp_path, split="val")[index] for index in range(2))
    np.testing.assert_allclose(first.intrinsics, [34, 34.1, 20.1 - 0.5, 14.9 - 0.5], rtol=1e-6)
    assert np.isnan(second.intrinsics).all()  # not in the list


def test_ibims1_scannet_arkitscenes_sunrgbd_and_tum(tmp_path):
    image(tmp_path / "i/rgb/office_02.png")
    (tmp_path / "i/calib").mkdir()
    (tmp_path / "i/calib/office_02.txt").write_text("35.5,36.5,20.5,14.5\n")
    image(tmp_path / "s/scene0000_00/color/0.jpg")
    (tmp_path / "s/scene0000_00/intrinsic").mkdir()
    (tmp_path / "s/scene0000_00/intrinsic/intrinsic_color.txt").write_text("36 0 20 0\n0 37 15 0\n0 0 1 0\n0 0 0 1\n")
    image(tmp_path / "f/scene0000_00/color/0.jpg")
    (tmp_path / "f/scene0000_00/intrinsics_color.txt").write_text("38 0 20 0\n0 39 15 0\n0 0 1 0\n0 0 0 1\n")
    image(tmp_path / "a/Training/4/lowres_wide/4_305.244.png")
    (tmp_path / "a/Training/4/lowres_wide_intrinsics").mkdir()
    (tmp_path / "a/Training/4/lowres_wide_intrinsics/4_305.244.pincam").write_text("400 300 320 321 201 149")
    image(tmp_path / "u/SUNRGBD/kv1/NYU0001/image/x.jpg")
    (tmp_path / "u/SUNRGBD/kv1/NYU0001/intrinsics.txt").write_text("35 0 20 0 36 15 0 0 1")
    image(tmp_path / "t/rgbd_dataset_freiburg2_desk/rgb/1.png")
    found = {
        layout: read_calibration(layout.split()[0], tmp_path / path)
        for layout, path in {
            "ibims1": "i/rgb/office_02.png",
            "scannet": "s/scene0000_00/color/0.jpg",
            "scannet frames": "f/scene0000_00/color/0.jpg",
            "arkitscenes": "a/Training/4/lowres_wide/4_305.244.png",
            "sunrgbd": "u/SUNRGBD/kv1/NYU0001/image/x.jpg",
            "tum": "t/rgbd_dataset_freiburg2_desk/rgb/1.png",
        }.items()
    }
    assert found == {
        "ibims1": ((35.5, 36.5, 20.5, 14.5), None),
        "scannet": ((36, 37, 20, 15), None),
        "scannet frames": ((38, 39, 20, 15), None),
        "arkitscenes": ((320, 321, 201, 149), (300, 400)),
        "sunrgbd": ((35, 36, 20, 15), None),
        "tum": ((520.9, 521.0, 325.1, 249.7), (480, 640)),
    }
    for layout in ("kitti", "eth3d", "ibims1", "scannet", "arkitscenes", "sunrgbd", "tum"):
        assert read_calibration(layout, tmp_path / "nowhere/b/c/d.png") is None


@pytest.mark.parametrize(
    ("name", "size", "focal"), [("vkitti2", (375, 1242), 725.0087), ("hypersim", (768, 1024), 886.81)]
)
def test_sets_of_one_camera(name, size, focal):
    with initialize_config_dir(str(CONF), version_base=None):
        assert compose("train", [f"data={name}"]).data.calibration == name
    fx, fy, cx, cy = intrinsics_of(name, Path("x.png"), size)
    assert fx == fy == pytest.approx(focal)
    assert (cy, cx) == pytest.approx(((size[0] - 1) / 2, (size[1] - 1) / 2), abs=0.5)
    half = intrinsics_of(name, Path("x.png"), (size[0] // 2, size[1] // 2))
    assert half[0] == pytest.approx(focal / 2, rel=1e-3)
    assert np.isnan(intrinsics_of(name, Path("x.png"), (100, 100))).all()  # cropped


def test_rooms_have_the_camera_that_rendered_them(tmp_path):
    """Each pixel's ray, from the intrinsics alone, meets the room's floor, walls or furniture where its depth says."""
    sample = RenderedRooms(tmp_path, "val", 3, height=42, width=56)[2]
    fx, fy, cx, cy = sample.intrinsics.astype(float)
    number = (0, 1, 2)
    room = rooms.random_room(np.random.default_rng([*number, 0]))
    seen = rooms.random_camera(np.random.default_rng([*number, 1]), room.boxes)
    row, column = np.nonzero(sample.mask)
    rays = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones(len(row))])
    depth_m, _ = raycast.cast(room.boxes, seen.position, (seen.rotation @ rays).astype(np.float32))
    np.testing.assert_allclose(depth_m, sample.target[row, column], rtol=1e-5)


def test_shards_carry_the_camera():
    known = np.float32([518.86, 519.47, 325.58, 253.74])
    sample = DepthSample(
        np.zeros((H, W, 3), np.uint8), np.ones((H, W), np.float32), np.ones((H, W), bool), DepthKind.METRES, "a"
    )
    for intrinsics in (known, camera.UNKNOWN):
        files = encode(sample._replace(intrinsics=intrinsics))
        np.testing.assert_array_equal(decode(files, "here").intrinsics, intrinsics)
    old = {**files, "json": b'{"id": "a", "scene": "", "kind": "METRES"}'}
    assert np.isnan(decode(old, "here").intrinsics).all()

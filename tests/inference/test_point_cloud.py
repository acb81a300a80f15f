import numpy as np
import pytest

from depth_lightning.inference.point_cloud import (
    Intrinsics,
    flying_pixels,
    intrinsics_from_fov,
    parse_intrinsics,
    point_cloud,
    unproject,
    write_ply,
)
from depth_lightning.settings import SettingError

CAMERA = Intrinsics(500.0, 400.0, 30.5, 21.0)


def test_points_project_back_onto_their_pixels():
    depth = np.random.default_rng(0).uniform(0.5, 9, (48, 64)).astype(np.float32)
    x, y, z = np.moveaxis(unproject(depth, CAMERA), -1, 0)
    rows, columns = np.mgrid[:48, :64]
    np.testing.assert_allclose(500 * x / z + 30.5, columns, atol=1e-4)
    np.testing.assert_allclose(400 * y / z + 21.0, rows, atol=1e-4)
    np.testing.assert_array_equal(z, depth)


def test_field_of_view_reaches_from_edge_to_edge():
    camera = intrinsics_from_fov(90, 640, 480)
    left, right = (np.degrees(np.arctan((x - camera.cx) / camera.fx)) for x in (-0.5, 639.5))
    assert (left, right) == pytest.approx((-45, 45))
    assert camera.fy == camera.fx and camera.cy == 239.5
    with pytest.raises(SettingError, match=r"^fov_deg is a number above 0 and below 180, found 180\."):
        intrinsics_from_fov(180, 640, 480)


def test_scaled_intrinsics_see_the_same_rays():
    """The edges of the image, not the centres of its first and last pixels, stay where they are."""
    half = CAMERA.scaled((64, 48), (32, 24))
    for full_edge, half_edge in ((-0.5, -0.5), (63.5, 31.5)):
        assert (full_edge - CAMERA.cx) / CAMERA.fx == pytest.approx((half_edge - half.cx) / half.fx)
    with pytest.raises(ValueError, match="another aspect"):
        CAMERA.scaled((64, 48), (32, 32))


def test_a_ramp_between_two_walls_is_flying_and_a_floor_is_not():
    camera = intrinsics_from_fov(60, 200, 150)
    walls = np.full((150, 200), 2.0, np.float32)
    walls[:, 100:] = 4.0
    walls[:, 99] = 3.0
    flying = flying_pixels(unproject(walls, camera))
    assert flying[:, 98:101].all()
    assert not flying[:, :97].any() and not flying[:, 102:].any()
    rows = np.arange(150)[:, None] - camera.cy
    floor = np.where(rows > 20, 1.5 * camera.fy / np.maximum(rows, 1e-3), 0)[100:]  # 1.5 m below the camera
    floor = np.broadcast_to(floor, (50, 200)).astype(np.float32)
    below = camera._replace(cy=camera.cy - 100)
    assert floor.max() > 10 and not flying_pixels(unproject(floor, below)).any()


def test_range_holes_and_flying_pixels_are_left_out():
    depth = np.full((40, 40), 2.0, np.float32)
    depth[:, 20:] = 8.0
    depth[0, 0], depth[0, 1] = 0.0, np.nan
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    camera = intrinsics_from_fov(60, 40, 40)
    points, colours = point_cloud(depth, image, camera, max_range_m=5.0)
    assert len(points) == 40 * 20 - 2
    np.testing.assert_array_equal(colours, image[:, :20].reshape(-1, 3)[2:])
    fewer, _ = point_cloud(depth, image, camera, max_range_m=5.0, remove_flying=True)
    assert 0 < len(fewer) < len(points)
    with pytest.raises(ValueError, match="one size"):
        point_cloud(depth, image[1:], camera)


def test_ply_is_what_its_header_says(tmp_path):
    points = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    colours = np.random.default_rng(1).integers(0, 256, (7, 3), dtype=np.uint8)
    write_ply(tmp_path / "a.ply", points, colours)
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"] and "element vertex 7" in lines
    types = {"float": "<f4", "uchar": "u1"}
    vertex = np.dtype([(line.split()[2], types[line.split()[1]]) for line in lines if line.startswith("property")])
    read = np.frombuffer(body, vertex)
    np.testing.assert_array_equal(np.stack([read["x"], read["y"], read["z"]], axis=1), points)
    np.testing.assert_array_equal(np.stack([read["red"], read["green"], read["blue"]], axis=1), colours)


@pytest.mark.parametrize("values", [[500, 500, 320], [0, 500, 320, 240]])
def test_wrong_intrinsics(values):
    with pytest.raises(SettingError, match=r"^intrinsics is \[fx,fy,cx,cy\]"):
        parse_intrinsics(values)

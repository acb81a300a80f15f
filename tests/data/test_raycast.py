import numpy as np
import pytest

from depth_lightning.data import patterns
from depth_lightning.data.raycast import Boxes, Camera, look, sunlit, trace, visible

HEIGHT, WIDTH = 36, 49


def boxes(*others, size=(8.0, 5.0, 2.5), round_axes=None):
    """A room with a corner at the origin; others are (centre, size, turn in degrees)."""
    rows = [(np.array(size) / 2, size, 0), *others]
    turns = np.radians([turn for _, _, turn in rows])
    return Boxes(
        centre=np.array([centre for centre, _, _ in rows], np.float32),
        half_size=np.array([size for _, size, _ in rows], np.float32) / 2,
        heading=np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32),
        round_axes=None if round_axes is None else np.array([0, *round_axes]),
    )


def camera(position, *angles, fov_deg=60.0):
    return Camera(np.array(position, np.float32), look(*angles), fov_deg)


def reproject(depth, camera):
    """Depth (h, w) to world points (h, w, 3), from the textbook: K⁻¹ of the pixel, times depth, turned and moved."""
    height, width = depth.shape
    focal = width / 2 / np.tan(np.radians(camera.fov_deg / 2))
    rows, columns = np.mgrid[:height, :width]
    right, down = camera.off_centre
    x = (columns - (width - 1) / 2 - right * width) / focal * depth
    y = (rows - (height - 1) / 2 - down * height) / focal * depth
    right, down, forward = camera.rotation.T
    return camera.position + x[..., None] * right + y[..., None] * down + depth[..., None] * forward


def test_a_wall_that_is_faced_has_one_planar_depth():
    hits = trace(boxes(), camera((4.5, 2.5, 1.25), fov_deg=30.0), HEIGHT, WIDTH)
    np.testing.assert_allclose(hits.depth, 3.5, rtol=1e-6)
    np.testing.assert_array_equal(hits.normal, np.tile([[-1], [0], [0]], HEIGHT * WIDTH))


def test_the_cameras_axes_are_those_of_opencv():
    right, down, forward = look(0).T
    np.testing.assert_allclose([right, down, forward], [[0, -1, 0], [0, 0, -1], [1, 0, 0]], atol=1e-7)
    rotation = look(70, -20, 15)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert look(0, pitch_deg=30)[2, 2] == pytest.approx(0.5)  # looks up
    assert look(0, roll_deg=10)[2, 0] < 0  # turned clockwise, as seen from behind: its right goes down


def test_the_field_of_view_spans_the_images_width():
    assert camera((0, 0, 0), fov_deg=90.0).focal(100) == pytest.approx(50)


def test_reprojected_pixels_lie_on_the_rooms_faces():
    view = camera((2.0, 1.5, 1.4), 200, -15, 5, fov_deg=75.0)
    depth = trace(boxes(), view, HEIGHT, WIDTH).depth.reshape(HEIGHT, WIDTH)
    points = reproject(depth, view)
    to_faces = np.abs(np.concatenate([points, points - (8.0, 5.0, 2.5)], axis=-1)).min(axis=-1)
    assert to_faces.max() < 1e-5
    assert (points > -1e-5).all() and (points < np.array([8.0, 5.0, 2.5]) + 1e-5).all()


def test_reprojected_pixels_lie_on_a_turned_box():
    scene = boxes(((5.0, 2.5, 0.6), (1.0, 0.8, 1.2), 30))
    view = camera((2.0, 2.2, 1.5), 0, -20)
    hits = trace(scene, view, HEIGHT, WIDTH)
    on_box = hits.box == 1
    assert 0.05 < on_box.mean() < 0.5

    points = reproject(hits.depth.reshape(HEIGHT, WIDTH), view).reshape(-1, 3)
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    local = (points - (5.0, 2.5, 0.6)) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    beyond = np.abs(local) - (0.5, 0.4, 0.6)  # 0 on a face, negative within
    assert np.abs(beyond[on_box].max(axis=1)).max() < 1e-5
    assert beyond[~on_box].max(axis=1).min() > -1e-5  # and no other pixel's point lies in the box


def test_normals_look_at_the_camera():
    view = camera((2.0, 2.2, 1.5), 0, -20)
    hits = trace(boxes(((5.0, 2.5, 0.6), (1.0, 0.8, 1.2), 30)), view, HEIGHT, WIDTH)
    assert ((view.position[:, None] - hits.point) * hits.normal).sum(axis=0).min() > 0
    np.testing.assert_allclose((hits.normal**2).sum(axis=0), 1, rtol=1e-6)


def test_the_footprint_is_the_step_between_neighbouring_pixels():
    """On one plane, u and v of neighbours differ by what a pixel covers."""
    hits = trace(boxes(size=(8.0, 50.0, 50.0)), camera((4.0, 25.0, 25.0), 20, -10), 200, 200)
    u, v = hits.uv.reshape(2, 200, 200)
    for coordinate, footprint in zip((u, v), hits.footprint.reshape(2, 200, 200), strict=True):
        steps = sum(np.abs(step) for step in np.gradient(coordinate))
        np.testing.assert_allclose(footprint[1:-1, 1:-1], steps[1:-1, 1:-1], rtol=5e-3)


def test_a_box_hides_what_is_behind_it():
    scene = boxes(((4.0, 2.5, 1.0), (0.5, 1.0, 2.0), 0))
    lamp = np.array([2.0, 2.5, 1.0], np.float32)
    points = np.array([[8.0, 2.5, 1.0], [3.75, 2.5, 1.0], [8.0, 0.1, 1.0]], np.float32).T
    assert visible(scene, lamp, points).tolist() == [False, True, True]


@pytest.mark.parametrize("off_centre", [(0.0, 0.0), (0.2, -0.3)])
def test_the_ground_lies_at_the_cameras_height_over_the_sine_of_the_rays_fall(off_centre):
    """Planar depth of the plane z = 0, from pixel rows alone, under a camera that is pitched but not rolled."""
    pitch = np.radians(-12)
    view = camera((200, 200, 1.7), 0, -12, fov_deg=60.0)._replace(off_centre=off_centre)
    hits = trace(boxes(size=(400.0, 400.0, 120.0)), view, HEIGHT, WIDTH)
    focal = WIDTH / 2 / np.tan(np.radians(30))
    y = (np.arange(HEIGHT) + 0.5 - HEIGHT * (0.5 + off_centre[1])) / focal
    depth = 1.7 / (y * np.cos(pitch) - np.sin(pitch))
    on_ground = (depth > 0) & (depth < 150)
    assert on_ground.sum() > 10
    expected = np.broadcast_to(depth[on_ground, None], (on_ground.sum(), WIDTH))
    np.testing.assert_allclose(hits.depth.reshape(HEIGHT, WIDTH)[on_ground], expected, rtol=1e-5)
    np.testing.assert_allclose(hits.normal.reshape(3, HEIGHT, WIDTH)[2, on_ground], 1, atol=1e-6)


def test_intrinsics_project_what_is_hit_back_to_its_pixel():
    view = camera((2.0, 1.5, 1.4), 200, -15, 5, fov_deg=75.0)._replace(off_centre=(0.1, -0.2))
    hits = trace(boxes(), view, HEIGHT, WIDTH)
    fx, fy, cx, cy = view.intrinsics(HEIGHT, WIDTH)
    assert fx == fy == pytest.approx(WIDTH / 2 / np.tan(np.radians(37.5)))
    assert (cx, cy) == pytest.approx((0.6 * WIDTH - 0.5, 0.3 * HEIGHT - 0.5))
    x, y, z = view.rotation.T @ (hits.point - view.position[:, None])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    np.testing.assert_allclose([fx * x / z + cx, fy * y / z + cy], [columns, rows], atol=1e-3)


def test_a_ball_in_the_middle_of_the_view():
    """Its nearest point, its outline and its normals are those of the textbook."""
    scene = boxes(((5.0, 2.5, 1.25), (1.2, 1.2, 1.2), 0), round_axes=[3])
    view = camera((2.0, 2.5, 1.25), fov_deg=60.0)
    hits = trace(scene, view, 101, 101)
    centre, radius = np.array([5.0, 2.5, 1.25]), 0.6
    rays = view.rays(101, 101).astype(np.float64)
    along = (rays * (centre - view.position)[:, None]).sum(axis=0)
    square = (rays**2).sum(axis=0)
    root = along**2 - square * (3.0**2 - radius**2)
    on_ball = hits.box == 1
    np.testing.assert_array_equal(on_ball, root > 0)
    depth = (along[on_ball] - np.sqrt(root[on_ball])) / square[on_ball]
    np.testing.assert_allclose(hits.depth[on_ball], depth, rtol=1e-5)
    assert hits.depth.reshape(101, 101)[50, 50] == pytest.approx(2.4, rel=1e-6)
    outwards = (view.position[:, None] + depth * rays[:, on_ball] - centre[:, None]) / radius
    np.testing.assert_allclose(hits.normal[:, on_ball], outwards, atol=1e-4)


@pytest.mark.parametrize("round_axes", [2, 3])
def test_what_is_hit_of_a_turned_solid_lies_on_it_and_its_normal_stands_on_it(round_axes):
    half = np.array([0.5, 0.3, 0.6])
    scene = boxes(((5.0, 2.5, 1.0), 2 * half, 30), round_axes=[round_axes])
    view = camera((3.2, 2.0, 1.9), 15, -30, 5, fov_deg=70.0)
    hits = trace(scene, view, HEIGHT, WIDTH)
    on_it = hits.box == 1
    assert 0.05 < on_it.mean() < 0.6
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    turned = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    points = reproject(hits.depth.reshape(HEIGHT, WIDTH), view).reshape(-1, 3)[on_it]
    local = turned @ (points - (5.0, 2.5, 1.0)).T / half[:, None]
    normal = turned @ hits.normal[:, on_it]
    radial = np.sqrt((local[:round_axes] ** 2).sum(axis=0))
    if round_axes == 3:
        assert np.abs(radial - 1).max() < 1e-5
        gradient = local / half[:, None]
    else:
        level = np.abs(local[2])
        assert np.abs(np.maximum(radial, level) - 1).max() < 1e-5
        is_cap = level > 1 - 1e-5
        assert 0 < is_cap.mean() < 1
        gradient = np.where(is_cap, [[0], [0], [1]], local / half[:, None] * [[1], [1], [0]])
    np.testing.assert_allclose(normal, gradient / np.linalg.norm(gradient, axis=0), atol=1e-4)


def test_the_sun_casts_the_shadow_that_trigonometry_says():
    """A pole of 2 m under a sun at 45° shadows 2 m of the ground behind it."""
    scene = boxes(((20.0, 20.0, 1.0), (0.2, 0.2, 2.0), 0), size=(40.0, 40.0, 30.0))
    sun = np.array([-1, 0, 1], np.float32) / np.float32(np.sqrt(2))
    away = np.array([-1.0, 0.3, 1.9, 2.0, 2.2, 5.0])
    points = np.array([20.0 + away, np.full(6, 20.0), np.zeros(6)], np.float32)
    up = np.broadcast_to(np.array([[0], [0], [1]], np.float32), points.shape)
    assert sunlit(scene, sun, points, up).tolist() == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    "pattern", [patterns.STRIPES, patterns.CHECKERS, patterns.TILES, patterns.BRICKS, patterns.WEAVE]
)
def test_a_pattern_under_a_footprint_is_its_mean_over_it(pattern):
    """Against many samples of the unfiltered pattern; the shades of tiles merely fade, hence the tolerance."""
    u, v = np.random.default_rng(0).uniform(2, 20, (2, 200)).astype(np.float32)
    du, dv = (np.mgrid[:41, :41].reshape(2, -1, 1) - 20) / 41
    blur_u, blur_v = np.full_like(u, 0.8), np.full_like(v, 0.5)
    sharp = np.zeros_like(u)
    samples = pattern.share(u + blur_u * du, v + blur_v * dv, sharp + 0 * du, sharp + 0 * dv).mean(axis=0)
    filtered = pattern.share(u, v, blur_u, blur_v)
    assert np.abs(filtered - samples).mean() < 0.06
    assert filtered.mean() == pytest.approx(samples.mean(), abs=0.02)
    assert np.corrcoef(filtered, samples)[0, 1] > 0.8


@pytest.mark.parametrize(
    "name",
    [
        "PLAIN",
        "MOTTLE",
        "STRIPES",
        "BRICKS",
        "TILES",
        "PANELS",
        "CHECKERS",
        "PLANKS",
        "DOTS",
        "GRAIN",
        "GRASS",
        "WEAVE",
    ],
)
@pytest.mark.parametrize("blur", [0.0, 0.3, 5.0])
def test_shares_lie_between_0_and_1(name, blur):
    u, v = np.random.default_rng(0).uniform(-40, 100, (2, 10_000)).astype(np.float32)
    blurs = np.full_like(u, blur)
    share = getattr(patterns, name).share(u, v, blurs, blurs)
    assert share.min() > -1e-3 and share.max() < 1 + 1e-3

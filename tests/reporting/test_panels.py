from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from depth_lightning.reporting.colour import (
    BACKGROUND,
    DEPTH_COLOURS,
    ERROR_COLOURS,
    HOLE,
    NOT_FINITE,
    colourise,
    robust_range,
    round_ticks,
    scale_bar,
)
from depth_lightning.reporting.panels import draw_panel, draw_tiles, save_png, stack_panels
from depth_lightning.sample import DepthKind

GREY_IMAGE = np.full((480, 640, 3), 90, np.uint8)


def wedge(height=480, width=640):
    """Depths from 1 m at the left to 5 m at the right."""
    return np.tile(np.linspace(1, 5, width, dtype=np.float32), (height, 1))


def everywhere(depth):
    return np.ones(depth.shape, bool)


def lightness(rgb):
    return cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0, :, 0]


def is_colour(tile, colour):
    return (tile == colour).all(axis=-1)


def position(panel, tile):
    """Where in `panel` the top left corner of `tile` is, as (x, y)."""
    height, width = tile.shape[:2]
    match = cv2.matchTemplate(panel, tile, cv2.TM_SQDIFF)
    y, x = np.unravel_index(match.argmin(), match.shape)
    np.testing.assert_array_equal(panel[y : y + height, x : x + width], tile)
    return int(x), int(y)


def test_depth_colours_darken_with_distance():
    assert (np.diff(lightness(DEPTH_COLOURS)) < 0.1).all()
    assert lightness(DEPTH_COLOURS)[0] > 95 > 10 > lightness(DEPTH_COLOURS)[-1]


def test_error_colours_are_symmetric_in_lightness_and_white_at_zero():
    middle = len(ERROR_COLOURS) // 2
    assert len(ERROR_COLOURS) == 2 * middle + 1
    assert tuple(ERROR_COLOURS[middle]) == (255, 255, 255)
    np.testing.assert_allclose(lightness(ERROR_COLOURS), lightness(ERROR_COLOURS)[::-1], atol=2.5)
    np.testing.assert_allclose(lightness(ERROR_COLOURS[: middle + 1]), np.linspace(20, 100, middle + 1), atol=2)
    red, _, blue = ERROR_COLOURS.astype(int).T
    assert (blue > red)[: middle - 1].all() and (red > blue)[middle + 2 :].all()


@pytest.mark.parametrize("signal", [HOLE, NOT_FINITE])
def test_no_map_holds_the_colours_of_holes_and_of_nan(signal):
    for colours in (DEPTH_COLOURS, ERROR_COLOURS):
        assert np.abs(colours.astype(int) - signal).sum(axis=-1).min() > 60


def test_colourise_at_known_values():
    values = np.array([[-9.0, 0.0, 5.0, 10.0, 99.0, np.nan, -np.inf, np.nan]])
    mask = np.array([[True] * 7 + [False]])
    drawn = colourise(values, 0.0, 10.0, colours=ERROR_COLOURS, mask=mask)
    first, middle, last = (tuple(ERROR_COLOURS[index]) for index in (0, 128, 256))
    assert [tuple(pixel) for pixel in drawn[0]] == [first, first, middle, last, last, NOT_FINITE, NOT_FINITE, HOLE]


def test_robust_range():
    values = np.append(np.linspace(1, 3, 1001), [1e6, np.nan, np.inf])
    assert robust_range(values) == pytest.approx((1.04, 2.96), abs=0.01)
    assert robust_range(np.full(5, 2.0, np.float32)) == pytest.approx((1.9, 2.1))
    assert robust_range(np.zeros(5)) == (-0.5, 0.5)
    assert robust_range(np.array([np.nan])) == robust_range(np.array([])) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.3, 9.7, 9, [2, 4, 6, 8]),
        (-25, 25, 6, [-20, -10, 0, 10, 20]),
        (1.9, 2.1, 6, [1.9, 1.95, 2.0, 2.05, 2.1]),
        (10_000, 10_050, 3, [10_000, 10_050]),
        (0.0012, 0.0031, 3, [0.002, 0.003]),
    ],
)
def test_round_ticks(low, high, most, expected):
    assert round_ticks(low, high, most) == pytest.approx(expected)


def test_ticks_of_any_range_are_few_and_inside():
    random = np.random.default_rng(0)
    for low, span in zip(random.normal(0, 100, 300), 10.0 ** random.uniform(-3, 4, 300), strict=True):
        ticks = round_ticks(low, low + span, 6)
        assert 1 <= len(ticks) <= 6
        assert low - 1e-5 * span <= ticks[0] and ticks[-1] <= low + span * (1 + 1e-5)


def test_scale_bar_shows_the_colours_from_end_to_end_and_a_tick_in_its_place():
    bar = scale_bar(401, 0.0, 4.0, colours=DEPTH_COLOURS, font_size=20, unit="m")
    inside = bar[5, 1:-1].astype(int)
    assert (
        np.abs(inside - DEPTH_COLOURS[np.linspace(0, len(DEPTH_COLOURS) - 1, 401).round().astype(int)][1:-1]).max() == 0
    )
    below = bar[16]  # under the bar, between its frame and the numbers
    assert np.flatnonzero((below != BACKGROUND).any(axis=-1)).tolist() == [0, 100, 200, 300, 400]


def test_a_scale_bar_has_the_ticks_that_are_given():
    bar = scale_bar(401, -25.0, 25.0, colours=ERROR_COLOURS, font_size=20, ticks={-25.0: "≤", 0.0: "0", 25.0: "≥"})
    assert np.flatnonzero((bar[16] != BACKGROUND).any(axis=-1)).tolist() == [0, 200, 400]


def test_truth_and_prediction_share_colours_where_they_are_equal():
    depth = wedge()
    prediction = depth.copy()
    prediction[:, 320:] = 50.0
    tiles = draw_tiles(GREY_IMAGE, depth, everywhere(depth), prediction)
    np.testing.assert_array_equal(tiles.prediction[:, :320], tiles.truth[:, :320])
    np.testing.assert_array_equal(tiles.prediction[:, 320:], np.broadcast_to(DEPTH_COLOURS[-1], (480, 320, 3)))
    assert tuple(tiles.truth[0, 0]) == tuple(DEPTH_COLOURS[0])
    assert tuple(tiles.truth[0, 320]) == tuple(DEPTH_COLOURS[len(DEPTH_COLOURS) // 2])


def test_range_comes_from_the_valid_truth_alone():
    depth = wedge()
    mask = everywhere(depth)
    mask[:100] = False
    stray = np.where(mask, depth, 1000.0).astype(np.float32)
    tiles = draw_tiles(GREY_IMAGE, depth, mask, depth)
    with_stray = draw_tiles(GREY_IMAGE, stray, mask, 3 * depth)
    np.testing.assert_array_equal(tiles.truth, with_stray.truth)


def test_error_is_red_where_too_far_blue_where_too_near_and_white_where_right():
    depth = wedge()
    factor = np.repeat([0.5, 0.875, 1.0, 1.125, 3.0], 128).astype(np.float32)
    error = draw_tiles(GREY_IMAGE, depth, everywhere(depth), depth * factor).error
    expected = ERROR_COLOURS[[0, 64, 128, 192, 256]].astype(int)
    assert np.abs(error[240, 64::128] - expected).max() <= 2
    assert tuple(error[240, 320]) == (255, 255, 255)


def test_holes_are_neutral_in_truth_and_error_alone():
    depth = wedge()
    mask = everywhere(depth)
    mask[100:200, 50:300] = False
    depth[~mask] = 0
    tiles = draw_tiles(GREY_IMAGE, depth, mask, wedge())
    np.testing.assert_array_equal(is_colour(tiles.truth, HOLE), ~mask)
    np.testing.assert_array_equal(is_colour(tiles.error, HOLE), ~mask)
    assert not is_colour(tiles.prediction, HOLE).any()


def test_nan_and_infinity_are_signalled_and_counted():
    depth = wedge()
    mask = everywhere(depth)
    mask[:, :10] = False
    prediction = depth.copy()
    prediction[50:60, :20] = np.nan
    prediction[60, 15] = -np.inf
    wrong = ~np.isfinite(prediction)
    tiles = draw_tiles(GREY_IMAGE, depth, mask, prediction)
    np.testing.assert_array_equal(is_colour(tiles.prediction, NOT_FINITE), wrong)
    np.testing.assert_array_equal(is_colour(tiles.error, NOT_FINITE), wrong & mask)

    x, y = position(draw_panel(GREY_IMAGE, depth, mask, prediction), tiles.prediction)
    captions = [
        draw_panel(GREY_IMAGE, depth, mask, np.where(wrong, bad, depth))[:y, x:] for bad in (np.nan, np.inf, 1.0)
    ]
    np.testing.assert_array_equal(captions[0], captions[1])
    assert (captions[0] != captions[2]).any()


def test_disparity_is_bright_where_large():
    disparity = wedge()
    disparity[:, 600:] = 0  # sky
    tiles = draw_tiles(GREY_IMAGE, disparity, everywhere(disparity), disparity, kind=DepthKind.DISPARITY)
    assert tuple(tiles.truth[0, 599]) == tuple(DEPTH_COLOURS[0])
    assert tuple(tiles.truth[0, 639]) == tuple(DEPTH_COLOURS[-1])
    assert is_colour(tiles.error, HOLE)[:, 600:].all()
    assert is_colour(tiles.error, (255, 255, 255))[:, :600].all()


@pytest.mark.parametrize("kind", [DepthKind.METRES, DepthKind.DISPARITY])
def test_panel_is_the_four_tiles_in_order_on_one_line(kind):
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    depth = wedge() + random.random((480, 640), dtype=np.float32)
    prediction = depth * random.uniform(0.8, 1.2, depth.shape).astype(np.float32)
    tiles = draw_tiles(image, depth, everywhere(depth), prediction, kind=kind)
    panel = draw_panel(image, depth, everywhere(depth), prediction, kind=kind, title="one")
    places = [position(panel, tile) for tile in tiles]
    np.testing.assert_array_equal(tiles.image, image)
    assert len({y for _, y in places}) == 1
    assert all(right - left > 640 for (left, _), (right, _) in pairwise(places))
    assert panel.dtype == np.uint8 and tuple(panel[0, 0]) == BACKGROUND


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((84, 112), (252, 336)),
        ((239, 300), (478, 600)),
        ((240, 320), (240, 320)),
        ((480, 640), (480, 640)),
        ((1920, 1440), (480, 360)),
        ((375, 1242), (242, 800)),
        ((1, 1), (240, 240)),
        ((300, 1), (300, 1)),
        ((3, 4000), (1, 800)),
    ],
)
def test_tiles_are_neither_tiny_nor_huge(size, expected):
    depth = wedge(*size)
    for tile in draw_tiles(GREY_IMAGE, depth, everywhere(depth), depth):
        assert tile.shape == (*expected, 3)
    draw_panel(GREY_IMAGE, depth, everywhere(depth), depth, title="any size")


def test_small_depth_is_enlarged_in_whole_pixels():
    depth = wedge(84, 112)
    truth = draw_tiles(GREY_IMAGE, depth, everywhere(depth), depth).truth
    np.testing.assert_array_equal(truth, truth[::3, ::3].repeat(3, axis=0).repeat(3, axis=1))


def test_image_of_another_size_keeps_its_aspect():
    depth = wedge()
    red = np.full((518, 686, 3), (200, 0, 0), np.uint8)  # the same aspect but for the rounding to multiples of 14
    assert is_colour(draw_tiles(red, depth, everywhere(depth), depth).image, (200, 0, 0)).all()
    square = draw_tiles(red[:, :518], depth, everywhere(depth), depth).image
    np.testing.assert_array_equal(is_colour(square, (200, 0, 0)).any(axis=0).nonzero()[0], np.arange(80, 560))
    assert is_colour(square, BACKGROUND)[:, :80].all()


def test_every_point_of_a_sparse_truth_is_seen_with_its_own_value():
    depth = np.zeros((1200, 1600), np.float32)
    mask = np.zeros(depth.shape, bool)
    mask[101::200, 101::200] = True  # odd places, which taking every other pixel would miss
    depth[mask] = np.linspace(1, 5, mask.sum())
    tiles = draw_tiles(GREY_IMAGE, depth, mask, np.where(mask, depth, np.nan).astype(np.float32))
    scale = len(tiles.truth) / len(depth)
    low, high = robust_range(depth[mask])
    for y, x in np.argwhere(mask):
        row, column = round(y * scale), round(x * scale)
        expected = colourise(depth[y : y + 1, x : x + 1], low, high, colours=DEPTH_COLOURS)[0, 0]
        np.testing.assert_array_equal(tiles.truth[row - 1 : row + 2, column - 1 : column + 2], [[expected] * 3] * 3)
        assert is_colour(tiles.error, (255, 255, 255))[row, column]
    assert is_colour(tiles.truth, HOLE).mean() > 0.98
    np.testing.assert_array_equal(is_colour(tiles.error, HOLE), is_colour(tiles.truth, HOLE))


def test_panel_without_any_truth_shows_the_prediction_in_its_own_range():
    depth = wedge()
    tiles = draw_tiles(GREY_IMAGE, np.zeros_like(depth), ~everywhere(depth), depth)
    assert is_colour(tiles.truth, HOLE).all() and is_colour(tiles.error, HOLE).all()
    assert {tuple(tiles.prediction[0, 0]), tuple(tiles.prediction[0, -1])} == {
        tuple(DEPTH_COLOURS[0]),
        tuple(DEPTH_COLOURS[-1]),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [2.0, 0.0, 1e-30, 1e30, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("valid", [True, False])
def test_constant_maps_are_drawn_without_a_warning(value, valid):
    depth = np.full((60, 80), value, np.float32)
    target = depth if np.isfinite(value) else np.ones_like(depth)
    panel = draw_panel(GREY_IMAGE, target, np.full(depth.shape, valid), depth)
    assert panel.ndim == 3


def test_wrong_arrays_are_refused_with_what_was_found():
    depth = wedge(8, 10)
    mask = everywhere(depth)
    with pytest.raises(ValueError, match=r"\(8, 10, 3\) float32"):
        draw_panel(np.zeros((8, 10, 3), np.float32), depth, mask, depth)
    with pytest.raises(ValueError, match=r"one size.*\(8, 10\), \(8, 10\) bool, \(8, 5\)"):
        draw_panel(GREY_IMAGE, depth, mask, depth[:, :5])
    with pytest.raises(ValueError, match=r"mask bool.*float32"):
        draw_panel(GREY_IMAGE, depth, mask.astype(np.float32), depth)


def test_stack_fills_up_with_background():
    narrow, wide = np.zeros((2, 3, 3), np.uint8), np.full((4, 5, 3), 7, np.uint8)
    sheet = stack_panels([narrow, wide])
    assert sheet.shape == (6, 5, 3)
    np.testing.assert_array_equal(sheet[:2, :3], narrow)
    np.testing.assert_array_equal(sheet[2:], wide)
    assert is_colour(sheet[:2, 3:], BACKGROUND).all()
    with pytest.raises(ValueError, match="at least one"):
        stack_panels([])


def test_save_png_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "näw" / "folder" / "panel.png"
    save_png(path, np.zeros_like(image))
    save_png(path, image)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert [file.name for file in path.parent.iterdir()] == ["panel.png"]


def test_save_png_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "panel.png"
    save_png(path, GREY_IMAGE)
    before = path.read_bytes()

    def full_disk(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match=r"panel\.png could not be written\. No space left on device: .*B are free"):
        save_png(path, GREY_IMAGE + 1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_png_says_why_it_cannot(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=rf"file/panel\.png could not be written\. File exists: {tmp_path}/file\."):
        save_png(tmp_path / "file" / "panel.png", GREY_IMAGE)
    with pytest.raises(IsADirectoryError, match=r"folder\.png could not be written\. Is a directory"):
        save_png(tmp_path / "folder.png", GREY_IMAGE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]
    with pytest.raises(ValueError, match=r"panel\.jpg.*\.png"):
        save_png(tmp_path / "panel.jpg", GREY_IMAGE)
    with pytest.raises(ValueError, match=r"uint8 RGB, found \(480, 640\) float64"):
        save_png(tmp_path / "panel.png", np.zeros((480, 640)))


def test_numbers_on_a_scale_do_not_touch():
    """Ticks at 4.88 and 4.89; where there is no room for both numbers, the second is left out."""

    def inked(width):
        bar = scale_bar(width, 4.8795, 4.8905, colours=DEPTH_COLOURS, font_size=14, unit="m")
        return (bar[-14:] != BACKGROUND).any(axis=(0, 2))

    assert inked(200)[:60].any() and inked(200)[140:].any()
    assert inked(80)[:45].any() and not inked(80)[50:].any()

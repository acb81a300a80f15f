import numpy as np
import pytest

from depth_lightning.data.encoding import DepthEncoding


def test_scale_offset_and_holes():
    stored = np.array([[0, 1000, 2500, 65535]], np.uint16)
    target, mask = DepthEncoding(depth_scale=1000, depth_offset=0.5, invalid=[0, 65535]).decode(stored)
    assert target.dtype == np.float32
    np.testing.assert_allclose(target, [[0, 1.5, 3, 0]])
    assert mask.tolist() == [[False, True, True, False]]


def test_nan_and_infinity_are_holes_whatever_is_declared():
    stored = np.array([[np.nan, np.inf, -np.inf, 2]], np.float16)
    target, mask = DepthEncoding(invalid=None).decode(stored)
    assert target.tolist() == [[0, 0, 0, 2]]
    assert mask.tolist() == [[False, False, False, True]]


def test_limits_make_holes():
    stored = np.array([[0.5, 1, 80, 81]])
    assert DepthEncoding(limits=[1, 80]).decode(stored)[1].tolist() == [[False, True, True, False]]
    assert DepthEncoding(limits=[None, 80]).decode(stored)[1].tolist() == [[True, True, True, False]]
    assert DepthEncoding(limits=[1, None]).decode(stored)[0].tolist() == [[0, 1, 80, 81]]


def test_sky():
    stored = np.array([[0, 2, 65535]], np.uint16)
    vkitti = {"sky_value": 65535, "depth_scale": 100}
    assert DepthEncoding(**vkitti).decode(stored)[1].tolist() == [[False, True, False]]
    target, mask = DepthEncoding(**vkitti, sky="far", limits=[None, 80]).decode(stored)
    np.testing.assert_allclose(target, [[0, 0.02, 80]])
    assert mask.tolist() == [[False, True, True]]
    target, mask = DepthEncoding(kind="disparity", sky_value=0, sky="far", limits=[1, None]).decode(stored)
    assert target.tolist() == [[0, 2, 65535]]
    assert mask.all()


def test_middlebury_disparity_becomes_metres():
    """Motorcycle's calibration: Z = baseline · f / (d + doffs), as the data set's page has it."""
    encoding = DepthEncoding(depth_offset=31.086, focal_px=994.978, baseline_m=0.193001)
    target, mask = encoding.decode(np.array([[38.7344, np.inf, -31.086]], np.float32))
    np.testing.assert_allclose(target[0, 0], 0.193001 * 994.978 / (38.7344 + 31.086), rtol=1e-6)
    assert mask.tolist() == [[True, False, False]]


@pytest.mark.parametrize("width", [1024, 512])
def test_distance_along_the_ray_becomes_depth(width):
    """A wall square to the optical axis, 3 m away, seen by Hypersim's camera at full and at half size."""
    height, focal = width * 3 // 4, 886.81 * width / 1024
    x, y = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    distance = 3 * np.linalg.norm(np.stack(np.broadcast_arrays(x / focal, y[:, None] / focal, 1.0)), axis=0)
    assert distance.max() > 3.6
    target, mask = DepthEncoding(ray_distance=True, focal_px=886.81, focal_width=1024).decode(distance)
    np.testing.assert_allclose(target, 3, rtol=1e-6)
    assert mask.all()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"kind": "meters"}, r"^kind is one of metres, up_to_scale, disparity, found 'meters'\.$"),
        ({"depth_scale": 0}, r"^depth_scale is a number above 0, found 0\.$"),
        ({"depth_scale": -1000}, r"^depth_scale is a number above 0, found -1000\.$"),
        ({"baseline_m": 0.1}, r"^baseline_m needs the focal length"),
        ({"ray_distance": True}, r"^ray_distance needs the focal length"),
        ({"kind": "disparity", "baseline_m": 0.1, "focal_px": 700}, r"^baseline_m .* kind=disparity\. Set kind=metres"),
        ({"kind": "disparity", "ray_distance": True, "focal_px": 700}, r"^ray_distance is about distances"),
        ({"limits": [80, 1]}, r"^limits is \[smallest, largest\], found \[80, 1\]"),
        ({"limits": [80]}, r"^limits is \[smallest, largest\].*found \[80\]"),
        ({"sky": "near"}, r"^sky is ignore or far, found 'near'\.$"),
        ({"sky": "far"}, r"^sky_value is the stored value that means sky, which sky=far needs"),
        ({"sky": "far", "sky_value": 0}, r"^limits needs a far limit"),
        ({"depth_offset": float("nan")}, r"^depth_offset is a number, found nan\.$"),
        ({"invalid": "none"}, r"^invalid is a number, found 'none'\.$"),
        ({"focal_width": 2.5}, r"^focal_width is a whole number, 1 or above, found 2\.5\.$"),
        ({"ray_distance": "no"}, r"^ray_distance is true or false, found 'no'\.$"),
    ],
)
def test_declarations_that_contradict_themselves(declared, message):
    with pytest.raises(ValueError, match=message):
        DepthEncoding(**declared)


@pytest.mark.parametrize(
    ("stored", "declared", "message"),
    [
        (np.full((4, 6), 200, np.uint8), {}, "found 8 bits"),
        (np.ones((4, 6), bool), {}, "found bool"),
        (np.full((4, 6), -1.0), {}, r"stored values \[-1\.0\].*data\.invalid=\[0, -1\.0\]"),
        (np.zeros((4, 6), np.uint16), {"invalid": None}, r"stored values \[0\].*data\.invalid=\[0\]"),
    ],
)
def test_values_that_are_no_depth(stored, declared, message):
    with pytest.raises(ValueError, match=message):
        DepthEncoding(**declared).decode(stored)


def test_disparity_may_have_8_bits_and_be_negative():
    assert DepthEncoding(kind="disparity").decode(np.full((4, 6), 200, np.uint8))[0].max() == 200
    assert DepthEncoding(kind="disparity").decode(np.full((4, 6), -2.0))[1].all()


@pytest.mark.parametrize(
    ("median", "scale", "message"),
    [
        (1700, 1, r"median of 1700 m with data\.depth_scale=1\. This looks like millimetres: .*=1000\?"),
        (0.0017, 1000, r"median of 0\.0017 m with data\.depth_scale=1000\..*metres already, data\.depth_scale=1\?"),
    ],
)
def test_wrong_units(median, scale, message):
    depth = np.full((4, 6), median, np.float32)
    with pytest.raises(ValueError, match=message):
        DepthEncoding(depth_scale=scale).check(depth, depth > 0)
    DepthEncoding("up_to_scale").check(depth, depth > 0)


def test_nothing_but_holes():
    encoding = DepthEncoding(limits=[None, 10])
    with pytest.raises(ValueError, match=r"nothing but holes \(data\.invalid=\[0\], data\.limits=\[-inf, 10\]\)"):
        encoding.check(*encoding.decode(np.full((4, 6), 20.0)))

import json

import cv2
import numpy as np
import pytest

from depth_lightning.inference import CloudOptions, Intrinsics, Outputs, Prediction
from depth_lightning.inference.outputs import claim

DEPTH = np.random.default_rng(0).uniform(0.2, 9.5, (30, 40)).astype(np.float32)
IMAGE = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
ALL = ("png", "npy", "npz", "colour", "side_by_side", "cloud", "uncertainty")


def _outputs(folder, save=ALL, metric=True, max_depth=10.0, **arguments):
    arguments.setdefault("cloud", CloudOptions(fov_deg=60))
    return Outputs(folder, save, metric, max_depth, **arguments)


def _write(outputs, name="inner/a"):
    outputs.write(name, IMAGE, Prediction(DEPTH, DEPTH / 10), outputs.unfinished(name, 0.0))


def test_every_file_holds_the_prediction(tmp_path):
    _write(_outputs(tmp_path))
    base = str(tmp_path / "inner/a_")
    png = cv2.imread(base + "depth.png", cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16 and abs(png / 1000 - DEPTH).max() <= 0.0005 + 1e-6
    np.testing.assert_array_equal(np.load(base + "depth.npy"), DEPTH)
    with np.load(base + "depth.npz") as content:
        np.testing.assert_array_equal(content["depth"], DEPTH)
    np.testing.assert_array_equal(np.load(base + "uncertainty.npy"), DEPTH / 10)
    colour, both = (cv2.imread(base + name)[..., ::-1] for name in ("colour.png", "side_by_side.png"))
    assert colour.shape[0] > 30 and colour.shape[1] == 40
    np.testing.assert_array_equal(both[:30, :40], IMAGE)
    np.testing.assert_array_equal(both[:, 40:], colour)
    near, far = colour[:30][DEPTH < 1].mean(), colour[:30][DEPTH > 9].mean()
    assert near > far + 100  # near is bright
    assert b"element vertex 1200\n" in (tmp_path / "inner/a_cloud.ply").read_bytes()
    assert len(list((tmp_path / "inner").iterdir())) == 8  # the picture of the uncertainty beside its map


def test_a_relative_network_s_png_says_its_scale(tmp_path):
    _write(_outputs(tmp_path, ("png", "npy"), metric=False), "a")
    scale = json.loads((tmp_path / "a_disparity.json").read_text())
    png = cv2.imread(str(tmp_path / "a_disparity.png"), cv2.IMREAD_UNCHANGED)
    assert (png.min(), png.max()) == (0, 65535)
    np.testing.assert_allclose(scale["offset"] + scale["scale"] * png, DEPTH, atol=scale["scale"])
    assert (tmp_path / "a_disparity.npy").is_file()


def test_one_scale_for_all_where_a_range_is_given(tmp_path):
    outputs = _outputs(tmp_path, ("colour",), range=(0.0, 10.0))
    for name, factor in (("a", 1.0), ("b", 0.5)):
        outputs.write(name, IMAGE, Prediction(DEPTH * factor, None), {"colour"})
    a, b = (cv2.imread(str(tmp_path / f"{name}_colour.png")) for name in "ab")
    assert b[:30].mean() > a[:30].mean() + 20
    np.testing.assert_array_equal(a[30:], b[30:])


def test_finished_files_are_left_alone(tmp_path):
    outputs = _outputs(tmp_path, ("png", "npy"))
    _write(outputs, "a")
    before = (tmp_path / "a_depth.png").stat().st_mtime
    assert outputs.unfinished("a", before) == set()
    assert outputs.unfinished("a", before + 60) == {"png", "npy"}  # the image is newer
    (tmp_path / "a_depth.png").unlink()
    assert outputs.unfinished("a", 0.0) == {"png"}
    assert _outputs(tmp_path, ("png", "npy"), overwrite=True).unfinished("a", 0.0) == {"png", "npy"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"save": ("depth",)}, r"^save is one of png, npy, .*, video, found 'depth'\."),
        ({"save": ()}, "^save is a list of png, .*; found none"),
        ({"png_scale": 0}, r"^png_scale is a number above 0, found 0\."),
        ({"overwrite": "no"}, r"^overwrite is true or false, found 'no'\."),
        ({"save": ("colour",), "range": (0.0, float("nan"))}, r"^range is \[low,high\], found \(0\.0, nan\)\."),
        ({"save": ("cloud",), "metric": False}, "needs metres"),
        ({"save": ("cloud",), "cloud": CloudOptions(Intrinsics(1, 1, 0, 0), fov_deg=60)}, "found both"),
        ({"save": ("png",), "max_depth": 80.0}, "png_scale is 256|png_scale"),
        ({"save": ("colour",), "range": (5.0, 5.0)}, "^range is .*low below high, found"),
    ],
)
def test_what_cannot_be_saved_is_refused_at_once(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        _outputs(tmp_path, **arguments)


def test_depth_beyond_a_png_is_refused(tmp_path):
    """A network trained with camera=canonical may reach beyond its max_depth."""
    outputs = _outputs(tmp_path, ("png",))
    depth = np.full((30, 40), 70, np.float32)
    with pytest.raises(ValueError, match=r"overflows at 65\.535 m, and this image reaches 70 m\. .* at most 936, or"):
        outputs.write("a", np.zeros((30, 40, 3), np.uint8), Prediction(depth, None), {"png"})
    assert not list(tmp_path.rglob("*.png"))


def test_a_cloud_needs_a_camera(tmp_path):
    outputs = _outputs(tmp_path, ("cloud",), cloud=CloudOptions())
    with pytest.raises(ValueError, match=r"which neither the options nor EXIF say: type camera\.fov_deg="):
        _write(outputs)


def test_intrinsics_of_another_image_are_refused(tmp_path):
    outputs = _outputs(tmp_path, ("cloud",), cloud=CloudOptions(Intrinsics(500, 500, 320, 240)))
    with pytest.raises(ValueError, match=r"outside this image of 40×30.*calibrated_size"):
        _write(outputs)
    assert list(tmp_path.rglob("*.ply")) == []
    _write(_outputs(tmp_path, ("cloud",), cloud=CloudOptions(Intrinsics(500, 500, 319.5, 239.5), (640, 480))))
    expected = CloudOptions(Intrinsics(500, 500, 319.5, 239.5), (640, 480)).camera(40, 30)
    assert expected == pytest.approx((31.25, 31.25, 19.5, 14.5))


def test_a_folder_is_of_one_network_and_one_choice_of_settings(tmp_path):
    folder = tmp_path / "out"
    claim(folder, {"network": {"weights": "abc", "size": 518}, "png": {"values_per_metre": 1000}}, [])
    claim(folder, {"network": {"weights": "abc", "size": 518}, "colour": {"range": (1, 2)}}, [])
    assert set(json.loads((folder / "predict.json").read_text())) == {"network", "png", "colour"}
    with pytest.raises(ValueError, match=r"network\.size was 518 and is 84; .*Give another|size was 518 and is 84"):
        claim(folder, {"network": {"weights": "abc", "size": 84}}, [])
    with pytest.raises(ValueError, match=r"png\.values_per_metre was 1000 and is 256"):
        claim(folder, {"png": {"values_per_metre": 256}}, [])


def test_files_of_the_user_s_own_are_not_taken_for_finished(tmp_path):
    (tmp_path / "a_depth.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"a_depth\.png exists"):
        claim(tmp_path, {}, [tmp_path / "a_depth.png"])
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"output={tmp_path}/file/out cannot be written to: .*Not a directory"):
        claim(tmp_path / "file" / "out", {}, [])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_not_saved(tmp_path, wrong):
    depth = DEPTH.copy()
    depth[3, 4] = wrong
    with pytest.raises(ValueError, match="NaN or infinities"):
        _outputs(tmp_path).write("a", IMAGE, Prediction(depth, None), {"png", "npy"})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_claims_at_the_same_moment(tmp_path):
    def files():
        claim(tmp_path, {"size": 518}, [])
        (tmp_path / "a_depth.png").write_bytes(b"")
        yield tmp_path / "a_depth.png"

    claim(tmp_path, {"size": 518}, files())
    with pytest.raises(ValueError, match="size was 518 and is 84"):
        claim(tmp_path, {"size": 84}, files())

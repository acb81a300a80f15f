"""The cameras of photos: EXIF as Pillow writes it, options, and which of them wins."""

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from depth_lightning.data.images import lens_of
from depth_lightning.inference.cameras import CameraOptions, photo_camera
from depth_lightning.inference.inputs import read_photo
from depth_lightning.inference.predict import NOTHING_TYPED
from depth_lightning.settings import SettingError

ORIENTATION, EXIF_IFD = 0x0112, 0x8769
FOCAL, X_RESOLUTION, UNIT, EQUIVALENT, WIDTH, HEIGHT = 0x920A, 0xA20E, 0xA210, 0xA405, 0xA002, 0xA003
DIAGONAL_MM = 43.2666


def photo(path, size=(30, 40), orientation=1, tags=(), **options):
    """A picture of (h, w), as stored, with tags of EXIF."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(EXIF_IFD).update(dict(tags))
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, exif=exif, **options)
    return path


def known(path, options=NOTHING_TYPED):
    return photo_camera(options, path, read_photo(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "heic"])
def test_the_equivalent_focal_length(tmp_path, suffix):
    """26 mm on 35 mm film, whose diagonal is 43.27 mm: 40×30 pixels have a diagonal of 50."""
    if suffix == "heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()
    intrinsics, source = known(photo(tmp_path / f"a.{suffix}", tags={EQUIVALENT: 26}))
    assert source == "EXIF FocalLengthIn35mmFilm"
    np.testing.assert_allclose(intrinsics, [50 * 26 / DIAGONAL_MM] * 2 + [19.5, 14.5], rtol=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photo_has_the_same_focal_length(tmp_path, orientation):
    path = photo(tmp_path / "a.jpg", orientation=orientation, tags={EQUIVALENT: 26})
    height, width = (40, 30) if orientation >= 5 else (30, 40)
    expected = [50 * 26 / DIAGONAL_MM] * 2 + [(width - 1) / 2, (height - 1) / 2]
    np.testing.assert_allclose(known(path).intrinsics, expected, rtol=1e-5)


@pytest.mark.parametrize(("unit", "per_mm"), [(2, 1 / 25.4), (3, 0.1), (None, 1 / 25.4)])
def test_the_resolution_of_the_focal_plane(tmp_path, unit, per_mm):
    """A lens of 10 mm and 100 pixels per millimetre at 400×300, since made ten times smaller."""
    tags = {FOCAL: IFDRational(10), X_RESOLUTION: IFDRational(100 / per_mm), WIDTH: 400, HEIGHT: 300} | (
        {UNIT: unit} if unit else {}
    )
    intrinsics, source = known(photo(tmp_path / "a.jpg", tags=tags))
    assert source == "EXIF FocalPlaneXResolution"
    np.testing.assert_allclose(intrinsics[:2], 100, rtol=1e-3)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {EQUIVALENT: 0},
        {EQUIVALENT: 65535},  # 0.04 degrees
        {FOCAL: IFDRational(42, 10)},
        {FOCAL: IFDRational(42, 10), X_RESOLUTION: IFDRational(1, 0)},
        {FOCAL: IFDRational(42, 10), X_RESOLUTION: IFDRational(1000), UNIT: 9},
        {FOCAL: IFDRational(10**6), X_RESOLUTION: IFDRational(10**6)},
    ],
)
def test_exif_without_a_camera_or_with_nonsense(tmp_path, tags):
    intrinsics, source = known(photo(tmp_path / "a.jpg", tags=tags))
    assert source == "unknown"
    assert np.isnan(intrinsics).all()


def test_damaged_exif_is_no_camera(tmp_path):
    content = photo(tmp_path / "a.jpg", tags={EQUIVALENT: 26, FOCAL: 5.0}).read_bytes()
    at = content.index(b"Exif\0\0")
    rng = np.random.default_rng(0)
    for number in range(200):
        damaged = bytearray(content)
        for place in rng.integers(at + 6, at + 90, 6):
            damaged[place] = rng.integers(256)
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(damaged)
        lens = lens_of(path)  # whatever it says, it does not fail
        if lens is not None:
            assert CameraOptions().of(30, 40, lens).intrinsics.shape == (4,)
    assert lens_of(tmp_path / "missing.jpg") is None


def test_what_is_typed_wins_over_exif_and_the_default_does_not(tmp_path):
    path = photo(tmp_path / "a.jpg", tags={EQUIVALENT: 26})
    plain = photo(tmp_path / "b.jpg")
    for options, of_photo, of_plain in (
        (CameraOptions(intrinsics=(40, 41, 20, 15), fov_deg=None), "camera.intrinsics", "camera.intrinsics"),
        (CameraOptions(fov_deg=60), "camera.fov_deg", "camera.fov_deg"),
        (CameraOptions(default_fov_deg=60), "EXIF FocalLengthIn35mmFilm", "camera.default_fov_deg"),
    ):
        assert (known(path, options).source, known(plain, options).source) == (of_photo, of_plain)


def test_a_field_of_view_is_that_of_the_longer_side():
    across, upright = (CameraOptions(fov_deg=90).of(*size).intrinsics for size in ((30, 40), (40, 30)))
    np.testing.assert_allclose(across, [20, 20, 19.5, 14.5])
    np.testing.assert_allclose(upright, [20, 20, 14.5, 19.5])
    of_cloud = CameraOptions(cloud_fov_deg=90).of(40, 30).intrinsics  # cloud.fov_deg is horizontal, as it was
    np.testing.assert_allclose(of_cloud, [15, 15, 14.5, 19.5])


def test_intrinsics_are_scaled_or_refused():
    options = CameraOptions(intrinsics=(400, 410, 199.5, 149.5), size=(300, 400))
    np.testing.assert_allclose(options.of(30, 40).intrinsics, [40, 41, 19.5, 14.5])
    with pytest.raises(ValueError, match=r"The intrinsics are for 400×300, and the image is 30×40"):
        options.of(40, 30)
    with pytest.raises(ValueError, match=r"outside this image of 40×30 .*: camera\.size=\[h,w\]"):
        CameraOptions(intrinsics=(400, 410, 199.5, 149.5)).of(30, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fov_deg": 180}, r"^fov_deg is a number above 0 and below 180, found 180"),
        ({"intrinsics": (1, 2)}, r"^intrinsics is \[fx,fy,cx,cy\] in pixels"),
        ({"intrinsics": (1, 2, 3, 4), "fov_deg": 60}, r"^intrinsics and a field of view are both typed"),
        ({"intrinsics": (1, 2, 3, 4), "size": (0, 4)}, r"^size is \[h,w\], found \(0, 4\)"),
    ],
)
def test_options_that_cannot_be_right(options, message):
    with pytest.raises(SettingError, match=message):
        CameraOptions(**options)

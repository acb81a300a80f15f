import logging
import os
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from depth_lightning.inference.inputs import find_images, is_video, open_video, photo_reader, read_photo, sample_frames


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.png", "a.JPG", "inner/ü 1.webp", ".hidden/c.png", "note.md"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            path.write_text("no image")
        else:
            Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
    return folder


def _names(source, **arguments):
    return [image.name for image in find_images(str(source), **arguments)[1]]


def test_a_folder_with_its_subfolders(photos):
    root, images = find_images(str(photos))
    assert root == photos
    assert [image.name for image in images] == ["a.JPG", "a.png", "b", "inner/ü 1"]  # two that differ in suffix keep it
    assert all(image.path.is_file() for image in images)


def test_an_image_has_the_same_name_however_it_is_found(photos):
    assert _names(photos / "a.png") == ["a.png"]
    assert _names(photos / "b.jpg") == ["b"]
    assert _names(f"{photos}/*.jpg") == ["b"]
    assert _names(f"{photos}/**/*.webp") == ["inner/ü 1"]
    assert find_images(f"{photos}/**/*.webp")[0] == photos


def test_a_list_is_relative_to_itself_and_keeps_its_order(photos, tmp_path):
    (photos / "list.txt").write_text("# mine\ninner/ü 1.webp\n\nb.jpg\n", encoding="utf-8")
    assert _names(photos / "list.txt") == ["inner/ü 1", "b"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/list.txt").write_text(f"{photos}/inner/ü 1.webp\n../photos/b.jpg\n", encoding="utf-8")
    assert _names(tmp_path / "elsewhere/list.txt") == ["inner/ü 1", "b"]


def test_outputs_among_the_inputs_are_no_inputs(photos):
    assert _names(photos, without=photos / "inner") == ["a.JPG", "a.png", "b"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("none.png", "no such image"),
        ("*.bmp", "no image matches"),
        ("empty", "this folder contains no image"),
        ("note.md", "is not an image"),
        ("empty.txt", "this list contains no path"),
        ("gone.txt", "none of the 1 images"),
    ],
)
def test_nothing_to_predict_is_said(photos, name, message):
    (photos / "empty").mkdir()
    (photos / "empty.txt").write_text("# nothing\n")
    (photos / "gone.txt").write_text("gone.png\n")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        find_images(str(photos / name))


def test_photos_are_read_as_viewers_show_them(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° to the right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    turned = read_photo(tmp_path / "turned.jpg")
    assert turned.shape == (20, 10, 3)
    assert abs(turned[2, 5].astype(int) - [255, 0, 0]).max() < 5 and turned[-2, 5].max() < 5
    cv2.imwrite(str(tmp_path / "grey16.png"), np.full((4, 5), 257 * 77, np.uint16))
    assert (read_photo(tmp_path / "grey16.png") == np.full((4, 5, 3), 77)).all()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "empty.png"):
        with pytest.raises(ValueError, match="damaged"):
            read_photo(tmp_path / name)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_is_an_image_and_names_the_extra_that_reads_it(photos, monkeypatch):
    for name in ("IMG_0001.HEIC", "b.heif"):
        (photos / name).write_bytes(HEIC)
    assert _names(photos) == ["IMG_0001", "a.JPG", "a.png", "b.heif", "b.jpg", "inner/ü 1"]
    assert _names(f"{photos}/*.HEIC") == ["IMG_0001"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (photos / "renamed.jpg").write_bytes(HEIC)  # as some programs save it
    for name in ("IMG_0001.HEIC", "renamed.jpg"):
        with pytest.raises(
            ValueError, match=rf"{name}: .*found HEIC, which needs pillow-heif: pip install 'depth-lig.*heif"
        ):
            read_photo(photos / name)


def test_heic_is_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the optional package pillow-heif")
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:, :40] = 255, 0, 0
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic", quality=95)
    read = read_photo(tmp_path / "a.heic")
    assert read.shape == (60, 80, 3) and read.dtype == np.uint8
    assert abs(read.astype(int) - pixels).mean() < 2
    (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.heic: expected an image, found one that is cut short or damaged"):
        read_photo(tmp_path / "a.heic")


def test_what_is_left_out_is_said(photos, caplog):
    (photos / "clip.mov").touch()
    with caplog.at_level(logging.INFO):
        _names(photos)
        _names(f"{photos}/*")
    left_out = "skipped 2 files that are no images (.mov 1, .md 1)."
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"input={photos}: {left_out}", f"input={photos}/*: {left_out}"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_as_windows_saves_them(photos, encoding):
    (photos / "list.txt").write_bytes("b.jpg\r\ninner/ü 1.webp\r\n".encode(encoding))
    assert _names(photos / "list.txt") == ["b", "inner/ü 1"]
    (photos / "list.txt").write_bytes("b.jpg\ninner/ü 1.webp\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt: expected text in UTF-8, found the byte 0xfc in line 2"):
        _names(photos / "list.txt")


def test_what_is_no_file_is_an_input_that_cannot_be_read(photos):
    os.mkfifo(photos / "c.png")
    for source in (photos, f"{photos}/*.png", photos / "c.png"):
        images = {image.path.name: image.path for image in find_images(str(source))[1]}
        with pytest.raises(OSError, match=r"c\.png: expected a file, found a FIFO of that name"):
            read_photo(images["c.png"])
    os.mkfifo(photos / "list.txt")
    os.mkfifo(photos / "clip.mp4")
    with pytest.raises(OSError, match=r"list\.txt: expected a file, found a FIFO"):
        find_images(str(photos / "list.txt"))
    with pytest.raises(OSError, match=r"clip\.mp4: expected a file, found a FIFO"), open_video(photos / "clip.mp4"):
        pass


def test_video_frames(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (32, 24))
    for index in range(10):
        writer.write(np.full((24, 32, 3), 20 * index, np.uint8))
    writer.release()
    assert is_video(str(path)) and not is_video("clip.png")
    with open_video(path) as video:
        assert (video.fps, video.frames) == (12.0, 10)
        levels = []
        while (frame := video.read()) is not None:
            assert frame.shape == (24, 32, 3)
            levels.append(round(float(frame.mean()) / 20))
    assert levels == list(range(10))
    assert [round(float(frame.mean()) / 20) for frame in sample_frames(path, 4)] == [0, 3, 6, 9]
    assert len(sample_frames(path, 16)) == 10
    path.write_bytes(b"no video")
    with pytest.raises(ValueError, match="no frame"), open_video(path):
        pass


@pytest.mark.parametrize(
    "data, upright, image_range",
    [
        ({}, True, None),
        ({"exif": "auto", "image_range": None}, True, None),
        ({"exif": "ignore", "image_range": [0, 4095]}, False, (0, 4095)),
        ({"parts": {"a": {"image_range": [0, 4095]}, "b": {"exif": "ignore", "image_range": None}}}, False, (0, 4095)),
        ({"parts": {"a": {"image_range": [0, 4095]}, "b": {"image_range": [0, 1023]}}}, True, None),
        ({"exif": "apply", "parts": {"a": {"exif": "ignore"}}}, True, None),
    ],
)
def test_photos_are_read_as_the_parts_of_a_run_agree(data, upright, image_range):
    assert photo_reader(data).keywords == {"upright": upright, "image_range": image_range}

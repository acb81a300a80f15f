"""What a disk that takes no more makes of every kind of file: an error with its name, and what was there before."""

import csv
import errno
import logging
import resource
import sys
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from depth_lightning.atomic import write_text
from depth_lightning.data.bad_samples import BadSampleList
from depth_lightning.data.rooms import write_rooms
from depth_lightning.inference import CloudOptions, Outputs
from depth_lightning.inference.predict import Prediction
from depth_lightning.inference.video import video_sink
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.reporting import doctor_page
from depth_lightning.reporting.panels import save_png
from depth_lightning.reporting.tables import write_json, write_parquet, write_rows
from depth_lightning.runs.job import quiet

NOISE = np.random.default_rng(0)
COLUMN = NOISE.random(500)
PICTURE = NOISE.integers(0, 256, (64, 80, 3), np.uint8)


@contextmanager
def little_room(limit):
    """Files end at so many bytes: a write beyond fails in its middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def predicted(save):
    def write(folder):
        outputs = Outputs(folder, (save,), metric=True, max_depth=10.0, cloud=CloudOptions(fov_deg=60))
        depth = NOISE.uniform(1, 9, (64, 80)).astype(np.float32)
        outputs.write("a", PICTURE, Prediction(depth, depth / 10), {save})

    return write


def video(folder):
    with video_sink(folder / "a.mp4", 10.0) as sink:
        for _ in range(20):
            sink.add(NOISE.integers(0, 256, (64, 80, 3), np.uint8))


def video_without_pyav(folder):
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "av", None)
        patched.delitem(sys.modules, "depth_lightning.inference.h264", raising=False)
        with video_sink(folder / "b.mp4", 10.0) as sink:
            for _ in range(20):
                sink.add(NOISE.integers(0, 256, (64, 80, 3), np.uint8))


WRITERS = {
    "metrics.json": lambda folder: write_json(folder / "metrics.json", {"values": COLUMN.tolist()}),
    "table.csv": lambda folder: write_rows(folder / "table.csv", [{"value": value} for value in COLUMN]),
    "per_image.parquet": lambda folder: write_parquet(folder / "per_image.parquet", {"value": COLUMN}),
    "panels.png": lambda folder: save_png(folder / "panels.png", PICTURE),
    "doctor.html": lambda folder: doctor_page.write_page(folder / "doctor.html", "x" * 5000, {}, []),
    "a_depth.png": predicted("png"),
    "a_depth.npy": predicted("npy"),
    "a_depth.npz": predicted("npz"),
    "a_cloud.ply": predicted("cloud"),
    "a.mp4": video,
    "b.mp4": video_without_pyav,
    "weights.pth": lambda folder: save_weights(DepthAnythingV2("tiny"), folder / "weights.pth"),
    "weights.safetensors": lambda folder: save_weights(
        DepthAnythingV2("tiny"), folder / "weights.safetensors", "safetensors"
    ),
    "train": lambda folder: write_rooms(folder, "train", 2),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit(name, tmp_path):
    there_before = not name.startswith(("weights", "train"))  # which nothing overwrites
    if there_before:
        write_text(tmp_path / name, "before")
    with little_room(1500), pytest.raises(OSError) as error:
        WRITERS[name](tmp_path)
    said = str(error.value)
    assert str(tmp_path / name) in said
    assert ".partial" not in said
    if name == "b.mp4":  # OpenCV reports nothing
        assert "the video could not be written completely; check the free disk space" in said
    else:
        assert error.value.errno == errno.EFBIG
        assert "could not be written. " in said and "File too large" in said
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == ({name: "before"} if there_before else {})


@pytest.mark.parametrize("count", [1, 2, 7, 50])
@pytest.mark.parametrize("fps", [10.0, 29.97])
def test_a_video_that_fits_is_taken_for_whole(count, fps, tmp_path):
    with video_sink(tmp_path / "a.mp4", fps) as sink:
        for _ in range(count):
            sink.add(PICTURE)
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == count


def test_a_list_that_grows_keeps_whole_rows(tmp_path):
    listing = BadSampleList(tmp_path / "bad_samples.csv", "train")
    listing.add(3, "a.png", "torn")
    before = listing.file.read_bytes()
    with little_room(len(before) + 10), pytest.raises(OSError, match=r"bad_samples\.csv could not be written\. "):
        listing.add(4, "b.png", "torn, too")
    assert listing.file.read_bytes() == before
    assert listing.add(5, "é.png", "a reason,\nof two lines") == {3, 5}
    assert listing.indices() == {3, 5}
    with listing.file.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["split", "index", "path", "reason"],
            ["train", "3", "a.png", "torn"],
            ["train", "5", "é.png", "a reason,\nof two lines"],
        ]


def test_a_log_that_does_not_fit_gives_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    record = logging.makeLogRecord({"msg": "x" * 100})
    for expected in (True, False):
        handler = logging.FileHandler("/dev/full", encoding="utf-8")
        handler.emit(record)
        assert ("Traceback" in capsys.readouterr().err) == expected
        quiet()
        with pytest.raises(OSError, match="No space left"):
            handler.close()

"""The depth video: H.264 that browsers play where PyAV is installed, MPEG-4 part 2 elsewhere."""

import sys

import cv2
import numpy as np
import pytest

from depth_lightning.inference.video import video_sink

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (120, 200, 40), (30, 30, 200)]


def write(path, fps, count=20, height=119, width=161):
    with video_sink(path, fps) as sink:
        for number in range(count):
            sink.add(np.full((height, width, 3), COLOURS[number % len(COLOURS)], np.uint8))


def test_h264_with_the_colours_of_the_pictures(tmp_path, caplog):
    av = pytest.importorskip("av", reason="needs the extra video")
    path = tmp_path / "a.mp4"
    with caplog.at_level("INFO"):
        write(path, 30000 / 1001)
    assert not caplog.records
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.profile) == ("h264", "yuv420p", "High")
        assert (stream.average_rate.numerator, stream.average_rate.denominator) == (30000, 1001)
        assert (stream.frames, stream.width, stream.height) == (20, 162, 120)
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    for frame, colour in zip(frames, COLOURS * 4, strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 6
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "a browser would have to load all of it before it starts"


@pytest.mark.parametrize("fps", [0.5, 1, 12.5, 29.97, 59.94, 240, 999])
def test_h264_plays_as_fast_as_the_clip(fps, tmp_path):
    av = pytest.importorskip("av", reason="needs the extra video")
    write(tmp_path / "a.mp4", fps, count=3)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert float(file.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-4)


def test_without_pyav_the_log_says_what_to_install(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "depth_lightning.inference.h264", raising=False)
    with caplog.at_level("INFO"):
        write(tmp_path / "a.mp4", 25)
    assert [record.message for record in caplog.records] == [
        "The depth video is MPEG-4 part 2, which browsers and QuickTime do not play. To get H.264: "
        "pip install 'depth-lightning[video]'"
    ]
    written = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert int(written.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") in (b"FMP4", b"mp4v")
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 20

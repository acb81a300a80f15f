"""Prediction of a video: the files of its frames, and a depth video with one colour scale for all frames."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from depth_lightning.atomic import atomically
from depth_lightning.inference.cameras import CameraOptions
from depth_lightning.inference.inputs import Video, open_video, sample_frames
from depth_lightning.inference.outputs import Outputs, colour_picture, is_finished
from depth_lightning.inference.predict import NOTHING_TYPED, Predictor
from depth_lightning.inference.stream import Failure, Photo, Predicted, predict_stream, save_behind
from depth_lightning.reporting.colour import robust_range

log = logging.getLogger(__name__)

SCALE_FRAMES = 16
"""Number of frames, spread over the clip, from which its colour scale is computed."""


class _Writer(Protocol):
    """Writes (h, w, 3) uint8 RGB pictures with even sides."""

    def add(self, picture: np.ndarray) -> None: ...

    def close(self) -> None: ...


class VideoSink:
    """Writes pictures of one size, (h, w, 3) uint8 RGB, as a video: H.264 with PyAV, or else MPEG-4 part 2."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.writer: _Writer | None = None
        self.frames = 0

    def add(self, picture: np.ndarray) -> None:
        """Append a frame.

        Raises:
            OSError: the video cannot be written.
        """
        height, width = picture.shape[:2]
        # The codecs halve the chroma resolution.
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self.writer is None:
            self.writer = _open(self.path, self.fps, even.shape[1], even.shape[0])
        self.writer.add(even)
        self.frames += 1

    def close(self) -> None:
        """Finish the video.

        Raises:
            OSError: the file does not contain all frames. OpenCV does not report a full disk.
        """
        if self.writer is None:
            return
        self.writer.close()
        self.writer = None
        written = cv2.VideoCapture(str(self.path))
        complete = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) == self.frames
        written.release()
        if not complete:
            raise OSError(f"{self.path}: the video could not be written completely; check the free disk space.")


def _open(path: Path, fps: float, width: int, height: int) -> _Writer:
    with suppress(ModuleNotFoundError):
        from depth_lightning.inference.h264 import AVAILABLE, Writer

        if AVAILABLE:
            return Writer(path, fps, width, height)
    log.info(
        "The depth video is MPEG-4 part 2, which browsers and QuickTime do not play. To get H.264: "
        "pip install 'depth-lightning[video]'"
    )
    return _MPEG4(path, fps, width, height)


class _MPEG4:
    """MPEG-4 part 2, the best that OpenCV writes everywhere."""

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self.writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        if not self.writer.isOpened():
            raise OSError(f"{path}: OpenCV cannot write this video; check the folder's permissions.")

    def add(self, picture: np.ndarray) -> None:
        self.writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self.writer.release()


@contextmanager
def video_sink(path: Path, fps: float) -> Iterator[VideoSink]:
    """A video that appears under its name only once all its frames are written."""
    with atomically(path) as aside, closing(VideoSink(aside, fps)) as sink:
        yield sink


def clip_range(predictor: Predictor, path: Path, options: CameraOptions = NOTHING_TYPED) -> tuple[float, float]:
    """The ends of the colour scale for a clip: percentiles over `SCALE_FRAMES` of its frames."""
    depths = [predictor.predict(frame, options) for frame in sample_frames(path, SCALE_FRAMES)]
    return robust_range(np.stack(depths))


def video_path(path: Path, outputs: Outputs) -> Path:
    """Where the depth video of a clip is saved."""
    return outputs.folder / f"{path.stem}_{outputs.quantity}.mp4"


def predict_video(
    predictor: Predictor,
    path: Path,
    outputs: Outputs,
    batch_size: int = 8,
    done: Callable[[], None] = lambda: None,
    options: CameraOptions = NOTHING_TYPED,
) -> tuple[int, list[Failure[Any]]]:
    """Save the depth video and the files of the frames selected by `outputs`; finished ones are skipped.

    Args:
        predictor: the network.
        path: of the clip.
        outputs: what to write; its folder gets `<clip>_depth.mp4`, and for frame 12 the files `<clip>/000012_…`.
        batch_size: frames per forward pass.
        done: called after each frame.
        options: of the camera, for clouds and networks trained with camera=canonical.

    Returns:
        The number of frames predicted, and the failures.

    Raises:
        OSError: a file cannot be written.
        ValueError: the video cannot be read.
    """
    changed = path.stat().st_mtime
    target = video_path(path, outputs)
    make_video = "video" in outputs.save and (outputs.overwrite or not is_finished(target, changed))
    coloured = set(outputs.save) & {"colour", "side_by_side", "video"}
    scale = outputs.range or (clip_range(predictor, path, options) if coloured else None)
    predicted = 0

    def next_frame(video: Video) -> Callable[[int], Photo | None]:
        indices = count()

        def read(_: int) -> Photo | None:
            for index in indices:
                name = f"{path.stem}/{index:06d}"
                if make_video or outputs.unfinished(name, changed):
                    frame = video.read()
                    return None if frame is None else Photo(name, frame, options.of(*frame.shape[:2]))
                if not video.skip():
                    break
                done()
            return None

        return read

    def save(sink: VideoSink | None) -> Callable[[Predicted], None]:
        def save_frame(result: Predicted) -> None:
            nonlocal predicted
            name, image, prediction, camera = result
            if sink is not None:
                assert scale is not None
                sink.add(colour_picture(prediction.depth, *scale, metric=outputs.metric))
            outputs.write(name, image, prediction, outputs.unfinished(name, changed), scale, camera.intrinsics)
            predicted += 1

        return save_frame

    with open_video(path) as video:
        results = predict_stream(
            predictor,
            count(),
            next_frame(video),
            batch_size=batch_size,
            disagreement="uncertainty" in outputs.save,
            readers=1,
        )
        sink_or_none = video_sink(target, video.fps) if make_video else nullcontext()
        with closing(results), sink_or_none as sink:  # the readers stop before the video is closed
            failures = save_behind(results, save(sink), writers=1, done=done)
    return predicted, failures

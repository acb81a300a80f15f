"""Videos in H.264 with 4:2:0 colours, which browsers, notebooks and QuickTime play; needs the extra `video`."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

AVAILABLE: Final = "libx264" in av.codecs_available
"""Whether this build of PyAV has the encoder."""


class Writer:
    """Writes (h, w, 3) uint8 RGB pictures with even sides.

    Raises:
        OSError: FFmpeg cannot write the video, such as on a full disk.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self.path = path
        with self._named():
            self.container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            self.stream = self.container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
            self.stream.options = {"crf": "18"}
            context = self.stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709.value
            context.color_range = ColorRange.MPEG.value

    def add(self, picture: np.ndarray) -> None:
        """Append a frame."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        with self._named():
            self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Finish the video."""
        with self._named():
            try:
                self.container.mux(self.stream.encode())
            finally:
                self.container.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

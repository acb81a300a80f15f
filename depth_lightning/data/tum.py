"""TUM RGB-D (Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012).

A sequence is a folder with rgb.txt and depth.txt, whose lines are "timestamp file", as described at
https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats. Images and depth maps have different times, and are
paired as the benchmark's associate.py does: the closest first, none twice.
"""

import bisect
from pathlib import Path
from typing import Any, Literal

from depth_lightning.data.listing import Split
from depth_lightning.data.pair_table import Pair
from depth_lightning.data.pairs import DepthPairs
from depth_lightning.data.reading import read_lines
from depth_lightning.settings import SettingError, number

Frame = tuple[float, str]
"""Time in seconds, and path below the sequence's folder."""


class TUM(DepthPairs):
    """Frames paired by time; see `DepthPairs`, whose patterns here find the sequences' lists.

    Args:
        split: "train" or "val".
        max_difference_s: largest difference of time between an image and its depth map, in seconds; exclusive.
        options: see `DepthPairs`.

    Raises:
        ValueError: a list is broken, or no frames of a sequence belong together; see also `DepthPairs`.
    """

    def __init__(self, split: Split, max_difference_s: float = 0.02, **options: Any) -> None:
        self.max_difference_s = number("max_difference_s", max_difference_s, above=0)
        super().__init__(split, **options)

    def match(
        self, root: Path, image: str, depth: str, mask: str | None, unmatched: Literal["error", "skip"]
    ) -> list[Pair]:
        """The paired frames of all sequences below `root`, whose names are the scenes."""
        pairs = []
        for sequence in super().match(root, image, depth, mask, unmatched):
            for key, pattern, found in (("image", image, sequence.image), ("depth", depth, sequence.depth)):
                if Path(found).suffix != ".txt":
                    raise SettingError(
                        key,
                        f"names lists of frames, as **/rgb.txt does, found {pattern!r}. "
                        "For files of their own: data=pairs.",
                    )
            folder = Path(sequence.image).parent
            times = {name: dict(read_frames(Path(name))) for name in (sequence.image, sequence.depth)}
            associated = associate(list(times[sequence.image]), list(times[sequence.depth]), self.max_difference_s)
            if not associated:
                raise ValueError(
                    f"{sequence.image}: expected frames at the times of {sequence.depth}, found none within "
                    f"data.max_difference_s={self.max_difference_s:g}."
                )
            for rgb_s, depth_s in associated:
                rgb, map_ = folder / times[sequence.image][rgb_s], folder / times[sequence.depth][depth_s]
                pairs.append(Pair(rgb.relative_to(root).as_posix(), str(rgb), str(map_), scene=folder.name))
        return pairs


def read_frames(path: Path) -> list[Frame]:
    """The frames in a list; its comments begin with #.

    Raises:
        OSError: it cannot be read.
        ValueError: a line has no time or no file.
    """
    frames = []
    for number_of_line, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        time, _, file = line.replace("\t", " ").strip().partition(" ")
        try:
            frames.append((float(time), file.strip()))
        except ValueError:
            file = ""
        if not file.strip():
            raise ValueError(f"{path}, line {number_of_line}: expected 'timestamp file', found {line!r:.200}.")
    return frames


def associate(first: list[float], second: list[float], max_difference: float) -> list[tuple[float, float]]:
    """Pairs of times that differ by less than `max_difference`, the closest first and none twice, in order."""
    others = sorted(second)
    close = [
        (abs(time - other), time, other)
        for time in first
        for other in others[
            bisect.bisect_left(others, time - max_difference) : bisect.bisect(others, time + max_difference)
        ]
        if abs(time - other) < max_difference
    ]
    free, free_others, pairs = set(first), set(second), []
    for _, time, other in sorted(close):
        if time in free and other in free_others:
            free.remove(time)
            free_others.remove(other)
            pairs.append((time, other))
    return sorted(pairs)

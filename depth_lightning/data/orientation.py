"""Whether the depth maps of a data set belong to its images as stored, or turned by their EXIF orientation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from depth_lightning.data.bad_samples import same_aspect
from depth_lightning.data.diagnosis.edges import NEAR, REACH, agreement, surely
from depth_lightning.data.files import RASTERS, split_key
from depth_lightning.data.images import orientation_of
from depth_lightning.data.pair_table import Pair
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.invocation import command_line
from depth_lightning.sample import DepthSample

LOOKED_AT: Final = 1000
"""Most pairs whose headers are read."""
COMPARED: Final = 32
"""Most pairs whose shapes and edges are compared."""


class Decision(NamedTuple):
    """How to read a data set."""

    exif: Literal["auto", "apply", "ignore"]
    """ "auto" if none of the images that were looked at has an orientation."""
    reason: str


def turns(pair: Pair) -> tuple[int, int]:
    """The EXIF or TIFF orientations of the image and its depth map, from 1 to 8."""
    depth, _ = split_key(pair.depth)
    return orientation_of(Path(pair.image)), orientation_of(depth) if depth.suffix.lower() in RASTERS else 1


def decide(pairs: Sequence[Pair], read: Callable[[Pair, bool], DepthSample]) -> Decision:
    """Decide for all pairs at once, by which way the depth maps fit their images: in shape, else by their edges.

    Args:
        pairs: all of the data set.
        read: (pair, whether to apply orientations) → the sample, whatever its shape.

    Raises:
        ValueError: it cannot be decided.
    """
    tagged = [(pair, turn) for pair in evenly_spread(pairs, LOOKED_AT) if (turn := turns(pair)) != (1, 1)]
    if not tagged:
        return Decision("auto", "")
    differing = [pair for pair, (image, depth) in tagged if image != depth]
    if not differing:
        return Decision("apply", "images and depth maps have the same")
    example, count = differing[0], len(differing)
    fits, gains = list[tuple[bool, bool]](), list[float]()
    for pair in evenly_spread(differing, COMPARED):
        try:
            as_stored, applied = read(pair, False), read(pair, True)
        except (OSError, ValueError):  # reported when it is needed
            continue
        fits.append((_fits(as_stored), _fits(applied)))
        if fits[-1] == (True, True):
            gains.append(_agreement(applied) - _agreement(as_stored))
    only_stored, only_applied = fits.count((True, False)), fits.count((False, True))
    if bool(only_stored) != bool(only_applied):
        exif: Literal["apply", "ignore"] = "apply" if only_applied else "ignore"
        return Decision(exif, f"only so {max(only_stored, only_applied)} of {len(fits)} depth maps fit in shape")
    if not only_stored and gains:
        gain = np.array(gains)
        for exif, sign in (("apply", 1), ("ignore", -1)):
            if surely(sign * gain):
                evidence = f"the edges of {len(gains)} images and depth maps agree better so, by {abs(gain.mean()):.2f}"
                return Decision(exif, evidence)
    if not only_stored and not gains:
        return Decision("ignore", "the depth maps fit in shape neither way, or cannot be read")
    why = (
        f"{only_applied} depth maps fit their image only with it applied, and {only_stored} only without"
        if only_stored
        else "neither the shapes nor the edges of the depth maps show whether it applies"
    )
    raise ValueError(
        f"data.exif=auto cannot decide: {count} images or depth maps have an EXIF orientation (such as {example.id}: "
        f"image {turns(example)[0]}, depth map {turns(example)[1]}), and {why}. "
        "Type data.exif=apply if the depth maps belong to the images as viewers show them, or data.exif=ignore if they "
        f"belong to the pixels as stored; {command_line('show')} draws both."
    )


def _fits(sample: DepthSample) -> bool:
    return same_aspect(sample.image.shape[:2], sample.target.shape)


def _agreement(sample: DepthSample) -> float:
    """How well the edges of image and depth map agree, at most `NEAR` pixels apart."""
    inner = slice(REACH - NEAR, REACH + NEAR + 1)
    return float(agreement(sample.image, sample.target, sample.mask & (sample.target > 0))[0][inner, inner].max())

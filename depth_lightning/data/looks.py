"""The looks of rendered scenes: how each is built, painted, lit and photographed."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from depth_lightning.data.patterns import (
    BRICKS,
    CHECKERS,
    DOTS,
    GRAIN,
    GRASS,
    MOTTLE,
    PANELS,
    PLAIN,
    PLANKS,
    STRIPES,
    TILES,
    WEAVE,
    Pattern,
)

Range = tuple[float, float]
"""The lowest value and the highest."""


class Piece(NamedTuple):
    """A kind of furniture: the ranges from which its size is drawn, in metres."""

    width: Range
    depth: Range
    height: Range
    bottom: Range = (0.0, 0.0)
    at_wall: float = 1.0
    """How likely it stands with its back to a wall."""
    round_axes: int = 0
    """As in `Boxes`."""


FURNITURE = (
    Piece(width=(1.4, 2.1), depth=(0.8, 1.6), height=(0.4, 0.6), at_wall=0.7),  # bed, sofa
    Piece(width=(0.8, 1.6), depth=(0.6, 0.9), height=(0.7, 0.78), at_wall=0.4),  # table
    Piece(width=(0.6, 1.8), depth=(0.4, 0.6), height=(0.7, 1.1)),  # chest of drawers
    Piece(width=(0.6, 1.6), depth=(0.4, 0.65), height=(1.7, 2.1)),  # cupboard
    Piece(width=(0.35, 0.6), depth=(0.35, 0.6), height=(0.35, 0.6), at_wall=0.2),  # crate
    Piece(width=(0.25, 0.45), depth=(0.25, 0.45), height=(9.0, 9.0), at_wall=0.3),  # pillar, cut at the ceiling
    Piece(width=(0.9, 0.9), depth=(0.06, 0.06), height=(2.0, 2.0)),  # door
    Piece(width=(0.5, 1.4), depth=(0.04, 0.35), height=(0.4, 0.8), bottom=(1.2, 1.5)),  # picture, shelf
)
ROUND_FURNITURE = (
    Piece(width=(0.7, 1.4), depth=(0.7, 1.4), height=(0.6, 0.8), at_wall=0.0, round_axes=2),  # round table
    Piece(width=(0.3, 0.5), depth=(0.3, 0.5), height=(0.4, 0.5), at_wall=0.0, round_axes=2),  # stool, basket
    Piece(width=(0.25, 0.4), depth=(0.25, 0.4), height=(9.0, 9.0), at_wall=0.0, round_axes=2),  # column
    Piece(width=(0.4, 0.8), depth=(0.4, 0.8), height=(0.3, 0.5), at_wall=0.2, round_axes=3),  # cushion
    Piece(width=(0.25, 0.5), depth=(0.25, 0.5), height=(0.25, 0.5), bottom=(1.6, 2.0), at_wall=0.0, round_axes=3),
)  # the last is a lampshade
CLUTTER = tuple(
    Piece(width, depth, height, bottom, 0.0, round_axes)
    for round_axes in (0, 2, 3)
    for width, depth, height, bottom in (
        ((0.1, 0.4), (0.1, 0.4), (0.1, 0.4), (0.0, 2.0)),
        ((0.2, 0.9), (0.2, 0.9), (0.2, 0.9), (0.0, 0.0)),
        ((0.05, 0.2), (0.05, 1.5), (0.5, 2.0), (0.0, 1.0)),
    )
)


class Look(NamedTuple):
    """What a scene is built of and how it is seen. The defaults are those of the usual look."""

    pieces: Sequence[Piece] = FURNITURE
    extra_pieces: tuple[int, int] = (0, 1)
    """Pieces beside those that go with the size of a room: from the first number to below the second."""
    open: bool = False
    """Streets and fields under the sky, in the place of a room."""
    walls: Sequence[Pattern] = (PLAIN, MOTTLE, STRIPES, BRICKS, TILES)
    floors: Sequence[Pattern] = (TILES, CHECKERS, PLANKS, PLANKS)
    ceilings: Sequence[Pattern] = (PLAIN, PLAIN, MOTTLE, PANELS)
    things: Sequence[Pattern] = (PLAIN, PLAIN, MOTTLE, STRIPES, CHECKERS, PLANKS)
    varied: bool = False
    """Patterns of any size in two colours, rather than of their usual size in two shades; each wall its own."""
    light: Literal["carried", "ceiling", "sun"] = "carried"
    """One lamp near the camera, which fades with the distance; lamps at the ceiling; or the sun."""
    sensor: bool = True
    """Depth has the holes of a Kinect; otherwise it is known everywhere."""
    filled: float = 0.0
    """Share of the view in which things are to be seen, before walls or sky."""
    fov_deg: Range = (52, 75)
    camera_height_m: Range = (1.0, 1.8)
    pitch_deg: tuple[float, float, float, float] = (-11, 7, -28, 8)
    """Mean, standard deviation, lowest and highest."""
    roll_deg: float = 2.5
    """Standard deviation."""


ANY = (PLAIN, MOTTLE, STRIPES, BRICKS, TILES, PANELS, CHECKERS, PLANKS, DOTS, GRAIN, WEAVE, GRASS)
USUAL = Look()
LOOKS = {
    "usual": USUAL,
    "daylight": Look(
        pieces=FURNITURE + ROUND_FURNITURE,
        extra_pieces=(2, 6),
        walls=(PLAIN, PLAIN, GRAIN, WEAVE, DOTS, PANELS),
        floors=(WEAVE, GRAIN, GRAIN, PANELS, PLAIN),
        ceilings=(PLAIN, PLAIN, GRASS),
        things=(PLAIN, PLAIN, GRAIN, DOTS, WEAVE, GRASS),
        varied=True,
        light="ceiling",
        sensor=False,
        filled=0.4,
        fov_deg=(38, 90),
        camera_height_m=(0.7, 1.9),
        pitch_deg=(-8, 10, -40, 20),
        roll_deg=4.0,
    ),
    "flash": Look(
        pieces=FURNITURE + ROUND_FURNITURE,
        extra_pieces=(2, 8),
        walls=ANY,
        floors=ANY,
        ceilings=ANY,
        things=ANY,
        varied=True,
        sensor=False,
        filled=0.3,
        fov_deg=(35, 95),
        camera_height_m=(0.5, 2.0),
        pitch_deg=(-10, 12, -45, 30),
        roll_deg=5.0,
    ),
    "clutter": Look(
        pieces=CLUTTER,
        extra_pieces=(12, 26),
        walls=ANY,
        floors=ANY,
        ceilings=ANY,
        things=ANY,
        varied=True,
        light="ceiling",
        sensor=False,
        filled=0.6,
        fov_deg=(30, 100),
        camera_height_m=(0.4, 2.0),
        pitch_deg=(-10, 18, -50, 35),
        roll_deg=8.0,
    ),
    "open": Look(
        open=True,
        walls=(PLAIN, BRICKS, PANELS, STRIPES, TILES, MOTTLE),
        floors=(GRASS, GRASS, MOTTLE, PLAIN, PANELS, TILES),
        things=(PLAIN, PLAIN, GRAIN, STRIPES, GRASS, MOTTLE),
        varied=True,
        light="sun",
        sensor=False,
        filled=0.6,
        fov_deg=(30, 100),
        camera_height_m=(1.0, 4.0),
        pitch_deg=(-4, 7, -35, 15),
        roll_deg=3.0,
    ),
}
"""`mixed` is any of them but the usual one, which is left to be learned afterwards."""
NAMES = (*LOOKS, "mixed")


def look_of(name: str, seed: Sequence[int]) -> Look:
    """The look of a scene, which is drawn if the name is `mixed`."""
    if name != "mixed":
        return LOOKS[name]
    others = [look for known, look in LOOKS.items() if known != "usual"]
    return others[int(np.random.default_rng(seed).integers(len(others)))]

"""Procedural patterns, filtered over what a pixel covers, so that in the distance they fade instead of aliasing.

A pattern takes positions `u`, `v`, counted in its own cells, and how many cells a pixel covers along each of them,
`blur_u`, `blur_v`. It returns the share of a material's second colour, in [0, 1].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

LATTICE: Floats = np.random.default_rng(0).random((64, 64), dtype=np.float32)
"""Random numbers for the cells of a pattern, repeated every 64 cells."""


def cell_value(u: Floats, v: Floats) -> Floats:
    """A random number in [0, 1) for the cell that holds (u, v)."""
    value: Floats = LATTICE[np.floor(u).astype(int) % 64, np.floor(v).astype(int) % 64]
    return value


def pulse(x: Floats, duty: float, blur: Floats) -> Floats:
    """The share of [x − blur / 2, x + blur / 2] that lies in the intervals [k, k + duty], k whole."""

    def covered_up_to(x: Floats) -> Floats:
        whole = np.floor(x)
        return whole * duty + np.minimum(x - whole, duty)

    blur = np.maximum(blur, 0.01)
    return (covered_up_to(x + blur / 2) - covered_up_to(x - blur / 2)) / blur


def plain(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """One colour."""
    return np.zeros_like(u)


def stripes(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Upright stripes, half a cell wide."""
    return pulse(u, 0.5, blur_u)


def checkers(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """A chessboard; a cell is one square."""
    a, b = pulse(u / 2, 0.5, blur_u / 2), pulse(v / 2, 0.5, blur_v / 2)
    return a + b - 2 * a * b


def tiles(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats, variety: float = 0.25) -> Floats:
    """Tiles that differ a little, with joints in the second colour."""
    joint = 1 - (1 - pulse(u, 0.06, blur_u)) * (1 - pulse(v, 0.06, blur_v))
    shade = 0.5 + (cell_value(u, v) - 0.5) / (1 + blur_u**2 + blur_v**2)
    return joint + (1 - joint) * variety * shade


def bricks(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Tiles of which every other row is moved by half a cell."""
    return tiles(u + np.floor(v) % 2 / 2, v, blur_u, blur_v, variety=0.5)


def planks(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Boards along u that differ in shade and begin anywhere."""
    row = np.floor(v)
    return tiles(u + cell_value(row, row), v, blur_u, blur_v, variety=0.8)


def mottle(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Value noise of two octaves."""
    contrast = 1 / (1 + blur_u**2 + blur_v**2)
    return 0.5 + contrast * (0.65 * _noise(u, v) + 0.35 * _noise(2.7 * u, 2.7 * v) - 0.5)


def grass(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Value noise of five octaves, each of which fades on its own."""
    share = np.full_like(u, 0.5)
    for octave in range(5):
        scale = 2.3**octave
        share += 0.2 * (_noise(scale * u, scale * v) - 0.5) / (1 + (scale * blur_u) ** 2 + (scale * blur_v) ** 2)
    return share


def grain(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Wood: noise that is long along u."""
    return mottle(u / 8, v, blur_u / 8, blur_v)


def dots(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """A round dot in the middle of each cell."""
    du, dv = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
    blur = np.maximum(np.maximum(blur_u, blur_v), 0.01)
    sharp = np.clip((0.3 - np.sqrt(du**2 + dv**2)) / blur + 0.5, 0, 1)
    mean = np.float32(np.pi * 0.3**2)
    return mean + (sharp - mean) * np.clip(1.5 - blur, 0, 1)


def weave(u: Floats, v: Floats, blur_u: Floats, blur_v: Floats) -> Floats:
    """Bands that cross, as of a tartan."""
    return (pulse(u, 0.4, blur_u) + pulse(v, 0.3, blur_v)) / 2


def _noise(u: Floats, v: Floats) -> Floats:
    """Random numbers at whole positions, smoothly interpolated between them."""
    corner_u, corner_v = np.floor(u), np.floor(v)
    du, dv = ((3 - 2 * d) * d**2 for d in (u - corner_u, v - corner_v))
    low, high = (
        (1 - du) * cell_value(corner_u, w) + du * cell_value(corner_u + 1, w) for w in (corner_v, corner_v + 1)
    )
    return (1 - dv) * low + dv * high


class Pattern(NamedTuple):
    """A pattern and the size of its cell in the world."""

    share: Callable[[Floats, Floats, Floats, Floats], Floats]
    cell_m: tuple[float, float]


PLAIN = Pattern(plain, (1.0, 1.0))
MOTTLE = Pattern(mottle, (0.4, 0.4))
STRIPES = Pattern(stripes, (0.3, 0.3))
BRICKS = Pattern(bricks, (0.5, 0.2))
TILES = Pattern(tiles, (0.3, 0.3))
PANELS = Pattern(tiles, (0.6, 0.6))
CHECKERS = Pattern(checkers, (0.4, 0.4))
PLANKS = Pattern(planks, (1.2, 0.15))
DOTS = Pattern(dots, (0.3, 0.3))
GRAIN = Pattern(grain, (0.12, 0.12))
WEAVE = Pattern(weave, (0.35, 0.35))
GRASS = Pattern(grass, (0.8, 0.8))

"""Random scenes of a look: what stands in them, what it is painted with, where the camera stands, what lights them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from depth_lightning.data import raycast
from depth_lightning.data.looks import USUAL, Look, Range
from depth_lightning.data.patterns import Pattern
from depth_lightning.data.raycast import Boxes, Camera, Floats, Indices

FAR_M = 200.0
"""Beyond it everything counts as sky."""


class Material(NamedTuple):
    """What a face is painted with."""

    pattern: Pattern
    phase: Floats
    """(2,), in cells."""
    colours: Floats
    """(2, 3) linear RGB in [0, 1]."""
    scale: float = 1.0
    """How many times larger the pattern is than usual."""


class Room(NamedTuple):
    """Boxes and their materials."""

    boxes: Boxes
    materials: list[Material]
    material_of: Indices
    """(boxes, 3 axes, 2 sides): the material of each face."""


class Lamp(NamedTuple):
    """A lamp, and the light that comes from everywhere."""

    position: Floats
    """(3,)"""
    colour: Floats
    """(3,) linear RGB."""
    ambient: float


class Sun(NamedTuple):
    """The sun, a sky that lights what looks up, and haze."""

    direction: Floats
    """(3,), towards the sun."""
    colour: Floats
    """(3,) linear RGB."""
    sky: Floats
    """(2, 3) linear RGB, at the horizon and overhead."""
    clouds: float
    """Their share of the sky."""
    visibility_m: float
    """Where the haze leaves 1 / e of the contrast."""


class Solid(NamedTuple):
    """One box, as a row of `Boxes`."""

    centre: tuple[float, float, float]
    half_size: tuple[float, float, float]
    turn: float = 0.0
    """In radians."""
    round_axes: int = 0


def random_boxes(rng: np.random.Generator, look: Look = USUAL) -> Boxes:
    """A room with its floor at z = 0 and furniture in it; its horizontal diagonal, below 9.6 m, bounds the depth."""
    length = np.exp(rng.uniform(np.log(2.5), np.log(9.0)))
    width = rng.uniform(2.5, min(6.0, length + 0.5, np.sqrt(9.6**2 - length**2)))
    height = rng.uniform(2.3, 3.2)
    sides = (length / 2, width / 2)
    centres, half_sizes, headings, round_axes = [[0.0, 0.0, height / 2]], [[*sides, height / 2]], [[1.0, 0.0]], [0]

    fewest, below = look.extra_pieces
    for _ in range(rng.integers(3 + fewest, 5 + below + int(length * width / 5))):
        piece = look.pieces[int(rng.integers(len(look.pieces)))]
        half_width, half_depth = rng.uniform(*piece.width) / 2, rng.uniform(*piece.depth) / 2
        bottom = rng.uniform(*piece.bottom)
        top = min(bottom + rng.uniform(*piece.height), height)
        if rng.random() < piece.at_wall:
            wall, side = rng.integers(2), rng.choice([-1, 1])  # the wall's normal is axis 0 or 1
            centre = [0.0, 0.0]
            centre[wall] = side * (sides[wall] - half_depth)
            centre[1 - wall] = rng.uniform(-1, 1) * (sides[1 - wall] - half_width)
            heading = [float(wall), float(1 - wall)]
        else:
            margin = np.hypot(half_width, half_depth)
            centre = [rng.uniform(-1, 1) * max(side - margin, 0) for side in sides]
            turn = rng.uniform(0, np.pi)
            heading = [np.cos(turn), np.sin(turn)]
        centres.append([*centre, (bottom + top) / 2])
        half_sizes.append([half_width, half_depth, (top - bottom) / 2])
        headings.append(heading)
        round_axes.append(piece.round_axes)
    arrays = [np.array(values, np.float32) for values in (centres, half_sizes, headings)]
    return Boxes(arrays[0], arrays[1], arrays[2], np.array(round_axes) if any(round_axes) else None)


def open_boxes(rng: np.random.Generator) -> Boxes:
    """A street along x, or a field with things and hills; the ground is z = 0, and the room around it is the sky."""
    solids = [Solid((0, 0, 60), (2 * FAR_M, 2 * FAR_M, 60))]
    if rng.random() < 0.5:
        for side in (-1, 1):
            solids += _row_of_houses(rng, side)
        solids += [_car(rng, rng.uniform(-80, 80), rng.choice([-1, 1]) * rng.uniform(2, 4)) for _ in range(5)]
        count, nearest, farthest = 8, 3.0, 40.0
    else:
        count, nearest, farthest = 22, 2.5, 90.0
        for _ in range(rng.integers(0, 5)):  # hills, and houses far away
            away, angle, size = rng.uniform(70, 190), rng.uniform(0, 2 * np.pi), rng.uniform(10, 45)
            round_axes = int(rng.choice([0, 3]))
            half = (size, rng.uniform(0.4, 1) * size, rng.uniform(0.2, 0.5) * size)
            solids.append(Solid((away * np.cos(angle), away * np.sin(angle), 0), half, angle, round_axes))
    for _ in range(count):
        away, angle = _log_uniform(rng, (nearest, farthest)), rng.uniform(0, 2 * np.pi)
        solids += _thing(rng, away * np.cos(angle), away * np.sin(angle))
    turns = np.array([solid.turn for solid in solids])
    return Boxes(
        np.array([solid.centre for solid in solids], np.float32),
        np.array([solid.half_size for solid in solids], np.float32),
        np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32),
        np.array([solid.round_axes for solid in solids]),
    )


def _row_of_houses(rng: np.random.Generator, side: int) -> list[Solid]:
    houses, x, setback = [], -110.0, rng.uniform(6, 14)
    while x < 110:
        half_width, half_depth, half_height = rng.uniform([3, 4, 1.5], [12, 7, 9])
        away = setback + half_depth + rng.uniform(0, 2)
        houses.append(Solid((x + half_width, side * away, half_height), (half_width, half_depth, half_height)))
        x += 2 * half_width + rng.choice([0.0, 0.0, 4.0, 12.0])
    return houses


def _car(rng: np.random.Generator, x: float, y: float) -> Solid:
    return Solid((x, y, 0.75), (rng.uniform(1.7, 2.3), 0.85, rng.uniform(0.6, 0.9)), rng.normal(0, 0.05))


def _thing(rng: np.random.Generator, x: float, y: float) -> list[Solid]:
    turn = rng.uniform(0, np.pi)
    match rng.integers(6):
        case 0:  # a tree
            trunk, crown = rng.uniform(1, 3), rng.uniform(0.8, 2.5)
            width = rng.uniform(0.08, 0.25)
            return [
                Solid((x, y, trunk / 2), (width, width, trunk / 2), 0, 2),
                Solid((x, y, trunk + 0.8 * crown), (crown, crown, rng.uniform(0.8, 1.4) * crown), 0, 3),
            ]
        case 1:  # a bush, a boulder, a ball
            size = rng.uniform(0.2, 1.2)
            return [Solid((x, y, 0.7 * size), (size, rng.uniform(0.6, 1) * size, size), turn, 3)]
        case 2:  # a person, a post, a column
            height, width = rng.uniform(0.5, 2.0), rng.uniform(0.04, 0.3)
            return [Solid((x, y, height), (width, width, height), 0, 2)]
        case 3:
            return [_car(rng, x, y)._replace(turn=turn)]
        case 4:  # a wall, a hedge
            return [Solid((x, y, 0.5), (rng.uniform(1, 5), rng.uniform(0.05, 0.5), rng.uniform(0.5, 1.2)), turn)]
        case _:  # a crate, a shed
            half = _log_uniform(rng, (0.2, 2.0)) * rng.uniform(0.6, 1, 3)
            return [Solid((x, y, float(half[2])), (float(half[0]), float(half[1]), float(half[2])), turn)]


def _log_uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def random_material(rng: np.random.Generator, choice: Sequence[Pattern], varied: bool = False) -> Material:
    """One of the patterns in a colour and a darker shade of it, or, varied, in any size and two colours."""
    tint = 1 - rng.uniform(0, 0.7) * rng.random(3)
    colour = rng.uniform(0.5, 0.95) * tint
    colours = np.stack([colour, rng.uniform(0.4, 0.75) * colour]).astype(np.float32)
    material = Material(choice[int(rng.integers(len(choice)))], rng.uniform(0, 64, 2).astype(np.float32), colours)
    if not varied:
        return material
    tints = 1 - rng.uniform(0, 0.95, (2, 1)) * rng.random((2, 3))
    two = _log_uniform(rng, (0.08, 0.9)) * tints * np.array([[1], [_log_uniform(rng, (0.3, 3))]])
    return material._replace(colours=two.clip(0, 0.95).astype(np.float32), scale=_log_uniform(rng, (0.4, 2.5)))


def random_room(rng: np.random.Generator, look: Look = USUAL) -> Room:
    """Furnish a room and paint it: one material for the walls, the floor, the ceiling, and each piece of furniture."""
    boxes = open_boxes(rng) if look.open else random_boxes(rng, look)
    pieces = len(boxes.heading) - 1
    large = boxes.half_size[1:].max(axis=1) > 2.5  # houses are painted as walls
    choices = [look.walls, look.floors, look.ceilings, *(look.walls if each else look.things for each in large)]
    materials = [random_material(rng, choice, look.varied) for choice in choices]
    walls, floor, ceiling = 0, 1, 2
    material_of = np.empty((1 + pieces, 3, 2), np.intp)
    material_of[0] = [[walls, walls], [walls, walls], [floor, ceiling]]
    material_of[1:] = np.arange(3, len(materials))[:, None, None]
    if look.varied and not look.open:  # a wall of its own
        materials.append(random_material(rng, look.walls, look.varied))
        material_of[0, rng.integers(2), rng.integers(2)] = len(materials) - 1
    return Room(boxes, materials, material_of)


def random_camera(
    rng: np.random.Generator,
    boxes: Boxes,
    look: Look = USUAL,
    fov_deg: Range | None = None,
    off_centre: float = 0.0,
) -> Camera:
    """A camera at a person's height, outside of furniture, with a free view, half of the time across the room.

    What is asked of the view is lowered with every camera that is refused, so that one is found in any room.

    Args:
        fov_deg: in the place of the look's.
        off_centre: how far the principal point may lie from the image's centre, in the image's sides.
    """
    half_floor = np.array([20, 1.5]) if look.open else boxes.half_size[0, :2]
    diagonal = 2 * np.hypot(*half_floor)
    mean_depth = rng.choice([0.0, 0.75]) * diagonal  # anything, or across the room
    mean_pitch, pitch_spread, lowest_pitch, highest_pitch = look.pitch_deg
    for demand in np.linspace(1, 0, 20):
        on_floor = rng.uniform(0.35 - half_floor, half_floor - 0.35)
        position = np.array([*on_floor, rng.uniform(*look.camera_height_m)], np.float32)
        yaw, pitch = rng.uniform(0, 360), np.clip(rng.normal(mean_pitch, pitch_spread), lowest_pitch, highest_pitch)
        if look.open:  # mostly along the street
            yaw = 180 * np.round(yaw / 180) + rng.normal(0, 30)
        rotation = raycast.look(yaw, pitch, rng.normal(0, look.roll_deg))
        camera = Camera(position, rotation, fov_deg=rng.uniform(*(fov_deg or look.fov_deg)))
        depth, box = raycast.cast(boxes, camera.position, camera.rays(3, 4))
        free = 0.9 * demand <= depth.min() and mean_depth * demand <= depth.mean()
        filled = (box > 0).mean() >= look.filled * demand
        if free and filled and not boxes.hold(position, 0.1):
            break
    if off_centre:
        right, down = rng.uniform(-off_centre, off_centre, 2)
        camera = camera._replace(off_centre=(float(right), float(down)))
    return camera


def random_lamp(rng: np.random.Generator, boxes: Boxes, camera: Camera) -> Lamp:
    """A warm lamp held beside the camera or above it."""
    low, high = boxes.centre[0] - boxes.half_size[0] + 0.2, boxes.centre[0] + boxes.half_size[0] - 0.2
    position = np.clip(camera.position + rng.uniform([-0.5, -0.5, 0.0], [0.5, 0.5, 0.6]), low, high)
    colour = rng.uniform(4.0, 5.0) * np.array([1, rng.uniform(0.8, 1), rng.uniform(0.6, 1)])
    return Lamp(position.astype(np.float32), colour.astype(np.float32), ambient=rng.uniform(0.05, 0.12))


def ceiling_lamps(rng: np.random.Generator, boxes: Boxes) -> list[Lamp]:
    """One lamp or two below the ceiling, white to warm."""
    centre, reach = boxes.centre[0], boxes.half_size[0] * np.array([0.9, 0.9, 1.0], np.float32)
    lamps = []
    for _ in range(rng.integers(1, 3)):
        position = centre + reach * np.array([*rng.uniform(-1, 1, 2), rng.uniform(0.6, 0.95)])
        colour = rng.uniform(1.0, 4.0) * np.array([1, rng.uniform(0.8, 1.1), rng.uniform(0.6, 1.2)])
        lamps.append(Lamp(position.astype(np.float32), colour.astype(np.float32), ambient=rng.uniform(0.1, 0.4)))
    return lamps


def random_sun(rng: np.random.Generator) -> Sun:
    """A sun at any height over the horizon, from clear to overcast."""
    height, turn = np.radians(rng.uniform(12, 75)), rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)])
    colour = rng.choice([0.0, 1.0, 1.0]) * rng.uniform(0.8, 2.5) * np.array([1, rng.uniform(0.8, 1), 0.8])
    grey, blue = rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.9)
    sky = grey * np.array([[1, 1, 1], [blue, 0.3 + 0.7 * blue, 1]])
    visibility_m = _log_uniform(rng, (60, 2000))
    return Sun(direction.astype(np.float32), colour, sky, rng.choice([0.0, rng.random()]), visibility_m)

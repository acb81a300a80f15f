"""Rendered rooms: the embedded data set, for learning and testing without a download.

A room is a box of 2.5 to 9 m with furniture, which is boxes too. Perspective, patterns that have their usual size in
the world, and the fall-off of one lamp that is carried near the camera tell how far things are.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from depth_lightning.atomic import atomically
from depth_lightning.data import patterns, raycast
from depth_lightning.data.h5 import open_dataset, open_h5, read_dataset
from depth_lightning.data.nyu import read_h5
from depth_lightning.data.patterns import BRICKS, CHECKERS, MOTTLE, PANELS, PLAIN, PLANKS, STRIPES, TILES, Pattern
from depth_lightning.data.raycast import Boxes, Camera, Floats, Hits, Indices
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import one_of, text, whole_number

Split = Literal["train", "val"]

VIEWS = {"train": 4, "val": 1}
"""Images of one room."""

PROJECTOR_BASELINE_M = 0.075
"""From the camera to the infrared projector of a Kinect: what the projector does not see has no depth."""

WALLS = (PLAIN, MOTTLE, STRIPES, BRICKS, TILES)
FLOORS = (TILES, CHECKERS, PLANKS, PLANKS)
CEILINGS = (PLAIN, PLAIN, MOTTLE, PANELS)
FURNITURE = (PLAIN, PLAIN, MOTTLE, STRIPES, CHECKERS, PLANKS)


class Piece(NamedTuple):
    """A kind of furniture: the ranges from which its size is drawn, in metres."""

    width: tuple[float, float]
    depth: tuple[float, float]
    height: tuple[float, float]
    bottom: tuple[float, float] = (0.0, 0.0)
    at_wall: float = 1.0
    """How likely it stands with its back to a wall."""


PIECES = (
    Piece(width=(1.4, 2.1), depth=(0.8, 1.6), height=(0.4, 0.6), at_wall=0.7),  # bed, sofa
    Piece(width=(0.8, 1.6), depth=(0.6, 0.9), height=(0.7, 0.78), at_wall=0.4),  # table
    Piece(width=(0.6, 1.8), depth=(0.4, 0.6), height=(0.7, 1.1)),  # chest of drawers
    Piece(width=(0.6, 1.6), depth=(0.4, 0.65), height=(1.7, 2.1)),  # cupboard
    Piece(width=(0.35, 0.6), depth=(0.35, 0.6), height=(0.35, 0.6), at_wall=0.2),  # crate
    Piece(width=(0.25, 0.45), depth=(0.25, 0.45), height=(9.0, 9.0), at_wall=0.3),  # pillar, cut at the ceiling
    Piece(width=(0.9, 0.9), depth=(0.06, 0.06), height=(2.0, 2.0)),  # door
    Piece(width=(0.5, 1.4), depth=(0.04, 0.35), height=(0.4, 0.8), bottom=(1.2, 1.5)),  # picture, shelf
)


class Material(NamedTuple):
    """What a face is painted with."""

    pattern: Pattern
    phase: Floats
    """(2,), in cells."""
    colours: Floats
    """(2, 3) linear RGB in [0, 1]."""


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


def random_boxes(rng: np.random.Generator) -> Boxes:
    """A room with its floor at z = 0 and furniture in it; its horizontal diagonal, below 9.6 m, bounds the depth."""
    length = np.exp(rng.uniform(np.log(2.5), np.log(9.0)))
    width = rng.uniform(2.5, min(6.0, length + 0.5, np.sqrt(9.6**2 - length**2)))
    height = rng.uniform(2.3, 3.2)
    sides = (length / 2, width / 2)
    centres, half_sizes, headings = [[0.0, 0.0, height / 2]], [[*sides, height / 2]], [[1.0, 0.0]]

    for _ in range(rng.integers(3, 6 + int(length * width / 5))):
        piece = PIECES[rng.integers(len(PIECES))]
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
    return Boxes(*(np.array(values, np.float32) for values in (centres, half_sizes, headings)))


def random_material(rng: np.random.Generator, choice: Sequence[Pattern]) -> Material:
    """One of the patterns in a colour and a darker shade of it."""
    tint = 1 - rng.uniform(0, 0.7) * rng.random(3)
    colour = rng.uniform(0.5, 0.95) * tint
    colours = np.stack([colour, rng.uniform(0.4, 0.75) * colour]).astype(np.float32)
    return Material(choice[int(rng.integers(len(choice)))], rng.uniform(0, 64, 2).astype(np.float32), colours)


def random_room(rng: np.random.Generator) -> Room:
    """Furnish a room and paint it: one material for the walls, the floor, the ceiling, and each piece of furniture."""
    boxes = random_boxes(rng)
    pieces = len(boxes.heading) - 1
    materials = [random_material(rng, choice) for choice in (WALLS, FLOORS, CEILINGS, *[FURNITURE] * pieces)]
    walls, floor, ceiling = 0, 1, 2
    material_of = np.empty((1 + pieces, 3, 2), np.intp)
    material_of[0] = [[walls, walls], [walls, walls], [floor, ceiling]]
    material_of[1:] = np.arange(3, len(materials))[:, None, None]
    return Room(boxes, materials, material_of)


def random_camera(rng: np.random.Generator, boxes: Boxes) -> Camera:
    """A camera at a person's height, outside of furniture, with a free view, half of the time across the room.

    What is asked of the view is lowered with every camera that is refused, so that one is found in any room.
    """
    half_floor = boxes.half_size[0, :2]
    diagonal = 2 * np.hypot(*half_floor)
    mean_depth = rng.choice([0.0, 0.75]) * diagonal  # anything, or across the room
    for demand in np.linspace(1, 0, 20):
        position = np.array([*rng.uniform(0.35 - half_floor, half_floor - 0.35), rng.uniform(1.0, 1.8)], np.float32)
        rotation = raycast.look(rng.uniform(0, 360), np.clip(rng.normal(-11, 7), -28, 8), rng.normal(0, 2.5))
        camera = Camera(position, rotation, fov_deg=rng.uniform(52, 75))
        depth, _ = raycast.cast(boxes, camera.position, camera.rays(3, 4))
        free = 0.9 * demand <= depth.min() and mean_depth * demand <= depth.mean()
        if free and not boxes.hold(position, 0.1):
            break
    return camera


def random_lamp(rng: np.random.Generator, boxes: Boxes, camera: Camera) -> Lamp:
    """A warm lamp held beside the camera or above it."""
    low, high = boxes.centre[0] - boxes.half_size[0] + 0.2, boxes.centre[0] + boxes.half_size[0] - 0.2
    position = np.clip(camera.position + rng.uniform([-0.5, -0.5, 0.0], [0.5, 0.5, 0.6]), low, high)
    colour = rng.uniform(4.0, 5.0) * np.array([1, rng.uniform(0.8, 1), rng.uniform(0.6, 1)])
    return Lamp(position.astype(np.float32), colour.astype(np.float32), ambient=rng.uniform(0.05, 0.12))


def albedo(room: Room, hits: Hits) -> Floats:
    """The colours (3, n) of the painted faces, in linear RGB."""
    colour = np.empty_like(hits.point)
    material_of = room.material_of[hits.box, hits.axis, hits.side]
    for i, (pattern, phase, (first, second)) in enumerate(room.materials):
        here = material_of == i
        cell = np.array(pattern.cell_m, np.float32)[:, None]
        share = pattern.share(*hits.uv[:, here] / cell + phase[:, None], *hits.footprint[:, here] / cell)
        colour[:, here] = first[:, None] + share * (second - first)[:, None]
    return colour


def illumination(boxes: Boxes, hits: Hits, lamp: Lamp) -> Floats:
    """The light (3, n) that arrives: the lamp's, where nothing stands before it, by distance and angle; and ambient."""
    to_lamp = lamp.position[:, None] - hits.point
    distance = np.sqrt((to_lamp**2).sum(axis=0))
    cosine = np.maximum((hits.normal * to_lamp).sum(axis=0), 0) / distance
    lit: Floats = raycast.visible(boxes, lamp.position, hits.point) * cosine / (0.5 + distance**2)
    return lamp.ambient + lamp.colour[:, None] * lit


def expose(rng: np.random.Generator, radiance: Floats) -> NDArray[np.uint8]:
    """A photograph of linear RGB (3, h, w) as (h, w, 3): highlights rolled off, sRGB's gamma, a little blur, noise."""
    signal = (1 - np.exp(-radiance)) ** (1 / 2.2)
    padded = np.pad(signal, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = (padded[:, :-2] + 4 * padded[:, 1:-1] + padded[:, 2:]) / 6
    blurred = (rows[..., :-2] + 4 * rows[..., 1:-1] + rows[..., 2:]) / 6
    noise = rng.standard_normal(blurred.shape, np.float32) * rng.uniform(0.004, 0.015)
    return np.round(255 * (blurred + noise).clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)


def measured(rng: np.random.Generator, boxes: Boxes, camera: Camera, hits: Hits) -> NDArray[np.bool]:
    """Where a Kinect would find a depth (n,): its projector sees the place, and enough light comes back from it.

    What is far or seen at a grazing angle returns little, some patches less than others.
    """
    projector = camera.position + PROJECTOR_BASELINE_M * camera.rotation[:, 0]
    to_camera = camera.position[:, None] - hits.point
    distance = np.sqrt((to_camera**2).sum(axis=0))
    returned: Floats = (hits.normal * to_camera).sum(axis=0) / distance**3
    u, v = hits.uv * 4 + rng.uniform(0, 64, (2, 1))
    patches = patterns.mottle(u, v, np.zeros_like(u), np.zeros_like(v))
    return raycast.visible(boxes, projector, hits.point) & (returned > 0.008 * patches)


def render_room(seed: Sequence[int], height: int, width: int, view: int = 0) -> tuple[NDArray[np.uint8], Floats]:
    """Photograph a random room.

    Args:
        seed: whole numbers that stand for the room.
        height: of the image, in pixels.
        width: of the image, in pixels.
        view: which of the room's views: camera, lamp and noise.

    Returns:
        RGB (height, width, 3), and planar depth (height, width) in metres along the optical axis, below 10, exact but
        for holes, which are 0.
    """
    room = random_room(np.random.default_rng([*seed, 0]))
    rng = np.random.default_rng([*seed, 1 + view])
    camera = random_camera(rng, room.boxes)
    lamp = random_lamp(rng, room.boxes, camera)
    hits = raycast.trace(room.boxes, camera, height, width)
    radiance = albedo(room, hits) * illumination(room.boxes, hits, lamp)
    depth = np.where(measured(rng, room.boxes, camera, hits), hits.depth, np.float32(0))
    return expose(rng, radiance.reshape(3, height, width)), depth.reshape(height, width)


def intrinsics_of(seed: Sequence[int], height: int, width: int, view: int = 0) -> Floats:
    """fx, fy, cx, cy of the camera of `render_room`, (4,) float32 in pixels; see `camera`."""
    boxes = random_room(np.random.default_rng([*seed, 0])).boxes
    focal = random_camera(np.random.default_rng([*seed, 1 + view]), boxes).focal(width)
    return np.array([focal, focal, (width - 1) / 2, (height - 1) / 2], np.float32)


def write_rooms(root: Path, split: Split, count: int, seed: int = 0, height: int = 84, width: int = 112) -> Path:
    """Render images into the folder `root/split`, in the layout of NYU's h5 release, unless it is there already.

    The folder appears when it is complete: an interrupt leaves none. Of processes that render it at once, the first
    one's stays.

    Returns:
        `root/split`.
    """
    folder = root / split
    if folder.exists():
        return folder
    try:
        with atomically(folder) as complete:
            for index in track(range(count), f"Rendering {split} rooms", transient=True, disable=count < 200):
                room, view = divmod(index, VIEWS[split])
                file = complete / f"{split}_{room:05d}" / f"{view:05d}.h5"
                number = (seed, list(VIEWS).index(split), room)
                rgb, depth = render_room(number, height, width, view)
                with h5py.File(content := io.BytesIO(), "w") as h5:
                    h5.create_dataset("rgb", data=rgb.transpose(2, 0, 1), track_times=False)
                    h5.create_dataset("depth", data=depth, track_times=False)
                    h5.create_dataset("intrinsics", data=intrinsics_of(number, height, width, view), track_times=False)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.getbuffer())
    except FileExistsError:
        if not folder.is_dir():  # another process was not faster: something is in the way
            raise
    return folder


class RenderedRooms:
    """Rendered rooms as a data set; rendered when it is first asked for, then read from disk.

    The files lie in `folder`, below `root`, whose name tells the parameters apart, and the code that rendered them.

    Args:
        count: images, of each split or of both.

    Raises:
        SettingError: an unknown split; a count, height or width below 1; a negative seed.
    """

    def __init__(
        self,
        root: Path | str,
        split: Split,
        count: int | Mapping[Split, int],
        seed: int = 0,
        height: int = 84,
        width: int = 112,
    ) -> None:
        one_of("split", split, VIEWS)
        if isinstance(count, Mapping):
            for name, images in count.items():
                whole_number(f"count.{name}", images)
            count = count[split]
        for argument, value in {"count": count, "height": height, "width": width}.items():
            whole_number(argument, value)
        whole_number("seed", seed, least=0)
        recipe = hashlib.sha256(repr((split, count, seed, height, width)).encode())
        for module in (__file__, patterns.__file__, raycast.__file__):
            recipe.update(Path(module).read_bytes())
        self.folder = Path(text("root", root, "a path")) / f"rooms_{split}_{count}_{recipe.hexdigest()[:10]}"
        self.files = sorted(write_rooms(self.folder, split, count, seed, height, width).glob("*/*.h5"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> DepthSample:
        """One image and its depth in metres, as they are on disk."""
        file = self.files[index]
        image, depth = read_h5(file)
        with open_h5(file) as h5:
            intrinsics = read_dataset(open_dataset(h5, "intrinsics"))
        return DepthSample(
            image=image,
            target=depth,
            mask=depth > 0,
            kind=DepthKind.METRES,
            id=file.relative_to(self.folder).as_posix(),
            scene=file.parent.name,
            intrinsics=intrinsics,
        )

    def path(self, index: int) -> Path:
        """Where sample `index` is."""
        return self.files[index]

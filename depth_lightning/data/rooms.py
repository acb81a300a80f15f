"""Rendered rooms and open scenes: the embedded data set, for learning and testing without a download.

A room of the usual look is a box of 2.5 to 9 m with furniture, which is boxes too. Perspective, patterns that have
their usual size in the world, and the fall-off of one lamp that is carried near the camera tell how far things are.
`looks` has the others.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from depth_lightning.atomic import atomically
from depth_lightning.data import looks, patterns, raycast, scenes
from depth_lightning.data.h5 import open_dataset, open_h5, read_dataset
from depth_lightning.data.looks import Range, look_of
from depth_lightning.data.nyu import read_h5
from depth_lightning.data.raycast import Boxes, Camera, Floats, Hits
from depth_lightning.data.scenes import (
    FAR_M,
    Lamp,
    Room,
    Sun,
    ceiling_lamps,
    random_camera,
    random_lamp,
    random_room,
    random_sun,
)
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import SettingError, number, one_of, optional, several, text, whole_number

Split = Literal["train", "val"]

VIEWS = {"train": 4, "val": 1}
"""Images of one room."""

PROJECTOR_BASELINE_M = 0.075
"""From the camera to the infrared projector of a Kinect: what the projector does not see has no depth."""

FOV = "the lowest and the highest angle in degrees, within 0 and 180, such as [45,60]"


class Lens(NamedTuple):
    """What the cameras of a split differ in."""

    fov_deg: Range | None = None
    """Horizontal; None: the look's."""
    off_centre: float = 0.0
    """How far the principal point may lie from the image's centre, in the image's sides."""


USUAL_LENS = Lens()


class Photo(NamedTuple):
    """A photograph of a scene, with what a sensor measures and what is true."""

    image: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    depth: Floats
    """(h, w) planar depth in metres along the optical axis, exact; 0 where it is not measured, infinite in the sky."""
    normal: Floats
    """(h, w, 3) towards the camera, of length 1, in the camera's axes: x right, y down, z forward; 0 in the sky."""
    intrinsics: Floats
    """(4,) float32 fx, fy, cx, cy in pixels; the top left pixel's centre is at (0, 0)."""


def albedo(room: Room, hits: Hits) -> Floats:
    """The colours (3, n) of the painted faces, in linear RGB."""
    colour = np.empty_like(hits.point)
    material_of = room.material_of[hits.box, hits.axis, hits.side]
    for i in np.unique(material_of):
        pattern, phase, (first, second), scale = room.materials[i]
        here = material_of == i
        cell = np.array(pattern.cell_m, np.float32)[:, None] * np.float32(scale)
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


def under_the_sky(room: Room, hits: Hits, rays: Floats, is_sky: NDArray[np.bool], sun: Sun) -> Floats:
    """The radiance (3, n) of an open scene: sun with shadows, light of the sky, haze that grows with distance."""
    length = np.sqrt((rays**2).sum(axis=0))
    up = np.maximum(rays[2] / length, 0)
    horizon, overhead = sun.sky[:, :, None]
    behind = horizon + np.sqrt(up) * (overhead - horizon)
    u, v = 3 * rays[:2] / (length * (up + 0.15))
    clouds = np.clip(2 * patterns.grass(u, v, 0 * u, 0 * v) - 1.5 + 1.5 * sun.clouds, 0, 1)
    behind = behind + clouds * (horizon - behind)

    facing = np.maximum((hits.normal * sun.direction[:, None]).sum(axis=0), 0)
    lit = np.zeros_like(facing)
    ground = ~is_sky & (facing > 0)
    lit[ground] = raycast.sunlit(room.boxes, sun.direction, hits.point[:, ground], hits.normal[:, ground])
    light = sun.colour[:, None] * facing * lit + 0.5 * overhead * (1.2 + 0.8 * hits.normal[2])
    clear = np.where(is_sky, 0, np.exp(-hits.depth * length / sun.visibility_m))
    radiance: Floats = behind + clear * (albedo(room, hits) * light - behind)
    return radiance


def balance(rng: np.random.Generator, radiance: Floats) -> Floats:
    """What a camera's automatic exposure and white balance make of it."""
    white = rng.uniform(0.15, 0.75) * rng.uniform(0.85, 1.15, (3, 1))
    balanced: Floats = white * radiance / radiance.mean()
    return balanced


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


def photograph(
    seed: Sequence[int], height: int, width: int, view: int = 0, look: str = "usual", lens: Lens = USUAL_LENS
) -> Photo:
    """Photograph a random scene.

    Args:
        seed: whole numbers that stand for the scene.
        height: of the image, in pixels.
        width: of the image, in pixels.
        view: which of the scene's views: camera, light and noise.
        look: one of `looks.NAMES`.
        lens: of the camera.
    """
    chosen = look_of(look, seed)
    room = random_room(np.random.default_rng([*seed, 0]), chosen)
    rng = np.random.default_rng([*seed, 1 + view])
    camera = random_camera(rng, room.boxes, chosen, *lens)
    hits = raycast.trace(room.boxes, camera, height, width)
    depth = hits.depth
    radiance: Floats
    if chosen.light == "carried":
        radiance = albedo(room, hits) * illumination(room.boxes, hits, random_lamp(rng, room.boxes, camera))
    elif chosen.light == "ceiling":
        lights = [illumination(room.boxes, hits, lamp) for lamp in ceiling_lamps(rng, room.boxes)]
        radiance = balance(rng, albedo(room, hits) * np.sum(lights, axis=0))
    else:
        is_sky = (depth > FAR_M) | ((hits.box == 0) & (hits.normal[2] < 0.5))
        rays = camera.rays(height, width)
        radiance = balance(rng, under_the_sky(room, hits, rays, is_sky, random_sun(rng)))
        depth = np.where(is_sky, np.float32(np.inf), depth)
    if chosen.sensor:
        depth = np.where(measured(rng, room.boxes, camera, hits), depth, np.float32(0))
    normal = camera.rotation.T @ np.where(np.isinf(depth), 0, hits.normal)
    return Photo(
        expose(rng, radiance.reshape(3, height, width)),
        depth.reshape(height, width),
        normal.T.reshape(height, width, 3),
        camera.intrinsics(height, width),
    )


def render_room(seed: Sequence[int], height: int, width: int, view: int = 0) -> tuple[NDArray[np.uint8], Floats]:
    """Image and depth of a random room of the usual look, see `photograph`; depth is below 10 m, holes are 0."""
    photo = photograph(seed, height, width, view)
    return photo.image, photo.depth


def scene_of(seed: int, split: Split, index: int) -> tuple[tuple[int, int, int], int]:
    """The seed of the scene that image `index` of a split shows, and which of its views the image is."""
    room, view = divmod(index, VIEWS[split])
    return (seed, list(VIEWS).index(split), room), view


def name_of(split: Split, index: int) -> str:
    """The path of an image's file below its split's folder."""
    room, view = divmod(index, VIEWS[split])
    return f"{split}_{room:05d}/{view:05d}.h5"


def write_rooms(
    root: Path,
    split: Split,
    count: int,
    seed: int = 0,
    height: int = 84,
    width: int = 112,
    look: str = "usual",
    lens: Lens = USUAL_LENS,
) -> Path:
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
                file = complete / name_of(split, index)
                scene, view = scene_of(seed, split, index)
                photo = photograph(scene, height, width, view, look, lens)
                with h5py.File(content := io.BytesIO(), "w") as h5:
                    h5.create_dataset("rgb", data=photo.image.transpose(2, 0, 1), track_times=False)
                    h5.create_dataset("depth", data=photo.depth, track_times=False)
                    h5.create_dataset("intrinsics", data=photo.intrinsics, track_times=False)
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
        root: where the images are kept; None to keep none, and render each whenever it is asked for.
        count: images, of each split or of both.
        look: usual, daylight, flash, clutter, open, or mixed, which is all but the usual one.
        fov_deg: the range of horizontal fields of view; None: the look's.
        val_fov_deg: the same for the split "val"; None: as in training.
        off_centre: how far the principal point may lie from the image's centre, in the image's sides.
        val_off_centre: the same for the split "val"; None: as in training.
        sky: what sky and everything beyond 200 m become, as in `DepthEncoding`: "ignore", holes, or "far", 200 m.

    Raises:
        SettingError: an unknown split or look; a count, height or width below 1; a negative seed; fields of view not
            within (0°, 180°).
    """

    def __init__(
        self,
        root: Path | str | None,
        split: Split,
        count: int | Mapping[Split, int],
        seed: int = 0,
        height: int = 84,
        width: int = 112,
        look: str = "usual",
        fov_deg: Range | None = None,
        val_fov_deg: Range | None = None,
        off_centre: float = 0.0,
        val_off_centre: float | None = None,
        sky: Literal["ignore", "far"] = "ignore",
    ) -> None:
        one_of("split", split, VIEWS)
        if isinstance(count, Mapping):
            for name, images in count.items():
                whole_number(f"count.{name}", images)
            count = count[split]
        for argument, value in {"count": count, "height": height, "width": width}.items():
            whole_number(argument, value)
        whole_number("seed", seed, least=0)
        one_of("look", look, looks.NAMES)
        one_of("sky", sky, ("ignore", "far"))
        for argument, angles in {"fov_deg": fov_deg, "val_fov_deg": val_fov_deg}.items():
            optional(argument, angles, partial(several, count=2, what=FOV, check=partial(number, above=0, below=180)))
            if angles is not None and angles[0] > angles[1]:
                raise SettingError(argument, f"is {FOV}, found {angles!r}.")
        number("off_centre", off_centre, least=0, most=0.5)
        optional("val_off_centre", val_off_centre, partial(number, least=0, most=0.5))
        if split == "val":
            fov_deg = fov_deg if val_fov_deg is None else val_fov_deg
            off_centre = off_centre if val_off_centre is None else val_off_centre
        lens = Lens(None if fov_deg is None else (fov_deg[0], fov_deg[1]), off_centre)
        self.sky, self.is_kept = sky, root is not None
        self._size, self._look, self._lens = (height, width), look, lens
        self._scene = partial(scene_of, seed, split)
        self.folder = Path()
        if root is not None:
            recipe = hashlib.sha256(repr((split, count, seed, height, width, look, lens)).encode())
            for module in (__file__, looks.__file__, patterns.__file__, raycast.__file__, scenes.__file__):
                recipe.update(Path(module).read_bytes())
            self.folder = Path(text("root", root, "a path")) / f"rooms_{split}_{count}_{recipe.hexdigest()[:10]}"
            write_rooms(self.folder, split, count, seed, height, width, look, lens)
        self.files = [self.folder / split / name_of(split, index) for index in range(count)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> DepthSample:
        """One image and its depth in metres."""
        file = self.files[index]
        if self.is_kept:
            image, depth = read_h5(file)
            with open_h5(file) as h5:
                intrinsics = read_dataset(open_dataset(h5, "intrinsics"))
        else:
            seed, view = self._scene(index % len(self))
            image, depth, _, intrinsics = photograph(seed, *self._size, view, self._look, self._lens)
        depth = np.where(np.isinf(depth), np.float32(FAR_M if self.sky == "far" else 0), depth)
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

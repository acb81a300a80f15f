"""Boxes, cylinders, balls, a pinhole camera, and what its rays hit, in NumPy.

World axes are in metres with z up. A camera's axes are those of OpenCV: x right, y down, z forward.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

IN_FACE = np.array([[1, 2], [0, 2], [0, 1]])
"""The two axes that lie in a face whose normal is axis 0, 1 or 2; the second is upright on upright faces."""


class Boxes(NamedTuple):
    """Boxes that stand upright, turned about the vertical. The first is the room, seen from inside.

    A cylinder or a ball is what fits into its box.
    """

    centre: Floats
    """(n, 3)"""
    half_size: Floats
    """(n, 3), along the box's own axes."""
    heading: Floats
    """(n, 2), cosine and sine of the turn."""
    round_axes: Indices | None = None
    """(n,): 0 is a box, 2 an upright cylinder, 3 a ball; None: all are boxes. The room is a box."""

    def to_local(self, box: Indices | int, vector: Floats) -> Floats:
        """Turn world vectors (3, n) into the axes of their boxes; `box` is one index, or one for each vector."""
        cos, sin = self.heading[box].T
        x, y, z = vector
        return np.array([cos * x + sin * y, cos * y - sin * x, z])

    def to_world(self, box: Indices, vector: Floats) -> Floats:
        """Undo `to_local`."""
        cos, sin = self.heading[box].T
        x, y, z = vector
        return np.array([cos * x - sin * y, sin * x + cos * y, z])

    def hold(self, point: Floats, margin_m: float = 0.0) -> bool:
        """Whether a point (3,) lies in any box but the room, or closer to one than the margin."""
        return any(
            bool((np.abs(self.to_local(i, point - self.centre[i])) < self.half_size[i] + margin_m).all())
            for i in range(1, len(self.heading))
        )


class Hits(NamedTuple):
    """Where rays meet the faces of boxes."""

    depth: Floats
    """(n,), in lengths of the ray's direction."""
    box: Indices
    """(n,)"""
    axis: Indices
    """(n,): the axis of the box that is the face's normal, or closest to it on what is round."""
    side: Indices
    """(n,): 0 or 1, which of the two faces with this normal."""
    point: Floats
    """(3, n) in the world."""
    normal: Floats
    """(3, n) in the world, of length 1, towards the ray's origin."""
    uv: Floats
    """(2, n) metres within the face, from its middle; on what is round, the position seen along `axis`."""
    footprint: Floats
    """(2, n) metres of the face along u and v that a pixel covers."""


class Camera(NamedTuple):
    """A pinhole with square pixels."""

    position: Floats
    """(3,)"""
    rotation: Floats
    """(3, 3), camera to world: its columns are right, down and forward."""
    fov_deg: float
    """From the left edge of the image to its right edge, where the principal point is in the middle."""
    off_centre: tuple[float, float] = (0.0, 0.0)
    """From the image's centre to the principal point, right and down, in widths and heights of the image."""

    def focal(self, width: int) -> float:
        """The focal length in pixels of an image of this width."""
        return width / 2 / float(np.tan(np.radians(self.fov_deg) / 2))

    def intrinsics(self, height: int, width: int) -> Floats:
        """(4,) float32 fx, fy, cx, cy in pixels; the top left pixel's centre is at (0, 0)."""
        focal = self.focal(width)
        right, down = self.off_centre
        return np.array([focal, focal, width * (0.5 + right) - 0.5, height * (0.5 + down) - 0.5], np.float32)

    def rays(self, height: int, width: int) -> Floats:
        """Directions (3, height · width) through the pixels' centres, in the world.

        Each advances by 1 along the optical axis, so that the parameter of a hit is its planar depth.
        """
        right, down = self.off_centre
        x = (np.arange(width) + 0.5 - width * (0.5 + right)) / self.focal(width)
        y = (np.arange(height) + 0.5 - height * (0.5 + down)) / self.focal(width)
        grid = np.stack([*np.meshgrid(x, y), np.ones((height, width))]).reshape(3, -1)
        rays: Floats = (self.rotation @ grid).astype(np.float32)
        return rays


def look(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Floats:
    """The rotation of a camera that looks along x when all angles are 0; a positive pitch looks up."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    level = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    upright = np.cross(forward, level)
    right = np.cos(roll) * level + np.sin(roll) * upright
    down = np.cos(roll) * upright - np.sin(roll) * level
    return np.stack([right, down, forward], axis=1).astype(np.float32)


def cast(boxes: Boxes, origin: Floats, directions: Floats) -> tuple[Floats, Indices]:
    """The nearest hits of rays (3, n) of any length from one point (3,) in the room, or from a point each (3, n).

    A box that holds the origin is not hit.

    Returns:
        How far away the hits are, in lengths of the direction, and the boxes that are hit. Both (n,).
    """
    points = origin if origin.ndim == 2 else origin[:, None]
    depth = np.empty(0, np.float32)
    hit_box = np.zeros(directions.shape[1], np.intp)
    for i in [0, *_in_cone(boxes, origin, directions)]:
        start, half = boxes.to_local(i, points - boxes.centre[i][:, None]), boxes.half_size[i][:, None]
        round_axes = 0 if boxes.round_axes is None else int(boxes.round_axes[i])
        enter, leave = _through(start, boxes.to_local(i, directions), half, round_axes)
        if i == 0:
            depth = leave
        else:
            nearest = (enter < leave) & (enter > 0) & (enter < depth)
            depth[nearest], hit_box[nearest] = enter[nearest], i
    return depth, hit_box


def _through(start: Floats, ray: Floats, half: Floats, round_axes: int) -> tuple[Floats, Floats]:
    """Where rays enter a solid around the origin and leave it; if they miss it, not enter < leave."""
    enters, leaves = [], []
    if round_axes < 3:
        flat = slice(round_axes, None)
        with np.errstate(divide="ignore"):
            inverse = 1 / ray[flat]
            low, high = (-half[flat] - start[flat]) * inverse, (half[flat] - start[flat]) * inverse
        enters, leaves = [*np.minimum(low, high)], [*np.maximum(low, high)]
    if round_axes:
        # From the point closest to the axis, since b² − ac cancels in float32 (Haines et al., Ray Tracing Gems, 2019).
        start, ray = start[:round_axes] / half[:round_axes], ray[:round_axes] / half[:round_axes]
        square = (ray**2).sum(axis=0)
        middle = -(start * ray).sum(axis=0) / square
        with np.errstate(invalid="ignore"):
            reach = np.sqrt((1 - ((start + middle * ray) ** 2).sum(axis=0)) / square)
        enters, leaves = [*enters, middle - reach], [*leaves, middle + reach]
    return reduce(np.maximum, enters), reduce(np.minimum, leaves)


def _in_cone(boxes: Boxes, origin: Floats, directions: Floats) -> Indices:
    """The boxes but the room that rays (3, n) from one point (3,) may hit, by the cone that holds all rays."""
    others = np.arange(1, len(boxes.heading))
    if origin.ndim == 2:
        return others
    unit = directions / np.sqrt((directions**2).sum(axis=0))
    axis = unit.mean(axis=1)
    axis /= np.sqrt((axis**2).sum())
    to_centre = boxes.centre[1:] - origin
    distance = np.sqrt((to_centre**2).sum(axis=1))
    ratio = np.sqrt((boxes.half_size[1:] ** 2).sum(axis=1)) / distance
    towards = np.arccos(np.clip(to_centre @ axis / distance, -1, 1))
    widest = np.arccos(np.clip((axis @ unit).min(), -1, 1))
    is_outside = towards - np.arcsin(np.minimum(ratio, 1)) > widest + 1e-2
    within: Indices = others[~is_outside]
    return within


def visible(boxes: Boxes, source: Floats, points: Floats) -> NDArray[np.bool]:
    """Which of the points (3, n) on faces nothing hides from a source (3,) in the room."""
    distance, _ = cast(boxes, source, points - source[:, None])
    return distance > 1 - 1e-3


def sunlit(boxes: Boxes, sun: Floats, points: Floats, normals: Floats) -> NDArray[np.bool]:
    """Which of the points (3, n) on faces nothing hides from light that comes from the direction `sun` (3,)."""
    lifted = points + 1e-3 * normals
    _, box = cast(boxes, lifted, np.broadcast_to(sun[:, None], lifted.shape))
    is_sky: NDArray[np.bool] = box == 0
    return is_sky


def trace(boxes: Boxes, camera: Camera, height: int, width: int) -> Hits:
    """What the camera sees, pixel by pixel, row by row."""
    rays = camera.rays(height, width)
    depth, box = cast(boxes, camera.position, rays)
    point = camera.position[:, None] + depth * rays
    local = boxes.to_local(box, point - boxes.centre[box].T)
    axis = (np.abs(local) / boxes.half_size[box].T).argmax(axis=0)
    side = (_along(local, axis)[0] > 0).astype(np.intp)

    normal = np.zeros_like(local)
    np.put_along_axis(normal, axis[None], np.where((side == 1) ^ (box == 0), 1, -1), axis=0)

    if boxes.round_axes is not None:
        _bend(boxes, box, local, axis, side, normal)

    in_face = IN_FACE[axis].T
    local_rays = boxes.to_local(box, rays)
    footprint = np.zeros((2, depth.size), np.float32)
    for step in camera.rotation.T[:2] / np.float32(camera.focal(width)):
        local_step = boxes.to_local(box, np.broadcast_to(step[:, None], rays.shape))
        slide = local_step - local_rays * ((normal * local_step).sum(axis=0) / (normal * local_rays).sum(axis=0))
        footprint += depth * np.abs(_along(slide, in_face))
    return Hits(depth, box, axis, side, point, boxes.to_world(box, normal), _along(local, in_face), footprint)


def _bend(boxes: Boxes, box: Indices, local: Floats, axis: Indices, side: Indices, normal: Floats) -> None:
    """Correct, in place, the axis, side and normal where a cylinder or a ball is hit at the point `local`."""
    assert boxes.round_axes is not None
    for round_axes in (2, 3):
        on_it = boxes.round_axes[box] == round_axes
        slope = local[:, on_it] / boxes.half_size[box[on_it]].T
        if round_axes == 2:
            is_cap = np.abs(slope[2]) > np.sqrt((slope[:2] ** 2).sum(axis=0))
            slope[2, ~is_cap], slope[:2, is_cap] = 0, 0
        slope /= boxes.half_size[box[on_it]].T
        slope /= np.sqrt((slope**2).sum(axis=0))
        axis[on_it] = np.abs(slope).argmax(axis=0)
        side[on_it] = _along(slope, axis[on_it])[0] > 0
        normal[:, on_it] = slope


def _along(vectors: Floats, axes: Indices) -> Floats:
    """The components of vectors (3, n) along one axis each (n,), or several (k, n)."""
    return np.take_along_axis(vectors, np.atleast_2d(axes), axis=0)

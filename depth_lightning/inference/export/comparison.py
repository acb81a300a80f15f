"""How far what was exported is from the network, and how fast it is."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from depth_lightning.data.rooms import render_room
from depth_lightning.data.transforms import network_size
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.models.encoder import PATCH

Runner = Callable[[Tensor], Tensor]
"""(b, 3, h, w) float32 RGB in [0, 1] → (b, h, w) float32, as the network gives it."""


class Difference(NamedTuple):
    """How far an export is from the network on images of one size, in shares of the range of the network's output."""

    size: tuple[int, int]
    """(h, w)"""
    largest: float
    mean: float


def network_runner(network: DepthAnythingV2) -> Runner:
    """The network itself, as the others are called."""
    network = network.eval()
    return lambda image: cast(Tensor, network(normalize(image)))


def check_sizes(network: DepthAnythingV2, side: int) -> list[tuple[int, int]]:
    """Sizes (h, w) to compare at: that of the position table, and what a 4:3 image is brought to, on either side."""
    rows, columns = network.encoder.grid
    sizes = [(PATCH * rows, PATCH * columns), network_size(3, 4, side), network_size(4, 3, side), (side, side)]
    return list(dict.fromkeys((h, w) for h, w in sizes if not h % PATCH and not w % PATCH))[:3]


def example_images(height: int, width: int, count: int = 2) -> Tensor:
    """(count, 3, height, width) float32 RGB in [0, 1]: rendered rooms, the same ones every time."""
    rooms = [torch.from_numpy(render_room([0, index], height, width)[0]) for index in range(count)]
    return torch.stack(rooms).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def compare(exported: Runner, network: Runner, sizes: Sequence[tuple[int, int]]) -> Iterator[Difference]:
    """How far the one is from the other on two rendered images of each size (h, w), seen as one batch.

    Raises:
        ValueError: the export gives NaN or infinities, or another shape.
    """
    for height, width in sizes:
        images = example_images(height, width)
        expected, found = network(images), exported(images)
        if found.shape != expected.shape:
            raise ValueError(f"The export gives {tuple(found.shape)}, and the network {tuple(expected.shape)}.")
        if not found.isfinite().all():
            raise ValueError(
                f"The export gives NaN or infinities at {height}×{width}"
                + ("." if not expected.isfinite().all() else ", and the network does not: take precision=float32.")
            )
        apart, span = (found - expected).abs().double(), float(expected.max() - expected.min())
        # A network that says the same everywhere has no range; what differs from it is then all there is.
        share = apart / span if span else apart.clamp(max=1)
        yield Difference((height, width), float(share.max()), float(share.mean()))


def check_differences(differences: Sequence[Difference], limit: float) -> None:
    """See that no pixel differs by more than `limit`, of the range.

    Raises:
        ValueError: one does.
    """
    for difference in differences:
        if not difference.largest <= limit:
            raise ValueError(
                f"The export differs from the network by {difference.largest:.1e} of the range at "
                f"{dimensions(difference.size)}, more than {limit:g}; nothing was written."
            )


@torch.inference_mode()
def latency_ms(run: Runner, image: Tensor, calls: int = 5) -> float:
    """The median time of a call, in milliseconds, after one that is not counted."""
    seconds = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])


def dimensions(size: Sequence[int]) -> str:
    """(518, 686) as 518×686."""
    height, width = size
    return f"{height}×{width}"

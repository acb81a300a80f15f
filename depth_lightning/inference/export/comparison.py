"""Accuracy of an export relative to the network, and its speed."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from depth_lightning.data.rooms import render_room
from depth_lightning.data.transforms import network_size
from depth_lightning.models import DepthAnythingV2, normalize

Runner = Callable[[Tensor], Tensor]
"""(b, 3, h, w) float32 RGB in [0, 1] → (b, h, w) float32, the network's output.

Of a network with a canonical focal length it is that for a camera of this focal length."""


class Difference(NamedTuple):
    """Absolute difference of an export from the network at one image size, relative to the network's output range."""

    size: tuple[int, int]
    """(h, w)"""
    largest: float
    mean: float


def network_runner(network: nn.Module) -> Runner:
    """The network itself as a `Runner`."""
    network = network.eval()
    return lambda image: cast(Tensor, network(normalize(image)))


def check_sizes(network: DepthAnythingV2, side: int) -> list[tuple[int, int]]:
    """Sizes (h, w) to compare at: that of the position table, then those of 4:3 images in landscape and portrait."""
    patch, (rows, columns) = network.encoder.patch, network.encoder.grid
    landscape, portrait = network_size(3, 4, side, patch), network_size(4, 3, side, patch)
    sizes = [(patch * rows, patch * columns), landscape, portrait, (side, side)]
    return list(dict.fromkeys((h, w) for h, w in sizes if not h % patch and not w % patch))[:3]


def example_images(height: int, width: int, count: int = 2) -> Tensor:
    """(count, 3, height, width) float32 RGB in [0, 1]: rendered rooms, the same in every call."""
    rooms = [torch.from_numpy(render_room([0, index], height, width)[0]) for index in range(count)]
    return torch.stack(rooms).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def compare(exported: Runner, network: Runner, sizes: Sequence[tuple[int, int]]) -> Iterator[Difference]:
    """Compare the export with the network on two rendered images of each size (h, w), in one batch.

    Raises:
        ValueError: the export returns NaN, infinities or another shape.
    """
    for height, width in sizes:
        images = example_images(height, width)
        expected, actual = network(images), exported(images)
        if actual.shape != expected.shape:
            raise ValueError(f"The export returns {tuple(actual.shape)}, and the network {tuple(expected.shape)}.")
        if not actual.isfinite().all():
            raise ValueError(
                f"The export returns NaN or infinities at {height}×{width}"
                + ("." if not expected.isfinite().all() else ", and the network does not: use precision=float32.")
            )
        apart, span = (actual - expected).abs().double(), float(expected.max() - expected.min())
        # A constant output has no range; the difference is then absolute, up to 1.
        share = apart / span if span else apart.clamp(max=1)
        yield Difference((height, width), float(share.max()), float(share.mean()))


def check_differences(differences: Sequence[Difference], limit: float) -> None:
    """Check that no pixel differs by more than `limit`, relative to the range.

    Raises:
        ValueError: a pixel does.
    """
    for difference in differences:
        if not difference.largest <= limit:
            raise ValueError(
                f"The export differs from the network by {difference.largest:.1e} of the range at "
                f"{dimensions(difference.size)}, more than {limit:g}; nothing was written."
            )


@torch.inference_mode()
def latency_ms(run: Runner, image: Tensor, calls: int = 5) -> float:
    """The median time of a call, in milliseconds, after one warm-up call."""
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

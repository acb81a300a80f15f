"""A network as a graph that runs without this project, and how far what was exported is from the network."""

import copy
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from depth_lightning.data.rooms import render_room
from depth_lightning.data.transforms import network_size
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.models.encoder import PATCH
from depth_lightning.settings import one_of, several, whole_number

GraphPrecision = Literal["float32", "float16"]
Runner = Callable[[Tensor], Tensor]
"""(b, 3, h, w) float32 RGB in [0, 1] → (b, h, w) float32, as the network gives it."""

INPUT = "image: float32 (batch, 3, height, width), RGB in [0, 1]; the ImageNet normalisation is inside"


class Difference(NamedTuple):
    """How far an export is from the network on images of one size, in shares of the range of the network's output."""

    size: tuple[int, int]
    """(h, w)"""
    largest: float
    mean: float


def check_graph(size: Any, precision: Any) -> None:
    """Refuse what `export_program` does not take.

    Raises:
        SettingError: an unknown precision, or the size is not in multiples of 14.
    """
    one_of("precision", precision, get_args(GraphPrecision))
    if size is not None:
        usual = list(network_size(480, 640, 518))
        what = f"[height,width] in multiples of {PATCH}, as in {usual}, which 480×640 becomes; or null for any"
        several("size", size, 2, what, partial(whole_number, least=PATCH, multiple_of=PATCH))


def export_program(
    network: DepthAnythingV2, size: Sequence[int] | None = None, precision: GraphPrecision = "float32"
) -> ExportedProgram:
    """Trace the network from RGB in [0, 1] to (b, h, w) float32 metres or disparity, for any number of images.

    Args:
        network: on the CPU; it is left as it is.
        size: (h, w) of all images; None for any multiples of 14 from 42 on.
        precision: what weights and arithmetic are in. The logits, and the sigmoid or ReLU of them, are float32 always.

    Raises:
        SettingError: an unknown precision, or the size is not in multiples of 14.
    """
    check_graph(size, precision)
    height, width = size or (5 * PATCH, 7 * PATCH)  # of an example; nothing of a dimension that is dynamic remains
    dynamic = {0: Dim("batch")}
    if size is None:
        dynamic |= {2: PATCH * Dim("rows", min=3), 3: PATCH * Dim("columns", min=3)}
    graph = _FromPixels(network, torch.float16 if precision == "float16" else torch.float32).eval()
    with torch.no_grad():
        return torch.export.export(
            graph, (torch.zeros(2, 3, height, width),), dynamic_shapes={"image": dynamic}, strict=False
        )


class _FromPixels(nn.Module):
    def __init__(self, network: DepthAnythingV2, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).to(dtype)
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.network(normalize(image).to(self.dtype)))


def save_program(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write what `export_program` traced for `torch.export.load`, with the metadata as a file inside."""
    with warnings.catch_warnings():  # the head's weights are channels-last, and it takes them for parts of others
        warnings.filterwarnings("ignore", "No complete tensor found")
        torch.export.save(program, path, extra_files={"metadata.json": metadata})


def network_runner(network: DepthAnythingV2) -> Runner:
    """The network itself, as the others are called."""
    network = network.eval()
    return lambda image: cast(Tensor, network(normalize(image)))


def program_runner(path: Path) -> Runner:
    """What was saved by `torch.export.save`."""
    module = torch.export.load(path).module()
    return lambda image: cast(Tensor, module(image))


def transformers_runner(folder: Path) -> Runner:
    """The folder as `from_pretrained` reads it, without a network.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: it has not found every tensor, or found others.
    """
    require("transformers", "transformers")
    from transformers import DepthAnythingForDepthEstimation
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded: Any = DepthAnythingForDepthEstimation.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    model, info = loaded
    if wrong := {name: keys for name, keys in info.items() if keys and name.endswith("_keys")}:
        raise ValueError(f"transformers does not take the weights as they are: {wrong}")
    model = model.eval()
    return lambda image: cast(Tensor, model(normalize(image)).predicted_depth)


def require(what: str, *modules: str) -> None:
    """See that packages which come with the extra `export` are there.

    Raises:
        ModuleNotFoundError: one is not.
    """
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"{what} needs {', '.join(missing)}, not installed here: pip install 'depth-lightning[export]'"
        )


def check_sizes(network: DepthAnythingV2, size: int) -> list[tuple[int, int]]:
    """Sizes (h, w) to compare at: that of the position table, and what a 4:3 image is brought to, on either side."""
    rows, columns = network.encoder.grid
    sizes = [(PATCH * rows, PATCH * columns), network_size(3, 4, size), network_size(4, 3, size), (size, size)]
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


@torch.inference_mode()
def latency_ms(run: Runner, image: Tensor, calls: int = 5) -> float:
    """The median time of a call, in milliseconds, after one that is not counted."""
    seconds = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])

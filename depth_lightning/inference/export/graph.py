"""A network as a traced graph that runs without this project."""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from depth_lightning.data.transforms import PATCH, network_size
from depth_lightning.inference.export.comparison import (
    Runner,
    check_differences,
    check_sizes,
    compare,
    dimensions,
    example_images,
    latency_ms,
    network_runner,
)
from depth_lightning.inference.export.layout import Export, Layout
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.models.checkpoints import to_json, with_kind
from depth_lightning.models.provenance import metadata_path
from depth_lightning.settings import one_of, optional, several, whole_number

GraphPrecision = Literal["float32", "float16"]
LIMIT = 1e-3
"""Largest allowed difference in float32, relative to the prediction's range."""


class Graph(Layout):
    """A traced network in a file.

    Args:
        size: fixed (h, w) of all images; None for any multiples of `patch`, three or more.
        batch_size: fixed number of images per call; None for any.
        precision: of weights and arithmetic. The logits and their sigmoid or ReLU are always float32.
        patch: side of the patches of the network's encoder.

    Raises:
        ModuleNotFoundError: a package is not installed.
        SettingError: an unknown precision, the size is not in multiples of `patch`, or the batch is empty.
    """

    takes_focal = True
    file: ClassVar[str]
    example: ClassVar[str]
    """Python code that calls it, with the placeholders {quantity}, its output, {batch} and {size}, of its input."""
    with_focal: ClassVar[tuple[str, str]]
    """What to replace in the example for a graph with the input `focal_px`, and by what."""
    canonical: bool = False
    """Whether the written network has a canonical focal length, and the graph the input `focal_px`."""

    def __init__(
        self,
        size: Sequence[int] | None = None,
        precision: GraphPrecision = "float32",
        batch_size: int | None = None,
        patch: int = PATCH,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.batch_size: int | None = optional("batch_size", batch_size, partial(whole_number, otherwise=" null: any."))
        self.precision: GraphPrecision = one_of("precision", precision, get_args(GraphPrecision))
        self.size: tuple[int, int] | None = None
        if size is not None:
            usual = list(network_size(480, 640, 518, patch))
            what = f"[height,width] in multiples of {patch}, as in {usual}, the size for 480×640; or null for any"
            height, width = several("size", size, 2, what, partial(whole_number, least=patch, multiple_of=patch))
            self.size = (height, width)

    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write the file, and its metadata as JSON beside it. In float32 it must agree with the network."""
        folder.mkdir()
        path = folder / self.file
        self.canonical = network.focal_px is not None
        own = {"input": self._input, "precision": self.precision, "graph_size": self.size and list(self.size)}
        description = with_kind(network, {**metadata, **own})
        run = self.save(export_program(network, self.size, self.precision, self.batch_size), path, description)
        if self.batch_size is not None:
            run = in_batches(run, self.batch_size)
        metadata_path(path).write_text(to_json(description), encoding="utf-8", errors="backslashreplace")
        sizes = check_sizes(network, side) if self.size is None else [self.size]
        differences = list(compare(run, network_runner(network), sizes))
        if self.precision == "float32":
            check_differences(differences, LIMIT)
        count = self.batch_size or 1
        image = example_images(*sizes[0], count=count)
        runners = {self.name: run, "torch": network_runner(network)}
        latency = {name: latency_ms(runner, image) / count for name, runner in runners.items()}
        return Export([], run, differences, latency)

    @abstractmethod
    def save(self, program: ExportedProgram, path: Path, description: Mapping[str, Any]) -> Runner:
        """Write the graph with its description inside, and return a runner of the file."""

    def usage(self, quantity: str) -> str:
        """Python code for the library that runs it."""
        batch = "b" if self.batch_size is None else self.batch_size
        size = f"h and w multiples of {self.patch}" if self.size is None else f"h×w {dimensions(self.size)}"
        example = self.example.format(quantity=quantity, batch=batch, size=size)
        if not self.canonical:
            return example
        about = f"# ({batch},) float32: focal lengths in pixels of these images, that is after their resize"
        return f"{example.replace(*self.with_focal)}{about}\n"

    @property
    def _input(self) -> str:
        batch = "batch" if self.batch_size is None else self.batch_size
        image = f"image: float32 ({batch}, 3, height, width), RGB in [0, 1]; the ImageNet normalisation is inside"
        focal = f"; focal_px: float32 ({batch},), the focal length in pixels of each image as it is given here"
        return image + focal * self.canonical

    @property
    def limits(self) -> Sequence[str]:
        """The accepted input."""
        any_size = f"multiples of {self.patch}, {3 * self.patch} or more"
        sides = any_size if self.size is None else f"{dimensions(self.size)} alone"
        return [f"Input: {self._input}; the sides are {sides}."]


def export_program(
    network: DepthAnythingV2,
    size: tuple[int, int] | None = None,
    precision: GraphPrecision = "float32",
    batch_size: int | None = None,
) -> ExportedProgram:
    """Trace the network from RGB in [0, 1] to (b, h, w) float32 metres or disparity.

    Args:
        network: on the CPU; it is not modified.
        size: see `Graph`.
        precision: see `Graph`.
        batch_size: see `Graph`.
    """
    patch = network.encoder.patch
    height, width = size or (5 * patch, 7 * patch)  # example input; dynamic dimensions do not keep its size
    dynamic = {0: Dim("batch")} if batch_size is None else {}
    if size is None:
        dynamic |= {2: patch * Dim("rows", min=3), 3: patch * Dim("columns", min=3)}
    graph: nn.Module = _FromPixels(network, torch.float16 if precision == "float16" else torch.float32).eval()
    inputs, shapes = {"image": torch.zeros(batch_size or 2, 3, height, width)}, {"image": dynamic}
    if network.focal_px is not None:
        graph, shapes["focal_px"] = (
            _WithFocal(graph, network),
            {key: value for key, value in dynamic.items() if key == 0},
        )
        inputs["focal_px"] = torch.full((batch_size or 2,), network.focal_px)
    with torch.no_grad():
        return torch.export.export(graph, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)


def in_batches(run: Runner, batch_size: int) -> Runner:
    """A runner that takes any number of images, of one that takes `batch_size`: the last batch is filled with zeros."""

    def run_all(images: Tensor) -> Tensor:
        filled = torch.cat([images, images.new_zeros(-len(images) % batch_size, *images.shape[1:])])
        return torch.cat([run(batch) for batch in torch.split(filled, batch_size)])[: len(images)]

    return run_all


class _FromPixels(nn.Module):
    def __init__(self, network: DepthAnythingV2, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).to(dtype)
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.network(normalize(image).to(self.dtype)))


class _WithFocal(nn.Module):
    """A graph of a network with a canonical focal length, which gives metres for the cameras of the images."""

    def __init__(self, graph: nn.Module, network: DepthAnythingV2) -> None:
        super().__init__()
        self.from_pixels, self.in_metres = graph, network.in_metres

    def forward(self, image: Tensor, focal_px: Tensor) -> Tensor:
        return self.in_metres(self.from_pixels(image), focal_px)

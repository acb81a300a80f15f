"""A network as files that other programs read, each compared with the network before anyone relies on it."""

from collections.abc import Mapping
from typing import Final

from depth_lightning.inference.export.comparison import Difference, Runner, dimensions, network_runner
from depth_lightning.inference.export.graph import Graph
from depth_lightning.inference.export.layout import Export, Layout
from depth_lightning.inference.export.official import Official
from depth_lightning.inference.export.onnx import Onnx
from depth_lightning.inference.export.pt2 import Pt2
from depth_lightning.inference.export.safetensors import Safetensors
from depth_lightning.inference.export.transformers import Transformers

LAYOUTS: Final[Mapping[str, type[Layout]]] = {
    layout.name: layout for layout in (Official, Safetensors, Transformers, Onnx, Pt2)
}
"""By the name that is typed."""

__all__ = ["LAYOUTS", "Difference", "Export", "Graph", "Layout", "Runner", "dimensions", "network_runner"]

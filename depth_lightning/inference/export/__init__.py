"""Exports of a network for other programs, each compared with the network before it is saved."""

from collections.abc import Mapping
from typing import Final

from depth_lightning.inference.export.adapter import Adapter
from depth_lightning.inference.export.comparison import Difference, Runner, dimensions, network_runner
from depth_lightning.inference.export.graph import Graph
from depth_lightning.inference.export.layout import Export, Layout
from depth_lightning.inference.export.official import Official
from depth_lightning.inference.export.onnx import Onnx
from depth_lightning.inference.export.pt2 import Pt2
from depth_lightning.inference.export.safetensors import Safetensors
from depth_lightning.inference.export.transformers import Transformers

LAYOUTS: Final[Mapping[str, type[Layout]]] = {
    layout.name: layout for layout in (Official, Safetensors, Transformers, Onnx, Pt2, Adapter)
}
"""Layout by its name in the configuration."""

__all__ = ["LAYOUTS", "Difference", "Export", "Graph", "Layout", "Runner", "dimensions", "network_runner"]

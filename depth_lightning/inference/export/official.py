"""The authors' layout: a PyTorch file that their code loads with strict=True."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from depth_lightning.inference.export.layout import Export
from depth_lightning.inference.export.weights import Weights
from depth_lightning.models import DepthAnythingV2

_USAGE = """
# In the authors' code, whose metric class is given max_depth:
# network.load_state_dict(torch.load("model.pth", weights_only=True))
"""


class Official(Weights):
    """`model.pth`."""

    name = "official"
    file = "model.pth"

    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write the file, and say which of the authors' classes loads it if that is not the metric one."""
        export = super().write(network, folder, metadata, side)
        if network.head_name == "inverse_depth":
            reads = "In the authors' code, its relative class loads the file and reads 1 / depth, in 1/m"
            export = replace(export, notes=[*export.notes, f"{reads}; depth ends at {network.max_depth:g} m."])
        return export

    def usage(self, quantity: str) -> str:
        """Python code for this project and for the authors'."""
        return super().usage(quantity) + _USAGE

"""Weights in one file that this project loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from depth_lightning.inference.export.layout import Export, Layout
from depth_lightning.models import DepthAnythingV2, official_state_dict, save_weights
from depth_lightning.models.checkpoints import SaveLayout
from depth_lightning.models.weight_files import read_weights

_USAGE = """
from depth_lightning.inference import load

model = load("{file}")  # {file}.json beside it holds the rest
{quantity} = model.predict("photo.jpg")  # (h, w) float32 at the photo's resolution
"""


class Weights(Layout):
    """A file with the published keys. Read back, every tensor must equal the network's, bit for bit."""

    name: ClassVar[SaveLayout]
    file: ClassVar[str]

    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write the file, and its metadata as JSON beside it."""
        folder.mkdir()
        save_weights(network, folder / self.file, self.name, metadata)
        expected, written = official_state_dict(network), read_weights(folder / self.file).state
        keys = expected.keys() | written.keys()
        if wrong := [key for key in keys if not _equal(expected.get(key), written.get(key))]:
            raise ValueError(f"{self.file}, read back, differs from the network in {', '.join(sorted(wrong))}.")
        return Export([f"Read back, all {len(expected)} tensors equal the network's, bit for bit."])

    def usage(self, quantity: str) -> str:
        """Python code for this project."""
        return _USAGE.format(file=self.file, quantity=quantity)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one.cpu(), other)

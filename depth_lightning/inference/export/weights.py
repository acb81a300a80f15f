"""Weights in one file, which this project loads."""

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

model = load("{file}")  # {file}.json beside it says the rest
{quantity} = model.predict("photo.jpg")  # (h, w) float32 at the photo's resolution
"""


class Weights(Layout):
    """A file under the published keys; read back, every tensor has to be the network's, bit for bit."""

    name: ClassVar[SaveLayout]
    file: ClassVar[str]

    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """The file, and its metadata as JSON beside it."""
        folder.mkdir()
        save_weights(network, folder / self.file, self.name, metadata)
        expected, found = official_state_dict(network), read_weights(folder / self.file).state
        if wrong := [key for key in expected.keys() | found.keys() if not _equal(expected.get(key), found.get(key))]:
            raise ValueError(f"{self.file}, read back, differs from the network in {', '.join(sorted(wrong))}.")
        return Export([f"Read back, all {len(expected)} tensors are the network's, bit for bit."])

    def usage(self, quantity: str) -> str:
        """With this project."""
        return _USAGE.format(file=self.file, quantity=quantity)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one.cpu(), other)

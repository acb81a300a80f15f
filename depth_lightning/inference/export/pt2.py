"""A `torch.export` file, which PyTorch runs without this project."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.export import ExportedProgram

from depth_lightning.inference.export.comparison import Runner
from depth_lightning.inference.export.graph import Graph
from depth_lightning.models.checkpoints import to_json


class Pt2(Graph):
    """`model.pt2`, with the metadata as a file inside."""

    name = "pt2"
    file = "model.pt2"
    example = """
import torch

model = torch.export.load("model.pt2").module()
{quantity} = model(image)  # ({batch}, 3, h, w) float32 RGB in [0, 1]; {size}
"""
    with_focal = ("model(image)", "model(image, focal_px)")

    def save(self, program: ExportedProgram, path: Path, description: Mapping[str, Any]) -> Runner:
        """Write the file, and return a runner of it."""
        save_program(program, path, to_json(description))
        return program_runner(path, description.get("focal_px"))


def save_program(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write a program from `export_program` for `torch.export.load`, with the metadata as a file inside."""
    with warnings.catch_warnings():  # it mistakes the head's channels-last weights for parts of other tensors
        warnings.filterwarnings("ignore", "No complete tensor found")
        torch.export.save(program, path, extra_files={"metadata.json": metadata})


def program_runner(path: Path, focal_px: float | None = None) -> Runner:
    """A file written by `torch.export.save`; for cameras of this focal length."""
    module = torch.export.load(path).module()
    if focal_px is None:
        return lambda image: cast(Tensor, module(image))
    return lambda image: cast(Tensor, module(image, torch.full((len(image),), focal_px)))

"""ONNX export of a traced network, and its execution in onnxruntime."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from depth_lightning.inference.export.comparison import Runner
from depth_lightning.inference.export.graph import Graph

_LARGEST_FILE: Final = 1.9e9
"""Bytes; protobuf is limited to 2 GiB, so larger weights go into a file beside it."""


class Onnx(Graph):
    """`model.onnx`, with the metadata in its metadata_props."""

    name = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    library = "onnx"
    tags = ("onnx",)
    file = "model.onnx"
    example = """
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
({quantity},) = session.run(None, {{"image": image}})  # (b, 3, h, w) float32 RGB in [0, 1]; {size}
"""

    def save(self, program: ExportedProgram, path: Path, description: Mapping[str, Any]) -> Runner:
        """Write the file, and return a runner of it."""
        output = "depth" if description["output"] == "metric" else "disparity"
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
        save_onnx(program, path, output, texts)
        return onnx_runner(path)


def save_onnx(program: ExportedProgram, path: Path, output: str, metadata: Mapping[str, str]) -> None:
    """Write a program from `export_program` as ONNX, with the input `image`.

    Args:
        program: traced with the last two dimensions fixed or dynamic.
        path: to write to; weights that exceed the limit of one file go into `<name>.data` beside it.
        output: name of the output.
        metadata: for the file's metadata_props.
    """
    for name in ("onnxscript", "onnx_ir"):  # they log every step
        logging.getLogger(name).setLevel(logging.WARNING)
    converted = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["image"], output_names=[output], external_data=False
    )
    assert converted is not None
    converted.model.metadata_props.update(metadata)
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    converted.save(path, external_data=size > _LARGEST_FILE)


def onnx_runner(path: Path) -> Runner:
    """The file in onnxruntime, on the CPU, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    return run

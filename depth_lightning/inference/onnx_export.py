"""ONNX: a traced network as a file, and that file in onnxruntime."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from depth_lightning.inference.export import Runner, require

_LARGEST_FILE: Final = 1.9e9
"""Bytes; protobuf ends at 2 GiB, and the tensors of more go into a file beside it."""


def save_onnx(program: ExportedProgram, path: Path, output: str, metadata: Mapping[str, str]) -> None:
    """Write what `export_program` traced as ONNX, with `image` as its input.

    Args:
        program: traced with the last two dimensions fixed or free.
        path: to write to; beside it `<name>.data` where the weights exceed what one file can hold.
        output: name of the output.
        metadata: goes into the file's metadata_props.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
    """
    require("layout=onnx", "onnx", "onnxscript")
    converted = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=["image"], output_names=[output], external_data=False
    )
    assert converted is not None
    converted.model.metadata_props.update(metadata)
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    converted.save(path, external_data=size > _LARGEST_FILE)


def onnx_runner(path: Path) -> Runner:
    """The file in onnxruntime, on the CPU, with as many threads as torch has.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    require("layout=onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    return run

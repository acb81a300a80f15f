"""ONNX export of a traced network, and its execution in onnxruntime."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from depth_lightning.data.transforms import PATCH
from depth_lightning.inference.export.comparison import Runner
from depth_lightning.inference.export.graph import Graph, GraphPrecision
from depth_lightning.settings import SettingError, optional, whole_number

_LARGEST_FILE: Final = 1.9e9
"""Bytes; protobuf is limited to 2 GiB, so larger weights go into a file beside it."""


_LOWEST_OPSET: Final = 17
"""The first with LayerNormalization. The exporter writes 18 or above, and converts graphs of a fixed size to 17."""


class Onnx(Graph):
    """`model.onnx`, with the metadata in its metadata_props.

    Args:
        size: see `Graph`.
        precision: see `Graph`.
        batch_size: see `Graph`.
        opset: version of the operators, which a runtime for embedded devices may limit; None for the exporter's own.
        patch: see `Graph`.
    """

    name = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    library = "onnx"
    tags = ("onnx",)
    file = "model.onnx"
    example = """
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
({quantity},) = session.run(None, {{"image": image}})  # ({batch}, 3, h, w) float32 RGB in [0, 1]; {size}
"""
    with_focal = ('{"image": image}', '{"image": image, "focal_px": focal_px}')

    def __init__(
        self,
        size: Sequence[int] | None = None,
        precision: GraphPrecision = "float32",
        batch_size: int | None = None,
        opset: int | None = None,
        patch: int = PATCH,
    ) -> None:
        super().__init__(size, precision, batch_size, patch)
        self.opset: int | None = optional("opset", opset, partial(whole_number, least=_LOWEST_OPSET))
        if opset == _LOWEST_OPSET and size is None:
            raise SettingError("opset", f"is {opset}, which needs a fixed size: set size=[height,width] as well.")

    def save(self, program: ExportedProgram, path: Path, description: Mapping[str, Any]) -> Runner:
        """Write the file, and return a runner of it."""
        output = "depth" if description["output"] == "metric" else "disparity"
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
        save_onnx(program, path, output, texts, self.opset)
        return onnx_runner(path, description.get("focal_px"))


def save_onnx(
    program: ExportedProgram, path: Path, output: str, metadata: Mapping[str, str], opset: int | None = None
) -> None:
    """Write a program from `export_program` as ONNX, with the input `image`, and `focal_px` if the program has it.

    Args:
        program: traced with the last two dimensions fixed or dynamic.
        path: to write to; weights that exceed the limit of one file go into `<name>.data` beside it.
        output: name of the output.
        metadata: for the file's metadata_props.
        opset: version of the operators; None for the exporter's own.

    Raises:
        SettingError: the exporter cannot write this version.
    """
    for name in ("onnxscript", "onnx_ir"):  # they log every step
        logging.getLogger(name).setLevel(logging.WARNING)
    converted = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=["image", "focal_px"][: len(program.graph_signature.user_inputs)],
        output_names=[output],
        external_data=False,
        opset_version=opset,
    )
    assert converted is not None
    written = converted.model.opset_imports[""]
    if opset not in (None, written):
        raise SettingError("opset", f"is one that the installed exporter can write; for {opset} it wrote {written}.")
    for node in converted.model.graph:
        if node.op_type == "Split" and written < 18:
            node.attributes.pop("num_outputs", None)  # of 18, which the conversion to 17 leaves there
    converted.model.metadata_props.update(metadata)
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    converted.save(path, external_data=size > _LARGEST_FILE)


def onnx_runner(path: Path, focal_px: float | None = None) -> Runner:
    """The file in onnxruntime, on the CPU, with as many threads as torch uses; for cameras of this focal length."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        inputs = {"image": image.numpy()}
        if focal_px is not None:
            inputs["focal_px"] = np.full(len(image), focal_px, np.float32)
        return torch.from_numpy(session.run(None, inputs)[0])

    return run

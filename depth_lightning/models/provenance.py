"""What kind of network a weights file declares, which its keys and shapes do not reveal.

Relative and metric files have the same keys and shapes, and so does Depth Anything V1, whose head reads the last four
blocks. Only information beside the tensors identifies them: metadata, a configuration, or a published file name.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from depth_lightning.models.depth_anything import DepthAnythingV2, HeadName, Output
from depth_lightning.models.encoders import is_encoder
from depth_lightning.models.hub import RELEASES, find_release, find_v1
from depth_lightning.models.sizes import SIZES

_log = logging.getLogger(__name__)

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights files of a transformers folder."""


@dataclass(frozen=True)
class Provenance:
    """What is declared about a file, and where."""

    source: str
    """Where it is declared, for messages."""
    output: Output | None = None
    max_depth: float | None = None
    """In metres; None for a relative network or if not declared."""
    version: Literal["V1", "V2"] = "V2"
    encoder: str | None = None
    """Used to build a network; when loading, an encoder of Depth Anything is detected from the tensors."""
    head: HeadName = "sigmoid"
    """Of a metric network."""
    size: int | None = None
    """Shorter side of images in training, in pixels."""
    taps: tuple[int, ...] | None = None
    """The blocks that the head reads, if declared."""
    focal_px: float | None = None
    """Canonical focal length, see `DepthAnythingV2`."""

    def __str__(self) -> str:
        depth = "" if self.max_depth is None else f" with max_depth {self.max_depth:g}"
        return f"{self.source} says {self.output or 'a network of unknown output'} {self.version}{depth}"


def metadata_path(path: Path) -> Path:
    """Path of the metadata of a weights file (name.pth.json for name.pth) or of a transformers folder."""
    return path / "metadata.json" if path.is_dir() else path.with_name(f"{path.name}.json")


def find_provenance(path: Path, run_config: Mapping[str, Any] | None = None) -> Provenance | None:
    """The provenance from the first available source: metadata, the run's configuration, config.json, or the name.

    Args:
        path: a file, or a transformers folder.
        run_config: the configuration that a checkpoint of this project carries.

    Raises:
        ValueError: a configuration cannot be read or belongs to another model.
    """
    if path.name in FOLDER_FILES and (path.parent / "config.json").is_file():
        path = path.parent
    return _from_metadata(metadata_path(path)) or _from_run(run_config) or _from_config_json(path) or _from_name(path)


def check_provenance(
    provenance: Provenance | None,
    network: DepthAnythingV2,
    path: Path,
    init: Literal["all", "encoder", "head"],
    force: bool,
) -> None:
    """Refuse a file declared as another kind of network; with `force`, warn instead.

    Raises:
        ValueError: the file is of V1; or, unless only the encoder is loaded, it has the other kind of output or its
            head reads other blocks.
    """
    if provenance is None:
        return
    if provenance.version == "V1":
        wanted = "relative" if init == "encoder" else network.output
        repo = next((r.repo for r in RELEASES if (r.encoder, r.output) == (network.encoder_name, wanted)), None)
        advice = f"type model.weights={repo} for those of V2" if repo else "give weights of V2"
        taps = ", ".join(str(tap) for tap in network.encoder.taps)
        _refuse(
            f"{path} is of Depth Anything V1 ({provenance.source}). Keys and shapes are the same, but its head reads "
            f"the last four blocks, and that of V2 the blocks {taps}: {advice}, "
            "or model.force=true to start from it anyway.",
            force,
        )
    if init == "encoder":
        return
    if provenance.taps not in (None, tuple(network.encoder.taps)):
        _refuse(
            f"{path} has a head for the blocks {list(provenance.taps or ())} ({provenance.source}), and this one reads "
            f"{list(network.encoder.taps)}: type +model.taps={list(provenance.taps or ())}, or model.force=true.",
            force,
        )
    if provenance.head != network.head_name:  # then the last layer is not loaded
        return
    if provenance.output not in (None, network.output):
        _refuse(
            f"{path} holds a {provenance.output} network ({provenance.source}), and this one has {network.output} "
            f"output: type model.output={provenance.output}, or model.init=encoder to start a new head, or "
            "model.force=true to load the head anyway.",
            force,
        )
    elif provenance.max_depth not in (None, network.max_depth):
        _log.warning(
            "%s was trained with max_depth %g (%s), and this network has %g: until it is trained further, its depths "
            "are %.3g times as large. To get the original ones type model.max_depth=%g.",
            path,
            provenance.max_depth,
            provenance.source,
            network.max_depth,
            network.max_depth / provenance.max_depth,
            provenance.max_depth,
        )


def _refuse(message: str, force: bool) -> None:
    if not force:
        raise ValueError(message)
    _log.warning("Forced: %s", message)


def _from_metadata(path: Path) -> Provenance | None:
    return _from_fields(f"metadata in {path.name}", read_json(path)) if path.is_file() else None


def _from_run(config: Mapping[str, Any] | None) -> Provenance | None:
    model = (config or {}).get("model")
    return _from_fields("the run's configuration", model) if isinstance(model, Mapping) else None


def _from_fields(source: str, fields: Mapping[str, Any]) -> Provenance | None:
    output, max_depth = fields.get("output"), fields.get("max_depth")
    if fields.get("version") == "V1":
        return Provenance(source, version="V1")
    if output not in get_args(Output):  # another program's file of that name, or an interpolation
        return None
    metres = float(max_depth) if output == "metric" and isinstance(max_depth, int | float) else None
    encoder, size, head, focal_px = (fields.get(key) for key in ("encoder", "size", "head", "focal_px"))
    taps = fields.get("taps")
    return Provenance(
        source,
        output,
        metres,
        encoder=encoder if is_encoder(encoder) else None,
        head=next((name for name in get_args(HeadName) if name == head), "sigmoid"),
        size=size if isinstance(size, int) else None,
        taps=tuple(taps) if isinstance(taps, list) else None,
        focal_px=float(focal_px) if isinstance(focal_px, int | float) else None,
    )


def _from_config_json(folder: Path) -> Provenance | None:
    path = folder / "config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    if config.get("model_type") != "depth_anything":
        raise ValueError(
            f"{path} describes a {config.get('model_type')!r} model, expected 'depth_anything': give a folder of "
            "DepthAnythingForDepthEstimation, or DINOv2's own .pth file for an encoder alone."
        )
    backbone = config.get("backbone_config") or {}
    stages = (str(name).removeprefix("stage") for name in backbone.get("out_features") or [])
    tapped = backbone.get("out_indices") or [int(stage) for stage in stages if stage.isdecimal()]
    metric = config.get("depth_estimation_type") == "metric"
    width = config.get("reassemble_hidden_size", 384)  # transformers' own default
    return Provenance(
        "config.json",
        "metric" if metric else "relative",  # transformers' own default
        float(config["max_depth"]) if metric and config.get("max_depth") else None,
        "V1" if tapped and list(tapped) == list(range(tapped[0], tapped[0] + 4)) else "V2",
        next((name for name, size in SIZES.items() if size.width == width), None),
    )


def _from_name(path: Path) -> Provenance | None:
    if release := find_release(path):
        return Provenance(
            f"the name of {release.repo}'s file",
            release.output,
            release.max_depth,
            encoder=release.encoder,
            size=release.size,
        )
    if name := find_v1(path):
        return Provenance(f"the name {name}", version="V1")
    return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it holds something else.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}, beside the weights, is not JSON ({error}): repair it or move it away.") from error
    return content if isinstance(content, dict) else {}

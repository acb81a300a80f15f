"""A network as files that other programs read, checked against it: `python export.py`."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from depth_lightning.evaluation.rescore import Rescored, rescore
from depth_lightning.inference.export import (
    INPUT,
    Difference,
    Runner,
    check_graph,
    check_sizes,
    compare,
    example_images,
    export_program,
    latency_ms,
    network_runner,
    program_runner,
    require,
    save_program,
    transformers_runner,
)
from depth_lightning.inference.onnx_export import onnx_runner, save_onnx
from depth_lightning.models import DepthAnythingV2, official_state_dict, save_weights
from depth_lightning.models.checkpoints import finished, load_run_state, to_json, with_kind
from depth_lightning.models.provenance import metadata_path
from depth_lightning.models.weight_files import read_weights
from depth_lightning.reporting.model_card import ModelCard
from depth_lightning.reporting.tables import print_rows
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network, read_run_checkpoint
from depth_lightning.runs.job import run_job
from depth_lightning.runs.overrides import typed
from depth_lightning.runs.record import Origin, find_numbers, find_origin, recipe
from depth_lightning.settings import one_of

log = logging.getLogger(__name__)

Layout = Literal["official", "safetensors", "transformers", "onnx", "pt2"]
FILES: Mapping[Layout, str] = {
    "official": "model.pth", "safetensors": "model.safetensors", "transformers": "", "onnx": "model.onnx",
    "pt2": "model.pt2",
}  # fmt: skip
TRANSFORMERS_LIMIT = 1e-4
"""Of the prediction's range, at the size of the position table: a larger difference is an error."""
GRAPH_LIMIT = 1e-3
"""Of the prediction's range, in float32."""
ELSEWHERE = (
    "At sizes other than {size}, transformers resamples the position table otherwise (by size, without the 0.1 patches "
    "that DINOv2 adds), so its depth differs from that of the official code and of this project: at {other} by up to "
    "{largest:.1%} and on average {mean:.1%} of the range."
)


class Report(NamedTuple):
    """What an export did."""

    folder: Path
    differences: list[Difference]
    """From the network, at several sizes."""
    scores: Rescored | None
    """None where no data was given."""
    latency_ms: dict[str, float]
    """Of one image; empty for weights, which have no way of running of their own."""


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(lambda cfg: export(cfg, list(HydraConfig.get().overrides.task)), cfg)


def export(cfg: DictConfig, overrides: Sequence[str]) -> Report:
    """Write `cfg.checkpoint`, or `cfg.model` with the weights that were typed, into the new folder `cfg.output`.

    Args:
        cfg: composed from conf/export.yaml.
        overrides: what was typed, which wins over what the checkpoint says of itself.

    Raises:
        FileExistsError: there is such a folder.
        ModuleNotFoundError: the layout needs a package that is not installed.
        ValueError: no network, an option that does not go with the layout, or the export is not what the network is.
    """
    cfg, state = chosen_network(cfg, overrides, "export")
    layout, folder = cfg.layout, Path(cfg.output).expanduser()
    _check_options(cfg)
    if folder.exists():
        raise FileExistsError(f"output={folder} exists; remove it, or give another.")
    numbers = find_numbers(cfg.checkpoint, cfg.model.weights, cfg.metrics_file)
    origin = find_origin(cfg.model.weights)
    network = objects.build_network(cfg.model).eval()
    if state is not None:
        load_run_state(network, state, cfg.checkpoint)
    else:
        objects.start_weights(network, cfg.model)
    metadata = _metadata(cfg, origin, numbers)
    with finished(folder) as aside:
        exported, differences = _write(cfg, network, aside, metadata)
        notes = _check(layout, network, differences, cfg.precision)
        latency = {}
        if layout in ("onnx", "pt2"):
            assert exported is not None
            image = example_images(*differences[0].size, count=1)
            latency = {layout: latency_ms(exported, image), "torch": latency_ms(network_runner(network), image)}
        scores = None
        if exported is not None and _data_is_typed(overrides):
            data = objects.build_data(cfg)
            scores = rescore(network, exported, data, lambda: objects.build_metrics(cfg), cfg.score_images, cfg.size)
        notes += _measured(differences, scores, latency)
        apart = [
            f"At {_by(d.size)}, by at most {d.largest:.1e} and on average {d.mean:.1e} of the output's range."
            for d in differences
        ]
        card = _model_card(cfg, metadata, numbers, [*apart, *notes])
        (aside / "README.md").write_text(str(card), encoding="utf-8")
    _print(folder, layout, differences, notes)
    return Report(folder, differences, scores, latency)


def _check_options(cfg: DictConfig) -> None:
    layout = cfg.layout
    one_of("layout", layout, get_args(Layout))
    check_graph(cfg.size, cfg.precision)
    graph = layout in ("onnx", "pt2")
    if not graph and (cfg.size is not None or cfg.precision != "float32"):
        raise ValueError(f"size and precision are for layout=onnx and layout=pt2; layout={layout} holds the weights.")
    for name in ("onnxscript", "onnx_ir"):  # they tell every step
        logging.getLogger(name).setLevel(logging.WARNING)
    needed = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "transformers": ("transformers",)}
    require(f"layout={layout}", *needed.get(layout, ()))


def _metadata(cfg: DictConfig, origin: Origin, numbers: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "size": cfg.data.size,
        "starting_weights": origin.name,
        "licence": origin.licence,
        "metrics": numbers and numbers["metrics"],
        "protocol": numbers and numbers["protocol"],
        "protocol_hash": numbers and numbers["protocol"]["hash"],
    }


def _write(
    cfg: DictConfig, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any]
) -> tuple[Runner | None, list[Difference]]:
    """Write the files of the layout; how to run them, if they run by themselves, and how far from the network."""
    layout: Layout = cfg.layout
    if layout == "transformers":
        save_weights(network, folder, layout, metadata)
        theirs = transformers_runner(folder)
        rows, columns = check_sizes(network, cfg.data.size)[0]
        sizes = [(rows, columns), (rows, columns + 12 * 14)]
        return theirs, list(compare(theirs, network_runner(network), sizes))
    folder.mkdir()
    path = folder / FILES[layout]
    if layout in ("official", "safetensors"):
        save_weights(network, path, layout, metadata)
        _check_equal(network, path)
        return None, []
    said = {**metadata, "input": INPUT, "precision": cfg.precision, "graph_size": cfg.size and list(cfg.size)}
    program = export_program(network, cfg.size and list(cfg.size), cfg.precision)
    description = with_kind(network, said)
    if layout == "onnx":
        quantity = "depth" if network.output == "metric" else "disparity"
        save_onnx(program, path, quantity, {key: _as_text(value) for key, value in description.items()})
        exported = onnx_runner(path)
    else:
        save_program(program, path, to_json(description))
        exported = program_runner(path)
    metadata_path(path).write_text(to_json(description), encoding="utf-8")
    sizes = check_sizes(network, cfg.data.size) if cfg.size is None else [tuple(cfg.size)]
    return exported, list(compare(exported, network_runner(network), sizes))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _check_equal(network: DepthAnythingV2, path: Path) -> None:
    """Read the file back, and see that every tensor is the network's, bit for bit."""
    expected, found = official_state_dict(network), read_weights(path).state
    if wrong := [key for key in expected.keys() | found.keys() if not _equal(expected.get(key), found.get(key))]:
        raise ValueError(f"{path.name}, read back, differs from the network in {', '.join(sorted(wrong))}.")


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one.cpu(), other)


def _check(layout: Layout, network: DepthAnythingV2, differences: Sequence[Difference], precision: str) -> list[str]:
    """What has to be said of the differences.

    Raises:
        ValueError: the export is not what the network is.
    """
    if layout in ("official", "safetensors"):
        return [f"Read back, all {len(official_state_dict(network))} tensors are the network's, bit for bit."]
    limit = TRANSFORMERS_LIMIT if layout == "transformers" else GRAPH_LIMIT
    held = differences[:1] if layout == "transformers" else differences if precision == "float32" else []
    for difference in held:
        if not difference.largest <= limit:
            raise ValueError(
                f"The export differs from the network by {difference.largest:.1e} of the range at "
                f"{_by(difference.size)}, more than {limit:g}; nothing was written."
            )
    if layout != "transformers":
        return []
    there, elsewhere = differences
    text = ELSEWHERE.format(
        size=_by(there.size), other=_by(elsewhere.size), largest=elsewhere.largest, mean=elsewhere.mean
    )
    return [text]


def _data_is_typed(overrides: Sequence[str]) -> bool:
    return any(key.split(".")[0] == "data" and key != "data.size" for key in typed(overrides))


def _measured(differences: Sequence[Difference], scores: Rescored | None, latency: Mapping[str, float]) -> list[str]:
    notes = []
    if scores is not None:
        names = ("abs_rel", "delta1")
        changes = ", ".join(f"{name} {scores.network[name]:.5f} → {scores.export[name]:.5f}" for name in names)
        notes.append(f"On {scores.images} validation images, from the network to the export: {changes}.")
    if latency:
        speed = ", ".join(f"{name} {ms:.0f} ms" for name, ms in latency.items())
        threads = torch.get_num_threads()
        notes.append(f"One image of {_by(differences[0].size)} on the CPU, {threads} threads: {speed} (median of 5).")
    return notes


def _model_card(
    cfg: DictConfig, metadata: Mapping[str, Any], numbers: Mapping[str, Any] | None, checks: Sequence[str]
) -> ModelCard:
    layout, model = cfg.layout, cfg.model
    run = None if cfg.checkpoint is None else read_run_checkpoint(cfg.checkpoint)[0]
    metric = model.output == "metric"
    limits = []
    if layout in ("onnx", "pt2"):
        sides = "multiples of 14, 42 or more" if cfg.size is None else f"{_by(cfg.size)} alone"
        limits = [f"Input: {INPUT}; the sides are {sides}."]
    elif layout == "transformers":
        limits = ["Its depth is that of the authors' code at one size alone; see the last section."]
    return ModelCard(
        encoder=model.encoder,
        output=model.output,
        max_depth=float(model.max_depth) if metric else None,
        size=cfg.data.size,
        layout=layout,
        graph_size=cfg.size and tuple(cfg.size),
        recipe={} if run is None else recipe(run),
        numbers=numbers,
        starting_weights=metadata["starting_weights"],
        licence=metadata["licence"],
        checks=checks,
        limits=limits,
    )


def _print(folder: Path, layout: Layout, differences: Sequence[Difference], notes: Sequence[str]) -> None:
    written = [*notes, f"Written: {folder}"]
    if differences:
        rows = [[_by(d.size), f"{d.largest:.1e}", f"{d.mean:.1e}"] for d in differences]
        header = {"h×w": False, "largest difference": True, "mean": True}
        print_rows(f"{layout} against the network, in shares of its output's range", header, [rows], written)
        return
    for line in written:
        log.info(line)


def _by(size: Sequence[int]) -> str:
    height, width = size
    return f"{height}×{width}"

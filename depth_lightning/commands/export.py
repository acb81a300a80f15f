"""Export a network to files that other programs read, and check the export against it: `depth-lightning export`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from depth_lightning.atomic import atomically
from depth_lightning.evaluation.rescore import Rescored, rescore
from depth_lightning.inference.export import LAYOUTS, Difference, Export, Graph, Layout, dimensions
from depth_lightning.inference.export.comparison import check_differences, check_sizes, compare, network_runner
from depth_lightning.models import DepthAnythingV2
from depth_lightning.models.adapters import merged
from depth_lightning.reporting.model_card import ModelCard
from depth_lightning.reporting.tables import print_rows
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network, read_run_checkpoint
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import argument_names
from depth_lightning.runs.overrides import typed, typed_words
from depth_lightning.runs.record import Origin, find_numbers, find_origin, recipe
from depth_lightning.runs.weights import load_chosen
from depth_lightning.settings import SettingError, one_of
from depth_lightning.wording import counted

log = logging.getLogger(__name__)

MERGED = 1e-4
"""Largest allowed change of a prediction by merging adapters, relative to its range."""


class Report(NamedTuple):
    """The result of an export."""

    folder: Path
    differences: Sequence[Difference]
    """From the network, at several sizes."""
    scores: Rescored | None
    """None if no data was given."""
    latency_ms: Mapping[str, float]
    """For one image; empty for weights, which do not run by themselves."""


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(lambda cfg: export(cfg, typed_words()), cfg)


def export(cfg: DictConfig, overrides: Sequence[str]) -> Report:
    """Write `cfg.checkpoint`, or `cfg.model` with the weights that were typed, into the new folder `cfg.output`.

    Args:
        cfg: composed from conf/export.yaml.
        overrides: as typed; they take precedence over the checkpoint's configuration.

    Raises:
        FileExistsError: the output folder exists already.
        ModuleNotFoundError: the layout needs a package that is not installed.
        ValueError: no network was given, an option does not suit the layout, or the export differs from the network.
    """
    cfg, state = chosen_network(cfg, overrides, "export")
    layout, folder = _chosen_layout(cfg), Path(cfg.output).expanduser()
    if folder.exists():
        raise FileExistsError(f"output={folder} exists; remove it, or give another path.")
    numbers = find_numbers(cfg.checkpoint, cfg.model.weights, cfg.metrics_file)
    origin = find_origin(cfg.model.weights)
    network = objects.build_network(cfg.model, cfg.get("adapter")).eval()
    load_chosen(network, cfg, state)
    metadata = _metadata(cfg, origin, numbers)
    network, merging = _for_layout(network, layout, cfg.data.size)
    with atomically(folder) as aside:
        exported = layout.write(network, aside, metadata, cfg.data.size)
        scores = None
        if exported.run is not None and _data_is_typed(overrides):
            data = objects.build_data(cfg)
            scores = rescore(
                network, exported.run, data, lambda: objects.build_metrics(cfg), cfg.score_images, cfg.size
            )
        notes = [*merging, *exported.notes, *_measured(exported, scores)]
        card = _model_card(cfg, layout, metadata, numbers, [*_apart(exported.differences), *notes])
        (aside / "README.md").write_text(str(card), encoding="utf-8", errors="backslashreplace")
    _print(folder, layout, exported.differences, notes)
    return Report(folder, exported.differences, scores, exported.latency_ms)


def _chosen_layout(cfg: DictConfig) -> Layout:
    kind = LAYOUTS[one_of("layout", cfg.layout, LAYOUTS)]
    unset = {"size": None, "batch_size": None, "opset": None, "precision": "float32"}
    chosen = {key: cfg[key] for key, default in unset.items() if cfg[key] != default}
    for key, value in chosen.items():
        if key not in argument_names(kind):
            others = " and ".join(f"layout={name}" for name, other in LAYOUTS.items() if key in argument_names(other))
            raise SettingError(key, f"is for {others}, not for layout={cfg.layout}; found {value!r}.")
    return kind(**chosen, patch=objects.patch_size(cfg)) if issubclass(kind, Graph) else kind(**chosen)


def _for_layout(network: DepthAnythingV2, layout: Layout, side: int) -> tuple[DepthAnythingV2, list[str]]:
    """The network that the layout writes, and a sentence about its adapters if they were merged.

    Raises:
        ValueError: the merged network predicts something else.
    """
    if network.adapter is None or layout.takes_adapters:
        return network, []
    whole = merged(network)
    (difference,) = compare(network_runner(whole), network_runner(network), check_sizes(network, side)[:1])
    check_differences([difference], MERGED)
    return whole, [f"The adapters are merged, which changed the prediction by {difference.largest:.1e} of its range."]


def _metadata(cfg: DictConfig, origin: Origin, numbers: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "size": cfg.data.size,
        "starting_weights": origin.name,
        "licence": origin.licence,
        "metrics": numbers and numbers["metrics"],
        "protocol": numbers and numbers["protocol"],
        "protocol_hash": numbers and numbers["protocol"]["hash"],
    }


def _data_is_typed(overrides: Sequence[str]) -> bool:
    return any(key.split(".")[0] == "data" and key != "data.size" for key in typed(overrides))


def _apart(differences: Sequence[Difference]) -> list[str]:
    return [
        f"At {dimensions(d.size)}, by at most {d.largest:.1e} and on average {d.mean:.1e} of the output's range."
        for d in differences
    ]


def _measured(exported: Export, scores: Rescored | None) -> list[str]:
    notes = []
    if scores is not None:
        names = ("abs_rel", "delta1")
        changes = ", ".join(f"{name} {scores.network[name]:.5f} → {scores.export[name]:.5f}" for name in names)
        notes.append(f"On {counted(scores.images, 'validation image')}, from the network to the export: {changes}.")
    if exported.latency_ms:
        speed = ", ".join(f"{name} {ms:.0f} ms" for name, ms in exported.latency_ms.items())
        size, threads = dimensions(exported.differences[0].size), torch.get_num_threads()
        notes.append(
            f"One image of {size} took, on this machine while exporting, on the CPU with "
            f"{counted(threads, 'thread')}: {speed} (median of 5)."
        )
    return notes


def _model_card(
    cfg: DictConfig,
    layout: Layout,
    metadata: Mapping[str, Any],
    numbers: Mapping[str, Any] | None,
    checks: Sequence[str],
) -> ModelCard:
    model = cfg.model
    run = None if cfg.checkpoint is None else read_run_checkpoint(cfg.checkpoint)[0]
    metric = model.output == "metric"
    return ModelCard(
        encoder=model.encoder,
        output=model.output,
        max_depth=float(model.max_depth) if metric else None,
        size=cfg.data.size,
        usage=layout.usage("depth_m" if metric else "disparity"),
        library=layout.library,
        tags=layout.tags,
        recipe={} if run is None else recipe(run),
        numbers=numbers,
        starting_weights=metadata["starting_weights"],
        licence=metadata["licence"],
        checks=checks,
        limits=[*layout.limits, *_calibrated(run)],
        focal_px=model.get("focal_px") if metric else None,
        takes_focal=layout.takes_focal,
    )


def _calibrated(run: DictConfig | None) -> list[str]:
    """For which camera scale and shift of disparity were fitted, if they were."""
    record = {} if run is None else run.get("calibration") or {}
    if record.get("kind") != "affine_disparity":
        return []
    fov = " to ".join(f"{fov_deg:g}°" for fov_deg in dict.fromkeys(record["fov_deg"] or ()))
    camera = f"{record['data']} (field of view across the longer side: {fov or 'unknown'})"
    return [f"Metres are those of the camera of {camera}, with which it was calibrated, and of no other."]


def _print(folder: Path, layout: Layout, differences: Sequence[Difference], notes: Sequence[str]) -> None:
    written = [*notes, f"Written: {folder}"]
    if differences:
        rows = [[dimensions(d.size), f"{d.largest:.1e}", f"{d.mean:.1e}"] for d in differences]
        header = {"h×w": False, "largest difference": True, "mean": True}
        print_rows(f"{layout.name} against the network, in shares of its output's range", header, [rows], written)
        return
    for line in written:
        log.info(line)

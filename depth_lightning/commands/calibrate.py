"""Fit a network's metres to a few labelled images: `depth-lightning calibrate checkpoint=… data=…`."""

import dataclasses
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.progress import track

from depth_lightning.atomic import write_bytes
from depth_lightning.commands.predict import camera_options
from depth_lightning.data import DepthPairs
from depth_lightning.data.bad_samples import Samples
from depth_lightning.data.distances import MeasuredDistances
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.data.transforms import EvaluationTransform
from depth_lightning.evaluation.calibration import Calibration, calibrate
from depth_lightning.evaluation.observations import PIXELS, observe
from depth_lightning.inference import Predictor
from depth_lightning.inference.cameras import photo_camera
from depth_lightning.inference.inputs import photo_reader
from depth_lightning.metrics import DepthMetrics, Protocol
from depth_lightning.metrics.intervals import MIN_UNITS
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.tables import print_table, write_json
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import chosen_network, describe, read_run_checkpoint
from depth_lightning.runs.job import run_job
from depth_lightning.runs.overrides import typed_words
from depth_lightning.runs.record import subject, without_paths
from depth_lightning.runs.weights import load_chosen
from depth_lightning.sample import DepthDataset, DepthSample
from depth_lightning.settings import SettingError
from depth_lightning.training import DepthModule
from depth_lightning.training.saving.checkpoint_files import serialised
from depth_lightning.wording import counted

log = logging.getLogger(__name__)

DIRECTIONS = {"abs_rel": False, "rmse": False, "delta1": True, "log_error": False}
"""Error → whether higher is better."""
SHOWN = 5
"""Outliers that are named on the terminal; calibration.json names all."""


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(lambda cfg: fit(cfg, typed_words()), cfg)


def fit(cfg: DictConfig, overrides: Sequence[str]) -> Calibration:
    """Calibrate `cfg.checkpoint`, or `cfg.model` with the weights that were typed.

    Writes `cfg.output`, a checkpoint of the calibrated network, and calibration.json into `cfg.run_dir`. If no factor
    helps, the checkpoint holds the network as it was.

    Args:
        cfg: composed from conf/calibrate.yaml.
        overrides: as typed; they take precedence over the checkpoint's configuration.

    Raises:
        FileExistsError: the output exists.
        ValueError: the truth is not in metres, or too little, or no scale and shift make a relative network metric.
    """
    output = Path(cfg.output).expanduser()
    if output.exists():
        raise FileExistsError(f"output={output} exists; remove it, or give another path.")
    cfg, state = chosen_network(cfg, overrides, "calibrate")
    samples, count, protocol = _samples(cfg)
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    load_chosen(network, cfg, state)
    relative = network.output == "relative"
    protocol = dataclasses.replace(protocol, alignment="scale_shift_disparity" if relative else "none")
    device = Predictor(network, cfg.data.size, cfg.device).device
    shown = track(samples, "Predicting", count, transient=True, disable=not sys.stdout.isatty())
    seen = observe(DepthModule(network, DepthMetrics(protocol)), shown, device)
    found = calibrate(seen, relative, network.max_depth)
    numbers, run_dir = _numbers(found), Path(cfg.run_dir)
    of = subject(cfg) if cfg.points is None else {**subject(cfg), "data": str(cfg.points), "split": None}
    known = np.unique(seen.fov_deg[np.isfinite(seen.fov_deg)].round(1)).tolist()
    camera = {"fov_deg": [known[0], known[-1]] if known else None}
    record = {**numbers, **camera, "images": len(seen.scene), "data": without_paths(of["data"])}
    evidence = {"before": found.before, "after": found.after, "held_out": found.units.name, "outliers": found.outliers}
    apart = [group._asdict() for group in found.apart]
    write_json(
        run_dir / "calibration.json", {**numbers, **evidence, "apart": apart, "images": len(seen.scene), **camera, **of}
    )
    _report(cfg, found, len(seen.scene))
    if relative and found.kind == "none":
        raise ValueError(
            "No scale and shift of disparity predicts images that they were not fitted to better than a constant depth "
            f"does, so there is no calibrated network. The numbers are in {run_dir}/calibration.json."
        )
    if found.kind == "factor":
        network.multiply(found.fit[0])
    elif found.kind == "affine_disparity":
        network.to_metres(*found.fit)
    _save(cfg, network.cpu(), record, output)
    log.info(f"Written: {output}, {run_dir}/calibration.json")
    return found


def _samples(cfg: DictConfig) -> tuple[Iterable[DepthSample], int, Protocol]:
    """The samples, read one by one, how many they are, and the protocol that says which of their pixels count."""
    protocol = cast(Protocol, objects.build("protocol", cfg.protocol))
    options = camera_options(cfg)
    if cfg.points is None:
        if options.intrinsics is not None or options.fov_deg is not None:
            raise SettingError("camera", "is for the images of points=…; a data set has its own, see data.intrinsics.")
        objects.require_depth_maps(cfg.data)
        data = objects.build_data(cfg, cfg.split)
        data.setup("validate")
        _warn_of_unused(data.val_data.dataset.source, cfg)
        indices = evenly_spread(range(len(data.val_data)), cfg.images)
        return (data.val_data[index] for index in indices), len(indices), protocol
    table = MeasuredDistances(
        Path(cfg.points).expanduser(),
        photo_reader(objects.plain(cfg.data)),
        lambda path, image: photo_camera(options, path, image).intrinsics,
    )
    transform = EvaluationTransform(cfg.data.size, objects.patch_size(cfg), objects.canonical(cfg))
    samples = Samples(table)
    measured = (samples.transformed(index, transform) for index in range(len(table)))
    return measured, len(table), dataclasses.replace(protocol, crop="none")


def _warn_of_unused(source: DepthDataset, cfg: DictConfig) -> None:
    """Warn where the split leaves out images that a fit to a few could use."""
    if isinstance(source, DepthPairs) and len(source) < min(source.total, cfg.images or source.total):
        log.warning(
            f"split={cfg.split} uses {len(source)} of {source.total} images. Type split=all to use every image, if the "
            "network was not trained on them."
        )


def _numbers(found: Calibration) -> dict[str, Any]:
    """The kind and its numbers, as in calibration.json and in the checkpoint."""
    if found.kind == "affine_disparity":
        scale, shift = found.fit
        return {"kind": found.kind, "factor": None, "interval": None, "scale": scale, "shift": shift}
    factor = found.fit[0] if found.kind == "factor" else 1.0
    return {"kind": found.kind, "factor": factor, "interval": found.interval}


def _report(cfg: DictConfig, found: Calibration, images: int) -> None:
    """Print what was fitted and what it changes, and warn where one fit cannot serve all images."""
    source = str(cfg.checkpoint or cfg.model.weights)
    factor, (low, high) = found.fit[0], found.interval
    bounds = f" (95 % interval {low:.4f} to {high:.4f})" if np.isfinite(low) else ""
    notes = [
        f"Errors of {found.units.total} {found.units.name}, each with a fit that has not seen it; "
        f"{counted(images, 'image')}, up to {PIXELS} pixels of each."
    ]
    if found.relative:
        scale, shift = found.fit
        notes.append(f"Depth is 1 / ({scale:.4g} · disparity + {shift:.4g}) m, for this camera alone.")
    elif found.kind == "factor":
        notes.append(f"Depth times {factor:.4f}{bounds}.")
    else:
        notes.append(f"Nothing to correct: a factor of {factor:.4f}{bounds} does not help. The network stays as it is.")
    if images < MIN_UNITS and not found.relative:
        notes.append(f"Fewer than {MIN_UNITS} images do not show how much images differ, so there is no interval.")
    if count := len(found.outliers):
        more = ", …" if count > SHOWN else ""
        verb = "outlier was" if count == 1 else "outliers were"
        notes.append(f"{count} {verb} left out: {', '.join(found.outliers[:SHOWN])}{more}.")
    columns = {"a constant depth" if found.relative else "as it is": found.before, "calibrated": found.after}
    print_table(f"Calibration of {source}", columns, DIRECTIONS, notes)
    if found.apart:
        first, last = found.apart
        log.warning(
            f"{first.factor:.2f} for {first.name} ({first.images} images) and {last.factor:.2f} for {last.name} "
            f"({last.images}): one factor cannot serve both; see camera=canonical."
        )


def _save(cfg: DictConfig, network: DepthAnythingV2, record: Mapping[str, Any], output: Path) -> None:
    """Write the network as a checkpoint of its run, with what was fitted in its configuration."""
    config = read_run_checkpoint(cfg.checkpoint)[0] if cfg.checkpoint else OmegaConf.create(describe(cfg))
    # The range in which depth is scored stays, though it may refer to model.max_depth.
    config.protocol.max_depth = float(config.protocol.max_depth)
    if record["kind"] == "affine_disparity":
        config.protocol.alignment = "none"
    config.model.update(output=network.output, head=network.head_name, max_depth=network.max_depth)
    config.calibration = record
    content = {
        "config": OmegaConf.to_container(config, resolve=False),
        "state_dict": {f"network.{name}": tensor for name, tensor in network.state_dict().items()},
    }
    write_bytes(output, serialised(content), durable=True)

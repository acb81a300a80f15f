"""Score a checkpoint or released weights: `python evaluate.py`."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from depth_lightning.commands import objects
from depth_lightning.commands.job import run_job
from depth_lightning.commands.run_checkpoint import overlay, read_run_checkpoint
from depth_lightning.data import DepthDataModule
from depth_lightning.metrics import DepthMetrics, ImageCounts, best_constant
from depth_lightning.reporting.panels import save_png
from depth_lightning.reporting.tables import print_table, write_csv, write_json
from depth_lightning.sample import DepthSample
from depth_lightning.training import DepthModule
from depth_lightning.training.callbacks import draw_panels

log = logging.getLogger(__name__)


class Score(NamedTuple):
    """What an evaluation found."""

    metrics: dict[str, float]
    counts: ImageCounts


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(lambda cfg: evaluate(cfg, list(HydraConfig.get().overrides.task)), cfg)


def evaluate(cfg: DictConfig, overrides: Sequence[str]) -> Score:
    """Score `cfg.checkpoint`, or `cfg.model` with the weights that were typed, and report it in `cfg.run_dir`.

    Args:
        cfg: composed from conf/evaluate.yaml.
        overrides: what was typed, which wins over what the checkpoint says of itself.

    Raises:
        ValueError: neither a checkpoint nor weights were given.
    """
    if cfg.checkpoint is not None:
        saved, state = read_run_checkpoint(cfg.checkpoint)
        cfg = overlay(saved, cfg, overrides)
    elif not any(override.lstrip("+").startswith("model.weights=") for override in overrides):
        raise ValueError(
            "Nothing to evaluate: give checkpoint=…/best.ckpt of a run, "
            "or released weights with model=vits model.weights=…"
        )
    lightning.seed_everything(cfg.seed, verbose=False)
    data = objects.build_data(cfg)
    network = objects.build_network(cfg.model)
    module = DepthModule(network, objects.build_metrics(cfg))
    if cfg.checkpoint is not None:
        module.load_state_dict(state)
    else:
        objects.start_weights(network, cfg.model)
    trainer = objects.build_trainer(cfg, callbacks=[], loggers=[])
    result = score(trainer, module, data)
    if trainer.is_global_zero:
        name = f"checkpoint {cfg.checkpoint}" if cfg.checkpoint else f"{cfg.model.weights}"
        report(cfg, result, module.metrics, data, title=name)
        if cfg.panels:
            picture = Path(cfg.run_dir) / "panels.png"
            save_png(picture, draw_panels(module, data.val_data, cfg.panels))
            log.info(f"Pictures: {picture}")
    return result


def score(trainer: lightning.Trainer, module: DepthModule, data: DepthDataModule) -> Score:
    """The module's metrics over the whole validation split; every process calls it and gets the same."""
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.image_counts is not None
    return Score(
        {name: float(trainer.callback_metrics[f"val/{name}"]) for name in module.metrics.errors}, module.image_counts
    )


def report(cfg: DictConfig, result: Score, metrics: DepthMetrics, data: DepthDataModule, title: str) -> None:
    """Print the table, and write metrics.json, table.csv and config.yaml into the run's folder.

    Raises:
        ValueError: no image had anything to score.
    """
    counts, protocol = result.counts, metrics.protocol
    if not counts.scored:
        raise ValueError(
            f"None of the {sum(counts)} validation images has a valid pixel under this protocol "
            f"({_in_words(protocol.to_dict())}). Check protocol.min_depth, protocol.max_depth and the data's unit."
        )
    columns = {"model": result.metrics}
    content: dict[str, Any] = {
        "metrics": result.metrics,
        "images": counts.scored,
        "images_without_valid_pixel": counts.without_valid_pixel,
        "images_not_aligned": counts.not_aligned,
        "protocol": {**protocol.to_dict(), "hash": protocol.hash},
        "model": {key: cfg.model[key] for key in ("encoder", "output", "max_depth")},
        "size": cfg.data.size,
        "checkpoint": cfg.checkpoint,
        "weights": None if cfg.checkpoint else cfg.model.weights,
    }
    notes = [
        f"{counts.scored} images, each weighs the same. Protocol {protocol.hash}: {_in_words(protocol.to_dict())}.",
    ]
    if counts.without_valid_pixel or counts.not_aligned:
        notes.append(
            f"NOT in these averages: {counts.without_valid_pixel} images without a valid pixel, "
            f"{counts.not_aligned} whose alignment the data do not determine."
        )
    if cfg.baseline:
        depth, errors = constant_baseline(metrics, data)
        columns[f"always {depth:.2f} m"] = errors
        content["baseline"] = {"constant_depth": depth, "metrics": errors}
        change = result.metrics["abs_rel"] / errors["abs_rel"] - 1
        side = "below" if change < 0 else "above"
        notes.append(f"abs_rel is {100 * abs(change):.1f} % {side} the best constant prediction's.")
    run_dir = Path(cfg.run_dir)
    write_json(run_dir / "metrics.json", content)
    write_csv(run_dir / "table.csv", columns)
    print_table(title, columns, [*notes, f"Written: {run_dir}/metrics.json, table.csv"])


def constant_baseline(metrics: DepthMetrics, data: DepthDataModule) -> tuple[float, dict[str, float]]:
    """The best constant depth over the validation split, and its errors."""
    truths = [(torch.from_numpy(sample.target), torch.from_numpy(sample.mask)) for sample in _truths(data)]
    depth = best_constant(truths, metrics.protocol)
    constant = DepthMetrics(metrics.protocol, metrics.errors, sync_on_compute=False)
    for target, mask in truths:
        constant.update(torch.full_like(target, depth)[None], target[None], mask[None])
    return depth, {name: float(value) for name, value in constant.compute().items()}


def _truths(data: DepthDataModule) -> Iterator[DepthSample]:
    for index in range(len(data.val_data)):
        yield data.val_data.dataset[index]


def _in_words(protocol: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in protocol.items())

"""Fine-tune a network: `depth-lightning train`."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.memory import is_oom_error
from omegaconf import DictConfig

from depth_lightning.commands.evaluate import report_evaluation
from depth_lightning.evaluation.page_images import PageImages
from depth_lightning.evaluation.score import check_scorable, score
from depth_lightning.invocation import command_line
from depth_lightning.models.checkpoints import load_run_state
from depth_lightning.runs import objects
from depth_lightning.runs.checkpoint import describe, keep_settled, read_run_checkpoint
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.resume import checkpoint_to_resume, claim_folder, other_data
from depth_lightning.runs.weights import start_alignment, start_head, start_weights
from depth_lightning.training.health.self_check import SelfCheck
from depth_lightning.training.module import MEAN_OF_PARTS
from depth_lightning.training.saving.checkpoint_files import LAST, whole_step
from depth_lightning.training.saving.checkpointing import Checkpoints
from depth_lightning.training.sharding import shard_like
from depth_lightning.version import version

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float | None:
    """The entry point: train, score the best checkpoint, and return its abs_rel, or else affine_error, for sweepers.

    None if a job of a sweep failed, or if the value is NaN, at which Optuna's sweeper would end with an error.
    """
    value = run_job(train, cfg, kept)
    return None if value is None or math.isnan(value) else value


def kept(cfg: DictConfig) -> str:
    """What an interrupted training has saved, and how to resume it."""
    last = Path(cfg.run_dir) / "checkpoints" / LAST
    if not last.exists():  # a file, or a folder of parts
        return "Nothing was saved yet. To start again, repeat the command."
    hydra = HydraConfig.get()
    folder = f"hydra.run.dir={cfg.run_dir}" if hydra.mode == RunMode.RUN else f"hydra.sweep.dir={hydra.sweep.dir}"
    return f"Step {whole_step(last)} is saved. To resume, repeat the command with checkpoint=auto {folder}"


def train(cfg: DictConfig) -> float:
    """Train as configured in `cfg.run_dir`.

    Raises:
        SettingError: an option is invalid, or nothing reads it.
        ValueError: the folder holds another run, or the checkpoint does not fit.
        Stopped: by a signal; the run is saved.
    """
    check(cfg, "train")
    run_dir, auto = Path(cfg.run_dir), cfg.checkpoint == "auto"
    checkpoint = checkpoint_to_resume(cfg)
    if checkpoint is not None:
        keep_settled(cfg, checkpoint)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    data = objects.build_data(cfg)
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    if cfg.compile:
        network.compile()
    module = objects.build_module(cfg, network)
    callbacks, loggers = (objects.build_all(cfg, group) for group in ("callbacks", "logger"))
    objects.check_monitors(cfg, module)
    trainer = objects.build_trainer(cfg, list(callbacks.values()), list(loggers.values()))
    try:
        data.setup("fit")  # before downloading weights, so that problems with the data show early
    except FileNotFoundError as error:
        hint = other_data(cfg, checkpoint) if checkpoint else ""
        raise FileNotFoundError(f"{error} {hint}".strip()) from error
    check_scorable(module, data)
    objects.settle(cfg, data)
    _say_what_is_best(trainer, data.val_parts)
    module.config = describe(cfg)
    recorded = {**objects.plain(cfg), "protocol_hash": module.metrics.protocol.hash, "version": version()}
    if trainer.is_global_zero:
        lock = claim_folder(run_dir, recorded, checkpoint, auto)  # noqa: F841 — held until the run ends
    start_alignment(module)
    if checkpoint is None:
        loaded = start_weights(network, cfg.model)
        start_head(network, data, loaded)
        if cfg.self_check:
            trainer.callbacks.append(SelfCheck(loaded))  # type: ignore[attr-defined]
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):  # config.yaml lies beside metrics.csv already
            logger.log_hyperparams(recorded)

    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)):
            raise
        raise ValueError(
            f"{str(error).splitlines()[0]} To use less memory, set data.batch_size below {cfg.data.batch_size} "
            "(with trainer.accumulate_grad_batches for the same step size), trainer=bf16 or fp16, or "
            f"model.recompute_blocks=true. {command_line('batch-size')}, with the same overrides, finds the largest "
            "batch size."
        ) from error

    best = best_checkpoint(trainer)
    if best is not None:
        load_run_state(network, shard_like(network, read_run_checkpoint(best)[1]), best)
    trainer.loggers = []  # the best epoch's metrics are already logged
    pictures = PageImages() if cfg.report else None
    trainer.callbacks += [pictures] if pictures else []  # type: ignore[attr-defined]
    result = score(trainer, module, data)
    images = pictures.gathered() if pictures else None
    if trainer.is_global_zero:
        cfg.checkpoint = best and str(best)
        title = f"checkpoint {best}" if best else "the network as trained"
        typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        report_evaluation(cfg, title, module, data, result, images, [*command_line("train").split(), *typed])
        log.info(f"Pictures of every epoch: {run_dir}/panels")
    return result.metrics.get("abs_rel", result.metrics.get("affine_error", math.nan))


def _say_what_is_best(trainer: lightning.Trainer, parts: Sequence[str]) -> None:
    """Log the rule for the best checkpoint of a mixture, and how to choose another."""
    callback = trainer.checkpoint_callback
    if len(parts) > 1 and isinstance(callback, Checkpoints):
        monitor, example = callback.best.monitor, parts[0]
        whole = " (over all images of all parts)" if not monitor.endswith((*parts, MEAN_OF_PARTS)) else ""
        rank_zero_only(log.info)(
            f"best.ckpt is the one with the {'lowest' if callback.best.mode == 'min' else 'highest'} {monitor}{whole}. "
            f"For the mean of the parts, in which each counts the same: callbacks.checkpoints.monitor="
            f"val/abs_rel_{MEAN_OF_PARTS}; for one part, such as {example}: val/abs_rel_{example}."
        )


def best_checkpoint(trainer: lightning.Trainer) -> Path | None:
    """The path of this run's best checkpoint, if its callbacks keep one."""
    callback = trainer.checkpoint_callback
    return callback.best_path if isinstance(callback, Checkpoints) else None

"""Fine-tune a network: `python train.py`."""

import logging
import math
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from depth_lightning.commands import objects
from depth_lightning.commands.evaluate import report, score
from depth_lightning.commands.job import run_job
from depth_lightning.commands.run_checkpoint import read_run_checkpoint
from depth_lightning.inference.predict import load_run_state

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> float:
    """The entry point: train, score the best checkpoint, and return its abs_rel or else affine_error, for sweepers."""
    return run_job(train, cfg)


def train(cfg: DictConfig) -> float:
    """Train as configured in `cfg.run_dir`.

    Raises:
        ValueError: the folder already holds a run.
    """
    run_dir = Path(cfg.run_dir)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    data = objects.build_data(cfg)
    network = objects.build_network(cfg.model)
    module = objects.build_module(cfg, network)
    trainer = objects.build_trainer(cfg, objects.build_all(cfg.callbacks), objects.build_all(cfg.logger))
    recorded = {**objects.plain(cfg), "protocol_hash": module.metrics.protocol.hash}
    if trainer.is_global_zero:
        claim_folder(run_dir, recorded)
    if cfg.checkpoint is None:
        objects.start_weights(network, cfg.model)
    else:
        read_run_checkpoint(cfg.checkpoint)  # a file that cannot be read is named before anything starts
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):  # config.yaml lies beside metrics.csv already
            logger.log_hyperparams(recorded)

    try:
        trainer.fit(module, datamodule=data, ckpt_path=cfg.checkpoint, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        last = run_dir / "checkpoints" / "last.ckpt"
        if trainer.is_global_zero and last.is_file():
            log.info(f"Interrupted. To go on from the last validation, repeat the command with checkpoint={last}")
        raise

    best = best_checkpoint(trainer)
    if best is not None:
        load_run_state(network, read_run_checkpoint(best)[1], best)
    trainer.loggers = []  # the best epoch's numbers are logged already
    result = score(trainer, module, data)
    if trainer.is_global_zero:
        cfg.checkpoint = best
        report(cfg, result, module.metrics, data, title=f"{best or 'the network as trained'}")
        log.info(f"Pictures of every epoch: {run_dir}/panels")
    return result.metrics.get("abs_rel", result.metrics.get("affine_error", math.nan))


def claim_folder(run_dir: Path, config: dict[str, Any]) -> None:
    """Write the resolved configuration into a folder that holds no run yet.

    Raises:
        ValueError: it holds one.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (run_dir / "config.yaml").open("x") as file:
            file.write(OmegaConf.to_yaml(OmegaConf.create(config)))
    except FileExistsError:
        raise ValueError(f"{run_dir} already holds a run. Choose another hydra.run.dir.") from None
    log.info(f"Run folder: {run_dir}")


def best_checkpoint(trainer: lightning.Trainer) -> str | None:
    """The path of the best checkpoint that this run wrote, if its callbacks wrote any."""
    callback = trainer.checkpoint_callback
    return (callback.best_model_path or None) if isinstance(callback, ModelCheckpoint) else None

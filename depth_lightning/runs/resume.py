"""Resuming a run: from which checkpoint, in which folder, with which configuration."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from filelock import BaseFileLock, FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_object
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from depth_lightning.atomic import write_text
from depth_lightning.data.reading import reading
from depth_lightning.runs.checkpoint import read_run_checkpoint, run_config
from depth_lightning.runs.earlier import comparable
from depth_lightning.runs.overrides import typed
from depth_lightning.runs.record import data_in_words
from depth_lightning.training.saving.checkpoint_files import END_OF_PARTS, newest_whole, whole_step

log = logging.getLogger(__name__)

HARMLESS = (
    *("checkpoint", "run_dir", "baseline", "logger", "self_check", "trust", "version"),
    *("model.weights", "model.init", "model.force"),  # only used at the start
    *("data.num_workers", "data.batch_size", "trainer.accumulate_grad_batches"),  # the global batch is checked itself
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.inference_mode"),
    *("trainer.log_every_n_steps", "trainer.num_sanity_val_steps"),
)
"""Parts of the configuration that may change when a run resumes: they do not decide what it learns.

A callback lists the arguments that do in its attribute `decisive`. For a class without it, such as Lightning's and most
of a user's own, all arguments count.
"""

WHERE = ("root", "cache", "cache_gb", "endpoint_url")
"""Keys of any data set that say where its files are and where they are cached."""


def checkpoint_to_resume(cfg: DictConfig) -> Path | None:
    """The checkpoint from which `cfg.checkpoint` says to resume; None to start a new run.

    "auto" is the newest intact checkpoint of the run's folder, or None while there is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the checkpoint is damaged, or "auto" has no folder to look in.
    """
    if cfg.checkpoint is None:
        return None
    if cfg.checkpoint == "auto":
        return _newest(Path(cfg.run_dir))
    path = Path(cfg.checkpoint).expanduser()
    try:
        if not (path / END_OF_PARTS).is_file():
            read_run_checkpoint(path)
        whole_step(path)
    except ValueError as error:
        other = newest_whole(path.parent).path
        raise ValueError(f"{error} {f'{other} is intact.' if other else ''}".strip()) from error
    return path


def _newest(run_dir: Path) -> Path | None:
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.RUN and "hydra.run.dir" not in typed(hydra.overrides.hydra):
            raise ValueError(
                "checkpoint=auto looks for checkpoints in the run's folder, which is new every time unless you set it: "
                "hydra.run.dir=outputs/train/<a name>"
            )
    checkpoint, passed_over = newest_whole(run_dir / "checkpoints")
    for reason in passed_over:
        rank_zero_only(log.warning)(f"Passed over: {reason}")
    if checkpoint is None and passed_over:
        raise ValueError(f"{run_dir} holds no intact checkpoint. To start again, choose another hydra.run.dir.")
    return checkpoint


def claim_folder(run_dir: Path, config: Mapping[str, Any], checkpoint: Path | None, auto: bool) -> BaseFileLock:
    """Claim `run_dir` for this run: a new folder, or the folder of a run that resumes with the same configuration.

    A folder that holds neither a checkpoint nor results counts as new: its run ended before anything was saved.

    Args:
        config: resolved; written to config.yaml.
        checkpoint: from which the run resumes.
        auto: the folder's run may resume.

    Returns:
        A lock that keeps other processes out of the folder, until it is released or this process ends.

    Raises:
        ValueError: the folder holds another run, another process uses it, or the configuration differs.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{run_dir}: another process is training in this folder.") from None
    known = run_dir / "config.yaml"
    if known.exists() and _has_results(run_dir):
        own = checkpoint is not None and checkpoint.resolve().parent == (run_dir / "checkpoints").resolve()
        if not (auto or own):
            raise ValueError(
                f"{run_dir} already holds a run. Choose another hydra.run.dir, or resume that run: checkpoint=auto"
            )
        with reading(known, "the configuration of a run", "Choose another hydra.run.dir."):
            recorded = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(known)))
            changed = _differences(recorded, config)
        _must_agree(run_dir, changed, checkpoint)
        if checkpoint is not None and not auto:
            _must_be_newest(run_dir, checkpoint)
    else:
        write_text(known, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    log.info(f"Run folder: {run_dir}")
    if checkpoint is not None:
        log.info(f"Resuming from {checkpoint}, step {whole_step(checkpoint)}")
        if not known.parent.samefile(checkpoint.resolve().parent.parent):
            before = cast(dict[str, Any], OmegaConf.to_container(run_config(checkpoint), resolve=True))
            now = {part: config.get(part) for part in (*before, "augmentation")}
            for change in _differences(before, now):
                log.info(f"Changed since the checkpoint's run: {change}")
    return lock


def _has_results(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob("*.ckpt")) or (run_dir / "metrics.json").exists()


def _must_agree(run_dir: Path, changed: Sequence[str], checkpoint: Path | None) -> None:
    if changed:
        raise ValueError(
            f"{run_dir} holds a run with another configuration: {'; '.join(changed)}. To continue with the typed "
            f"configuration, choose another hydra.run.dir{f' and checkpoint={checkpoint}' if checkpoint else ''}"
        )


def _differences(known: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """`changes`, without those that only repeat another: arguments of a data set that refer to a key of `data`."""
    pairs = [change.split(": ", 1) for change in changes(comparable(known), comparable(config))]
    own = {values for key, values in pairs if ".dataset." not in key}
    return [f"{key}: {values}" for key, values in pairs if ".dataset." not in key or values not in own]


def other_data(cfg: DictConfig, checkpoint: Path) -> str:
    """What to type if the checkpoint was trained on other data than `cfg.data`; empty if it was not."""
    own, typed_data = (data_in_words(run.data) for run in (run_config(checkpoint), cfg))
    if own == typed_data:
        return ""
    return f"The checkpoint was trained on {own}. To continue, type the options of its run as well, data=… among them."


def _must_be_newest(run_dir: Path, checkpoint: Path) -> None:
    newest = newest_whole(run_dir / "checkpoints").path
    if newest is not None and whole_step(newest) > whole_step(checkpoint):
        raise ValueError(
            f"{run_dir} holds a newer checkpoint than {checkpoint}: {newest.name} is of step {whole_step(newest)}. To "
            "resume from the earlier one without losing the later, choose another hydra.run.dir."
        )


def changes(known: Any, config: Any, path: str = "") -> Iterator[str]:
    """The differences between two configurations that decide what is learned, as `key: known → new`."""
    if path in HARMLESS or (path.startswith("data.") and path.rpartition(".")[2] in WHERE):
        return
    if path.startswith("callbacks.") and path.count(".") == 1:
        known, config = _decisive(known, typed=config), _decisive(config, typed=config)
    if isinstance(known, Mapping) and isinstance(config, Mapping):
        for key in [*known, *(key for key in config if key not in known)]:
            yield from changes(known.get(key), config.get(key), f"{path}.{key}" if path else str(key))
    elif known != config:
        yield f"{path}: {known} → {config}"


def _decisive(callback: Any, typed: Any) -> Any:
    """The part of a callback's configuration that decides what is learned; None if nothing does.

    Args:
        callback: its configuration, or None.
        typed: the current configuration of the callback of this name. Only this class and the project's own are
            imported, since a run's folder may be a stranger's.
    """
    if not isinstance(callback, Mapping):
        return callback
    target = str(callback.get("_target_"))
    own = target.startswith("depth_lightning.") or (isinstance(typed, Mapping) and target == typed.get("_target_"))
    arguments = getattr(get_object(target), "decisive", None) if own else None
    if arguments is None:
        return callback
    return {name: callback.get(name) for name in ("_target_", *arguments)} if arguments else None

"""What every command does around its work: the run's folder, a single job's arguments, readable errors."""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from depth_lightning.atomic import write_text
from depth_lightning.data.workers import why_died
from depth_lightning.interrupts import EXIT_INTERRUPTED, is_interrupt, leave_at_once, raise_interrupts
from depth_lightning.runs.composing import in_words
from depth_lightning.runs.host_memory import keep_freed_memory
from depth_lightning.runs.outcome import FAILED
from depth_lightning.runs.overrides import typed, typed_words
from depth_lightning.runs.precision import exact_float32
from depth_lightning.settings import SettingError
from depth_lightning.training.saving.signals import EXIT_SAVED, Stopped

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Errors whose message is meant for the user: a wrong value, a missing or damaged file, a missing package.
EXPECTED_ERRORS = (ValueError, OSError, ModuleNotFoundError, OmegaConfBaseException)


def run_job(
    work: Callable[[DictConfig], Result], cfg: DictConfig, kept: Callable[[DictConfig], str] | None = None
) -> Result | None:
    """Do the work of one job in its folder.

    Args:
        work: of the command.
        cfg: of the command.
        kept: after Ctrl-C or a signal, what the work has left behind and how to go on; None for the files in the
            run's folder.

    For an error that the user can fix, only its message is shown, and the exit status is 1. The traceback is in the log
    file of the run, or on the terminal with HYDRA_FULL_ERROR=1. In a sweep, an error ends only its own job, which
    returns None, and `Comparison` reports it when all jobs are done. Ctrl-C ends the whole sweep, with status 130.
    """
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return _run(work, cfg, kept)
    mark = Path(HydraConfig.get().runtime.output_dir) / FAILED
    mark.unlink(missing_ok=True)
    try:
        return _run(work, cfg, kept)
    except Exception as error:
        log.exception("This job of the sweep failed:")
        reason = _in_words(error)
    except SystemExit as end:
        if end.code != 1:  # from a signal, which ends the whole sweep
            raise
        reason = _in_words(end.__cause__)
    write_text(mark, f"{reason}\n")
    return None


def _run(work: Callable[[DictConfig], Result], cfg: DictConfig, kept: Callable[[DictConfig], str] | None) -> Result:
    started = time.time()
    cfg.run_dir = str(Path(HydraConfig.get().runtime.output_dir).absolute())
    environment = dict(os.environ)
    _single_job_arguments(cfg.run_dir)
    quiet()
    keep_freed_memory()
    exact_float32()
    _listen()
    raise_interrupts()
    try:
        _check_run_dir()
        _must_share_folder()
        return work(cfg)
    except SIGTERMException:  # Lightning's, whose own exit status would be 0
        rank_zero_only(log.error)("Stopped by SIGTERM before completion. To do it again, repeat the command.")
        sys.exit(0 if _is_started_by_another() else EXIT_SAVED)
    except Stopped:
        if kept and not _is_started_by_another():
            log.info(kept(cfg))
        raise
    except BaseException as error:
        if is_interrupt(error):
            leave_at_once()  # at another Ctrl-C
            rank_zero_only(log.error)(f"Interrupted{_rest()}. {kept(cfg) if kept else _files(cfg.run_dir, started)}")
            sys.exit(0 if _is_started_by_another() else EXIT_INTERRUPTED)
        expected = isinstance(error, EXPECTED_ERRORS) or why_died(error) is not None
        if not expected or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        log.debug("traceback", exc_info=True)
        log.error(_in_words(error))
        log.info(f"The traceback is in {cfg.run_dir}/{HydraConfig.get().job.name}.log")
        raise SystemExit(1) from error
    finally:
        _leave_processes(environment)


def _is_started_by_another() -> bool:
    """Whether another process started this one for DDP, and would take any status but 0 for a failure."""
    return bool(getattr(rank_zero_only, "rank", 0))


def _files(run_dir: str, since: float) -> str:
    """The files that an interrupted command has written into its folder; `since` is the time when it started."""
    written = [path for path in Path(run_dir).glob("[!.]*") if path.suffix != ".log" and path.stat().st_mtime >= since]
    if not written:
        return "Nothing was written. To do it again, repeat the command."
    names = ", ".join(sorted(path.name for path in written))
    return f"Complete in {run_dir}: {names}. For the rest, repeat the command."


def _rest() -> str:
    """What a sweep leaves behind."""
    hydra = HydraConfig.get()
    return f", and with it the sweep in {hydra.sweep.dir}" if hydra.mode == RunMode.MULTIRUN else ""


def _listen() -> None:
    """Handle SLURM's warning before the time limit outside of training too, with the exit status that requeues the job.

    The handler also keeps Lightning from installing its own, which saves a checkpoint at an arbitrary moment.
    """
    if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():  # Windows has none
        signal.signal(signal.SIGUSR1, _leave)


def _leave(number: int, frame: object) -> NoReturn:
    rank_zero_only(log.error)("Stopped by SIGUSR1 before completion. To do it again, repeat the command.")
    sys.exit(EXIT_SAVED)


def _leave_processes(environment: Mapping[str, str]) -> None:
    """Undo what DDP left in this process, so that the next job of a sweep does not inherit it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(environment)


def _single_job_arguments(run_dir: str) -> None:
    """Under --multirun, make this process look like a single run of this job.

    Lightning starts the other DDP processes by running sys.argv again, in hydra.run.dir: they must join this job and
    not start the sweep again. To W&B, the sweep is the group of the runs.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return
    os.environ.setdefault("WANDB_RUN_GROUP", Path(hydra.sweep.dir).resolve().name)
    command = [word for word in sys.argv[1:2] if word.replace("-", "_") == hydra.job.config_name]
    sys.argv = [
        sys.argv[0],
        *command,
        *typed_words(),
        "hydra.mode=RUN",
    ]  # a search's configuration says MULTIRUN
    with read_write(hydra):  # type: ignore[arg-type]
        hydra.run.dir = run_dir


def _check_run_dir() -> None:
    """Check that the run's folder was set by its own key.

    Raises:
        SettingError: run_dir was typed.
    """
    if "run_dir" in typed(typed_words()):
        raise SettingError("run_dir", "follows hydra.run.dir. Type hydra.run.dir=… instead.")


def _must_share_folder() -> None:
    """Check that all processes started by torchrun or srun, which compose their own configuration, share one folder.

    Raises:
        ValueError: its name contains the time, which differs between processes.
    """
    processes = os.environ.get("WORLD_SIZE") or (os.environ.get("SLURM_NTASKS") if "SLURM_PROCID" in os.environ else 1)
    if "SUBMITIT_EXECUTOR" in os.environ or int(processes or 1) == 1:
        return
    hydra = HydraConfig.get()
    key = "run" if hydra.mode == RunMode.RUN else "sweep"
    folder = OmegaConf.to_container(hydra, resolve=False)[key]["dir"]  # type: ignore[call-overload,index]
    if "${now:" in str(folder):
        raise ValueError(
            f"{processes} processes were started, and each would name the folder after its own time. "
            f"Give all of them one: hydra.{key}.dir=outputs/{hydra.job.name}/<a name>"
        )


def quiet() -> None:
    """Silence Lightning's messages about things that are intended; other warnings stay, once each."""
    logging.raiseExceptions = False  # for a log file on a full disk: messages still reach the terminal
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    for message in (
        ".*does not have many workers.*",
        ".*You requested to overfit but enabled .* dataloader shuffling.*",
        ".*exists and is not empty.*",
        ".*Found .* module.s. in eval mode at the start of training.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*isinstance.treespec, LeafSpec.. is deprecated.*",
        ".*srun. command is available.*",
        ".*FSDP2-wrapped module .* returned a view tensor.*",  # the network never modifies it in place
    ):
        warnings.filterwarnings("ignore", message)


def _in_words(error: BaseException | None) -> str:
    """The error in words, without the traceback that a data loader's worker prepends."""
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return f"{error.full_key} is missing: it cannot be left out."
    if isinstance(error, OmegaConfBaseException):
        referring = "" if error.full_key else "".join(f"{word}: " for word in typed_words() if "${" in word)
        return f"{referring}{in_words(error)}"
    if error is not None and (reason := why_died(error)) is not None:
        return reason
    text = str(error)
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1].rpartition(f"{type(error).__name__}: ")[2]  # its module stands before it
    return f"{type(error).__name__}: {text}" if error else "see the job's log"

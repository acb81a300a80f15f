"""What happens around the jobs that Hydra starts: a check of their folder, and the table at the end of a sweep."""

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from depth_lightning.atomic import explained
from depth_lightning.interrupts import raise_interrupts
from depth_lightning.settings import SettingError, printable, text

log = logging.getLogger(__name__)


class NamedFolder(Callback):
    """Checks the folder of a run or a sweep before Hydra writes into it. Exit status 1 if it cannot be written."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check hydra.run.dir."""
        _check_folder("hydra.run.dir", config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check hydra.sweep.dir, and that the jobs do not share it."""
        subdir = OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[index,call-overload]
        _check_text("hydra.sweep.subdir", subdir)
        _check_folder("hydra.sweep.dir", config.hydra.sweep.dir)


def _check_text(key: str, value: Any) -> None:
    try:
        text(key, value, "a path")
    except SettingError as error:
        sys.exit(f"SettingError: {error}")  # Hydra would only warn of an exception


def _check_folder(key: str, value: Any) -> None:
    _check_text(key, value)
    if printable(value) != value:
        sys.exit(f"SettingError: {key} is a path in UTF-8, found '{printable(value)}'. Choose another, or rename it.")
    folder = Path(value)
    try:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(32_768))  # at least what Hydra writes
    except OSError as error:
        sys.exit(f"OSError: {key}={error.strerror or error}")


class Comparison(Callback):
    """Compares the jobs of a sweep when all are done."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the time, since a reused sweep folder holds older results."""
        raise_interrupts()
        self.started = time.time()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table, and write comparison.csv into the sweep's folder.

        A resumed study is shown completely. The exit status is 1 if a job failed this time.
        """
        from depth_lightning.runs.jobs import rank_jobs, read_jobs, report_jobs  # imports torch, only needed now

        folder = Path(config.hydra.sweep.dir)
        of_study = bool(OmegaConf.select(config, "hydra.sweeper.storage"))
        jobs = read_jobs(folder, 0.0 if of_study else self.started)
        if jobs:
            report_jobs(jobs, folder)
            rank_jobs(jobs, folder, folder)
        failed = [job.name for job in read_jobs(folder, self.started) if job.failed]
        if failed:
            log.error(f"{len(failed)} of the jobs failed: {', '.join(failed)}")
            sys.exit(1)

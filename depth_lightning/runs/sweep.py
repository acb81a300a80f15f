"""The table of all jobs at the end of a sweep of train.py or evaluate.py."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from depth_lightning.interrupts import raise_interrupts

log = logging.getLogger(__name__)


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

"""Variants of Lightning's loggers, and pictures and tables for loggers that accept them."""

import csv
import logging
import netrc
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from depth_lightning.atomic import atomically, explained, write_text
from depth_lightning.data.reading import reading
from depth_lightning.reporting.panels import stack_panels
from depth_lightning.reporting.tables import number
from depth_lightning.settings import boolean, optional, text

log = logging.getLogger(__name__)

WANDB_ID: Final = "wandb_id.txt"
"""File in a run's folder with the id of its W&B run."""


class MetricsFile(CSVLogger):
    """A run's metrics.csv, complete at any time, to which a resumed run appends."""

    @property
    @rank_zero_experiment
    def experiment(self) -> "_Rows":
        """The writer, created on first use."""
        if self._experiment is None:
            self._experiment = _Rows(self.log_dir)
        assert isinstance(self._experiment, _Rows)
        return self._experiment

    @property
    def rows(self) -> int:
        """The number of rows, in the first process."""
        return len(self.experiment.rows) + len(self.experiment.metrics)

    @rank_zero_only
    def keep(self, rows: int) -> None:
        """Continue after the first `rows` rows of an existing file; the resumed run writes the later ones again."""
        path = Path(self.experiment.metrics_file_path)
        if path.is_file():
            with (
                reading(path, "a metrics.csv of train.py", "Move it away."),
                path.open(newline="", encoding="utf-8") as file,
            ):
                self.experiment.rows = list(csv.DictReader(file))[:rows]


class _Rows(ExperimentWriter):
    """Lightning's writer, without deleting an existing file or rewriting it in place."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.rows: list[Mapping[str, Any]] = []
        self._columns: list[str] = []
        """The columns of the file, once it is written."""

    def _check_log_dir_exists(self) -> None:
        pass

    def save(self) -> None:
        """Append the new rows; if they add a column, rewrite the file."""
        if not self.metrics:
            return
        new, self.metrics = self.metrics, []
        self.rows += new
        path = Path(self.metrics_file_path)
        if self._columns and set(self._columns).issuperset(set().union(*new)):
            with explained(path), path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(new)
            return
        self._columns = sorted(set().union(*self.rows))
        with atomically(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)


class WandbRun(WandbLogger):
    """A W&B run of its own, which a resumed training in the same folder continues: its id is kept there."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, started or continued on first use."""
        if self._experiment is None and self._wandb_init["id"] is None:
            self._wandb_init["id"] = self._id = _kept_id(Path(str(self.save_dir)) / WANDB_ID)
        return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the run, so that the next training in this process begins another."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)


def _kept_id(path: Path) -> str:
    if path.is_file() and (kept := path.read_text(encoding="utf-8").strip()):
        return kept
    chosen = secrets.token_hex(4)
    write_text(path, f"{chosen}\n")
    return chosen


def wandb_logger(save_dir: str | Path, offline: bool | None = None, **arguments: Any) -> WandbRun:
    """Weights & Biases; offline without an account, unless `offline` says otherwise.

    Args:
        save_dir: folder of the run's files, which go into its subfolder wandb/.
        offline: None decides by WANDB_MODE, WANDB_API_KEY and a login.
        **arguments: of Lightning's WandbLogger.

    Raises:
        SettingError: `save_dir` is no path, or `offline` neither true, false nor None.
        ModuleNotFoundError: wandb is not installed.
    """
    save_dir = text("save_dir", save_dir, "a path")
    optional("offline", offline, boolean)
    if offline is None:
        offline = "WANDB_MODE" not in os.environ and not _has_wandb_account()
        if offline:
            log.warning(
                "logger=wandb: no account found (`wandb login` or WANDB_API_KEY), so this run is recorded offline. "
                "`wandb sync` uploads it later."
            )
    return WandbRun(save_dir=save_dir, offline=offline, **arguments)


def resume_logs(loggers: Sequence[Logger], rows: int, step: int) -> None:
    """Make the loggers continue where a run resumes, and forget what was logged later: the run logs it again.

    W&B cannot forget; its chart shows what was logged twice.

    Args:
        loggers: of the first process.
        rows: number of rows of metrics.csv that were written before.
        step: of the run.
    """
    for logger in loggers:
        if isinstance(logger, MetricsFile):
            logger.keep(rows)
        elif isinstance(logger, TensorBoardLogger):
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog

            # Later than this step, which may have pictures of its validation.
            start = Event(session_log=SessionLog(status=SessionLog.START))
            logger.experiment.file_writer.add_event(start, step + 1)


def log_image(logger: Logger, name: str, image: np.ndarray, step: int) -> None:
    """Log an (h, w, 3) uint8 RGB picture; loggers that do not support pictures are skipped."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, step, dataformats="HWC")
    elif hasattr(logger, "log_image"):
        logger.log_image(name, [image], step=step)


def log_table(
    logger: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float | np.ndarray]], step: int
) -> None:
    """Log a table; loggers that do not support tables are skipped.

    Args:
        logger: Weights & Biases shows pictures in the cells; TensorBoard shows them separately, stacked.
        name: of the table.
        columns: names of the columns.
        rows: a cell is a text, a number, or an (h, w, 3) uint8 RGB picture.
        step: of the run.
    """
    if isinstance(logger, TensorBoardLogger):
        pictures = [cell for row in rows for cell in row if isinstance(cell, np.ndarray)]
        if pictures:
            log_image(logger, name, stack_panels(pictures), step)
        logger.experiment.add_text(name, _markdown(columns, rows), step)
    elif hasattr(logger, "log_table"):
        import wandb

        cells = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in rows]
        logger.log_table(name, columns=list(columns), data=cells, step=step)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str | float | np.ndarray]]) -> str:
    """The table without its pictures."""
    kept = [column for column in range(len(columns)) if not any(isinstance(row[column], np.ndarray) for row in rows)]

    def line(cells: Sequence[object]) -> str:
        shown = [number(cell) if isinstance(cell, float) else str(cell) for cell in (cells[column] for column in kept)]
        return f"| {' | '.join(cell.replace('|', '¦') for cell in shown)} |"

    return "\n".join([line(columns), "|---" * len(kept) + "|", *map(line, rows)])


def _has_wandb_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)

"""The report page of an evaluation, with the run, versions and command behind its numbers."""

import csv
import logging
import platform
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from depth_lightning.evaluation.summary import Summary
from depth_lightning.metrics import Protocol
from depth_lightning.reporting.page import PageContent, PageImage, write_page
from depth_lightning.reporting.result import EvaluationResult
from depth_lightning.version import version
from depth_lightning.wording import file_size

log = logging.getLogger(__name__)

PACKAGES = ("torch", "lightning", "timm", "torchmetrics", "numpy", "cv2")


def report_page(
    path: Path,
    title: str,
    summary: Summary,
    result: EvaluationResult,
    protocol: Protocol,
    images: Sequence[PageImage],
    run_dir: Path,
    config: str,
    command: Sequence[str],
) -> None:
    """Write the report page of an evaluation.

    Args:
        path: of the page.
        title: the title above the table.
        summary: of `result`.
        result: the numbers.
        protocol: the protocol of the numbers.
        images: of all processes.
        run_dir: of the training run, whose metrics.csv provides the curves; any other folder provides none.
        config: resolved, as YAML.
        command: the command line, split into words.
    """
    content = PageContent(
        title=title,
        result=result,
        protocol=protocol,
        columns=summary.columns,
        notes=summary.notes,
        curves=_curves(run_dir),
        config=config,
        versions=_versions(),
        command=shlex.join(command),
    )
    write_page(path, content, images)
    log.info(f"Page: {path} ({file_size(path.stat().st_size)})")


def _curves(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv; none if there is no such file, or if another program wrote it."""
    path = run / "metrics.csv"
    if not (path.is_file() and (run / "config.yaml").is_file()):
        return []
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        for row in rows:
            _ = [float(value) for value in (row["step"], *row.values()) if value]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        log.warning(f"The report has no curves: {path} is not a metrics.csv of train.py ({error!r}).")
        return []
    return rows


def _versions() -> dict[str, str]:
    # Not importlib.metadata, which does not know which of OpenCV's distributions is installed.
    versions = {"python": platform.python_version(), "depth_lightning": version()}
    versions |= {name: import_module(name).__version__ for name in PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {**versions, "device": device}

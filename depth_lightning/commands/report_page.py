"""The page of an evaluation, `report.html` in its folder: what it says of the run beside the numbers."""

import csv
import importlib.metadata
import logging
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import depth_lightning
from depth_lightning.commands import objects
from depth_lightning.metrics import Protocol
from depth_lightning.reporting.page import PageContent, write_page
from depth_lightning.reporting.page.images import PageImage
from depth_lightning.reporting.result import EvaluationResult

log = logging.getLogger(__name__)

PACKAGES = ("depth-lightning", "torch", "lightning", "timm", "torchmetrics", "numpy", "opencv-python-headless")


def report_page(
    cfg: DictConfig,
    result: EvaluationResult,
    protocol: Protocol,
    title: str,
    table: tuple[Mapping[str, Mapping[str, float]], Sequence[str]],
    images: Sequence[PageImage],
    command: Sequence[str],
) -> None:
    """Write report.html into the run's folder.

    Args:
        cfg: with the run's folder, and `checkpoint`, above whose folder the curves of its run lie.
        result: what was found.
        protocol: how.
        title: as above the table.
        table: its columns and the notes below it.
        images: of all processes.
        command: the words that were typed.
    """
    columns, notes = table
    content = PageContent(
        title=title,
        result=result,
        protocol=protocol,
        columns=columns,
        notes=notes,
        curves=_curves(Path(cfg.checkpoint).absolute().parents[1] if cfg.checkpoint else Path(cfg.run_dir)),
        config=OmegaConf.to_yaml(OmegaConf.create(objects.plain(cfg))),
        versions=_versions(),
        command=shlex.join(command),
    )
    path = Path(cfg.run_dir) / "report.html"
    write_page(path, content, images)
    log.info(f"Page: {path} ({path.stat().st_size / 1e6:.0f} MB)")


def _curves(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, if there is one."""
    if not (run / "metrics.csv").is_file():
        return []
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    source = Path(depth_lightning.__file__).parents[1]
    if (source / ".git").exists():  # not where it is installed into an environment that lies in another repository
        words = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(words, capture_output=True, text=True).stdout.strip()
        found["depth-lightning"] += f" ({commit})" if commit else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {**found, "device": device}

"""Examine every split of a data set before anyone trains on it: `depth-lightning doctor data=…`."""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from omegaconf import DictConfig
from rich.progress import Progress
from torch.utils.data import Dataset

from depth_lightning.data.diagnosis import Facts, Unreadable, Verdict, examine, judge, judge_splits, summarise
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.data.workers import Loader
from depth_lightning.reporting.doctor_page import SIGNS, SplitPage, draw_sample, summary_rows, write_page
from depth_lightning.reporting.tables import print_rows, write_json
from depth_lightning.runs import objects
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.program import program
from depth_lightning.sample import DepthDataset
from depth_lightning.wording import counted

log = logging.getLogger(__name__)

FOUND = 2
"""Exit status if something looks wrong."""


def run(cfg: DictConfig) -> None:
    """The entry point."""
    if run_job(diagnose, cfg):
        sys.exit(FOUND)


def diagnose(cfg: DictConfig) -> int:
    """Examine `cfg.data` and write a report into `cfg.run_dir`; the parts of a mixture are examined separately.

    Returns:
        The number of checks that found something wrong.

    Raises:
        ValueError: the data set has no depth maps.
    """
    check(cfg, "doctor")
    objects.require_depth_maps(cfg.data)
    configs = dict(cfg.data.parts.items()) if "parts" in cfg.data else {"": cfg.data}
    run_dir = Path(cfg.run_dir)
    found = 0
    for name, config in configs.items():
        open_split = objects.dataset_of(config, f"data.parts.{name}" if name else "data")
        sources = {split: open_split(split=split) for split in ("train", "val")}
        measured = {split: _measure(source, f"{name} {split}".strip(), cfg) for split, source in sources.items()}
        across = judge_splits(measured)
        pages = {
            split: _page(sources[split], facts, across if split == "val" else (), cfg.pictures)
            for split, facts in measured.items()
        }
        title = f"{name or config.dataset._target_.rsplit('.', 1)[-1]} {cfg.data.get('root') or ''}".strip()
        stem = f"doctor_{name}" if name else "doctor"
        write_page(run_dir / f"{stem}.html", title, pages, across)
        write_json(run_dir / f"{stem}.json", _report(pages, across))
        found += _print(title, pages, across, f"Written: {run_dir}/{stem}.html, {stem}.json")
    return found


class _Examination(Dataset[Facts | Unreadable]):
    def __init__(self, source: DepthDataset, indices: Sequence[int], detailed: set[int], focal: float | None) -> None:
        self.source, self.indices, self.detailed, self.focal = source, indices, detailed, focal

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Facts | Unreadable:
        index = self.indices[number]
        return examine(self.source, index, index in self.detailed, self.focal)


def _measure(source: DepthDataset, name: str, cfg: DictConfig) -> list[Facts | Unreadable]:
    """Measurements of the selected samples, in order, by `data.num_workers` processes."""
    indices = evenly_spread(range(len(source)), cfg.images)
    focal = 0.5 / math.tan(math.radians(cfg.fov_deg) / 2) if cfg.fov_deg else None
    examination = _Examination(source, indices, set(evenly_spread(indices, cfg.detailed)), focal)
    workers = objects.worker_count(cfg.data.num_workers)
    if workers:
        cv2.setNumThreads(1)  # otherwise each worker would start one thread per core
    loader: Loader[Facts | Unreadable] = Loader(
        examination, batch_size=None, num_workers=workers, collate_fn=_unchanged
    )
    log.info(f"Reading {name}: {len(indices):,} of {counted(len(source), 'sample')}")
    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        return list(progress.track(loader, len(indices), description=f"Reading {name}"))


def _unchanged(examined: Any) -> Any:
    return examined


def _page(
    source: DepthDataset, measured: Sequence[Facts | Unreadable], across: Sequence[Verdict], pictures: int
) -> SplitPage:
    verdicts = judge(measured)
    readable = [facts.number for facts in measured if isinstance(facts, Facts)]
    captions = dict.fromkeys(evenly_spread(readable, pictures), "")
    for verdict in (*verdicts, *across):
        if verdict.state == "found":
            captions |= dict.fromkeys(verdict.pictures[:3], f"{verdict.check}: {verdict.evidence}")
    read = getattr(source, "read", source.__getitem__)
    drawn = []
    for index, caption in captions.items():
        sample = read(index)
        drawn.append((f"{sample.id}{' – ' if caption else ''}{caption}", draw_sample(sample)))
    return SplitPage(summarise(measured), verdicts, drawn)


def _print(title: str, pages: Mapping[str, SplitPage], across: Sequence[Verdict], written: str) -> int:
    """Print the results, and return the number of checks that found something."""
    header = {"": False, **dict.fromkeys(pages, False)}
    print_rows(title, header, [summary_rows({name: page.summary for name, page in pages.items()})])
    groups = {**{name: page.verdicts for name, page in pages.items()}, "train, val": across}
    rows = [
        [[split, SIGNS[verdict.state], verdict.check, _in_words(verdict)] for verdict in verdicts]
        for split, verdicts in groups.items()
    ]
    found = sum(verdict.state == "found" for verdicts in groups.values() for verdict in verdicts)
    end = f"{found} of these checks found something." if found else "Nothing looks wrong."
    print_rows("Checks", dict.fromkeys(("split", "", "check", "evidence"), False), rows, [end, written])
    return found


def _in_words(verdict: Verdict) -> str:
    if verdict.state != "found":
        return verdict.evidence
    examples = f" ({', '.join(verdict.examples[:3])}{', …' if len(verdict.examples) > 3 else ''})"
    return f"{verdict.evidence}. {verdict.advice}{examples if verdict.examples else ''}"


def _report(pages: Mapping[str, SplitPage], across: Sequence[Verdict]) -> dict[str, Any]:
    fields = ("check", "state", "evidence", "advice", "examples")

    def plain(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
        return [{field: getattr(verdict, field) for field in fields} for verdict in verdicts]

    return {
        "found": sum(verdict.state == "found" for page in pages.values() for verdict in page.verdicts)
        + sum(verdict.state == "found" for verdict in across),
        "splits": {
            name: {
                "summary": {**page.summary._asdict(), "histogram": page.summary.histogram.tolist()},
                "checks": plain(page.verdicts),
            }
            for name, page in pages.items()
        },
        "across": plain(across),
    }


if __name__ == "__main__":
    program("doctor")

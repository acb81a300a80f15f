"""The jobs of a sweep in one table, grouped by protocol and data, and a ranking of each group."""

import logging
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf

from depth_lightning.data.reading import reading
from depth_lightning.evaluation.evaluated_run import check_comparable, read_run
from depth_lightning.evaluation.metrics_file import read_metrics
from depth_lightning.evaluation.ranking import report_ranking
from depth_lightning.metrics import Protocol
from depth_lightning.reporting.tables import number, print_rows, recorded_directions, with_arrow, write_rows
from depth_lightning.runs.outcome import FAILED, pruned_at, why_failed
from depth_lightning.runs.overrides import typed

log = logging.getLogger(__name__)

HEADLINE = ("abs_rel", "delta1", "rmse", "affine_error", "ordinal_error", "accuracy")


class Job(NamedTuple):
    """One job of a sweep."""

    name: str
    overrides: dict[str, str]
    """Key → value, as typed or swept."""
    content: dict[str, Any]
    """The content of its metrics.json; empty if it failed."""
    status: str = ""
    """Empty, or at which step it was pruned, or why it failed."""

    @property
    def failed(self) -> bool:
        """Whether it has no result."""
        return not self.content

    @property
    def protocol(self) -> str:
        """The hash of its protocol; empty if it has none, as for point pairs."""
        return str(self.content.get("protocol", {}).get("hash", ""))

    @property
    def data(self) -> str:
        """The data that it was scored on."""
        return str(self.content.get("data", ""))


def compare_sweep(folder: Path, metric: str | None = None, output: Path | None = None) -> None:
    """Report the table and the rankings of a finished sweep.

    Raises:
        FileNotFoundError: the folder holds no jobs.
    """
    jobs = [job for job in read_jobs(folder) if job.name != "."]
    done = sum(not job.failed for job in jobs)
    if done < 2:
        raise FileNotFoundError(f"{folder} holds {done} evaluations. Give two folders, or the folder of a sweep.")
    output = output or folder
    report_jobs(jobs, output)
    rank_jobs(jobs, folder, output, metric)


def read_jobs(folder: Path, since: float = 0.0) -> list[Job]:
    """The jobs below a sweep's folder that wrote a metrics.json or failed, in the order of their numbers.

    Args:
        folder: of the sweep.
        since: in seconds, as time.time(); results written earlier are ignored.
    """
    jobs = []
    for path in (*folder.rglob("metrics.json"), *folder.rglob(FAILED)):
        failed = path.name == FAILED
        if path.stat().st_mtime < since - 1 or (not failed and path.with_name(FAILED).exists()):  # file systems round
            continue
        written = path.with_name(".hydra") / "overrides.yaml"
        overrides = _overrides(written) if written.is_file() else {}
        jobs.append(
            Job(
                path.parent.relative_to(folder).as_posix(),
                {key: value for key, value in overrides.items() if value is not None},
                {} if failed else read_metrics(path),
                _status(path.parent),
            )
        )
    return sorted(jobs, key=lambda job: (len(job.name), job.name))


def _overrides(path: Path) -> dict[str, str | None]:
    with reading(path, "the overrides of a job", "Remove this job's folder."):
        words = cast(list[Any], OmegaConf.to_container(OmegaConf.load(path), resolve=False))
        return typed([str(word) for word in words])


def _status(run: Path) -> str:
    if (reason := why_failed(run)) is not None:
        return f"failed: {reason}"
    step = pruned_at(run)
    return "" if step is None else f"pruned at step {step}"


def report_jobs(jobs: Sequence[Job], folder: Path) -> None:
    """Print one row per job, grouped by protocol and data, and write comparison.csv."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    varied = [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]
    shown = {key: _brief([job.overrides.get(key, "") for job in jobs]) for key in varied}
    done = [job for job in jobs if not job.failed]
    if len({job.data for job in done}) > 1:
        shown["scored on"] = shortened([job.data for job in jobs])
    if any(job.status for job in jobs):
        shown["ended"] = [job.status[:60] for job in jobs]
    metrics = [name for name in HEADLINE if any(name in job.content["metrics"] for job in done)]
    groups: dict[tuple[str, str], list[list[str]]] = {}
    words: dict[str, str] = {}
    for index, job in enumerate(jobs):
        row = [
            job.name,
            *(values[index] for values in shown.values()),
            job.protocol,
            str(job.content.get("images", "")),
        ]
        row += [number(job.content["metrics"].get(name)) if job.content else "" for name in metrics]
        groups.setdefault((job.protocol, job.data), []).append(row)
        if job.protocol:
            fields = {key: value for key, value in job.content["protocol"].items() if key != "hash"}
            words[job.protocol] = f"Protocol {job.protocol}: {Protocol(**fields)}."
    header = {"job": False, **dict.fromkeys(shown, False), "hash": False, "images": True}
    higher_is_better = recorded_directions(*(job.content for job in done))
    header |= {with_arrow(name, higher_is_better[name]): True for name in metrics}
    notes = list(words.values())
    if len({(job.protocol, job.data) for job in done}) > 1:
        notes.append("Numbers across a line are not comparable: the protocol or the data differs.")
    write_rows(folder / "comparison.csv", [_flat(job, keys) for job in jobs])
    print_rows("All jobs of this sweep", header, list(groups.values()), [*notes, f"Written: {folder}/comparison.csv"])


def rank_jobs(jobs: Sequence[Job], folder: Path, output: Path, metric: str | None = None) -> None:
    """Rank the jobs that share protocol and data, by the errors of every image that each of them recorded."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        if (folder / job.name / "per_image.parquet").is_file():
            groups.setdefault((job.protocol, job.data), []).append(job)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    protocols = [protocol for protocol, _ in groups]
    for index, (protocol, group) in enumerate(zip(protocols, groups.values(), strict=True)):
        runs = [read_run(folder / job.name, name) for job, name in zip(group, _names(group), strict=True)]
        try:
            for run in runs[1:]:
                check_comparable(runs[0], run)
        except ValueError as error:
            log.warning(f"No ranking: {error}")
            continue
        of_group = protocol if protocols.count(protocol) == 1 else index + 1
        report_ranking(runs, metric, output, "ranking" if len(groups) == 1 else f"ranking_{of_group}")


def _names(jobs: Sequence[Job]) -> list[str]:
    """Each job's number, with the settings that vary among these jobs."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    varied = {key: values for key in keys if len(set(values := [job.overrides.get(key, "") for job in jobs])) > 1}
    words = [_brief(values) for values in varied.values()]
    return [
        " ".join(
            [
                job.name,
                *(f"{key.rsplit('.', 1)[-1]}={values[index]}" for key, values in zip(varied, words, strict=True)),
            ]
        )
        for index, job in enumerate(jobs)
    ]


def _brief(values: Sequence[str]) -> list[str]:
    """Like `shortened`; numbers are rounded to four digits if that keeps them distinct."""
    words = shortened(values)
    try:
        rounded = [f"{float(word):.4g}" for word in words]
    except ValueError:
        return words
    return rounded if len(set(rounded)) == len(set(words)) else words


def shortened(values: Sequence[str]) -> list[str]:
    """Paths without their common leading folders and their common ending."""
    parts = [value.split("/") for value in values]
    parts = [names[_common([names[:-1] for names in parts]) :] for names in parts]
    kept = _common([names[:0:-1] for names in parts])
    return ["/".join(names[: len(names) - kept]) for names in parts]


def _common(lists: Sequence[Sequence[str]]) -> int:
    """The length of the longest common prefix."""
    return sum(1 for _ in takewhile(lambda items: len(set(items)) == 1, zip(*lists, strict=False)))


def _flat(job: Job, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "job": job.name,
        "ended": job.status,
        "protocol_hash": job.protocol,
        "scored_on": job.data,
        **{key: job.overrides.get(key, "") for key in keys},
        **{key: job.content.get(key) for key in ("checkpoint", "weights", "images")},
        **job.content.get("metrics", {}),
    }

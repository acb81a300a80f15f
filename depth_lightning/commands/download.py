"""Fetch a data set by its name, verify and unpack it: `depth-lightning download nyu_labelled output=…`."""

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import get_method
from omegaconf import DictConfig

from depth_lightning.atomic import explained, write_text
from depth_lightning.data.archives import is_archive, unpack
from depth_lightning.data.fetching import RemoteFile, ask_length, check_space, fetch, free_bytes, received
from depth_lightning.data.reading import naming, read_text
from depth_lightning.invocation import command_line
from depth_lightning.runs import objects
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.program import program
from depth_lightning.settings import SettingError, one_of, optional, several
from depth_lightning.wording import counted, file_size

log = logging.getLogger(__name__)

RECORD = "download.json"
"""File in the output: what is complete, from where, under which licence."""


class _Wanted(NamedTuple):
    file: RemoteFile
    unpacked_bytes: int | None
    """Size of its content, where declared."""
    only: Sequence[str]
    """Patterns of the files to unpack; empty for all."""


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(download, cfg)


def download(cfg: DictConfig) -> None:
    """Fetch what `cfg.download` lists and `cfg.output` does not hold yet. Archives are unpacked and then deleted.

    Raises:
        OSError: a server does not deliver, or the disk is too small.
        ValueError: a file is not the declared one, or is an archive that is not safe to unpack.
    """
    check(cfg, "download")
    if "download" not in cfg:
        raise SettingError("download", "is missing. Type the name of a data set, such as oakd; --help lists them.")
    about, output = objects.plain(cfg.download), Path(cfg.output).expanduser()
    files = about["files"]
    what = f"a list of names among {', '.join(files)}, or null for all"
    parts = optional("parts", cfg.parts, partial(several, count=None, what=what, check=partial(one_of, choices=files)))
    log.info(f"{about['title']}: {about['page']}")
    log.info(f"Licence: {about['licence']}. Please cite: {about['citation']}")
    if about.get("note"):
        log.info(f"Note: {about['note']}")
    prepare = get_method(about["prepare"]) if about.get("prepare") else None
    record = _Record(output / RECORD, about)
    wanted = [each for part in parts or files for each in _files(part, files[part]) if not record.has(each.file)]
    if wanted:
        wanted = _with_lengths(wanted)
        _check_disk(wanted, output)
    with explained(output):
        output.mkdir(parents=True, exist_ok=True)
    for number, (file, _, only) in enumerate(wanted, start=1):
        log.info(f"{number} of {len(wanted)}: {file.url}")
        path = fetch(file, output)
        if file.hash is None:
            verified = "not verified" if file.bytes is None else "only its length is verified"
            log.info(f"{file.name}: no checksum is known, {verified}.")
        if is_archive(file.name):
            log.info(f"{file.name}: {counted(unpack(path, output, only), 'file')} unpacked.")
            path.unlink()
        record.add(file)
    if prepare:
        prepare(output)
    log.info(f"{output} is complete. Next: {command_line(about['next'].replace('{output}', str(output)))}")


def _files(part: str, entry: Mapping[str, Any]) -> list[_Wanted]:
    """The files of a part: a single one, or one for each of its `names`."""
    names = entry.get("names") or {"": entry.get("hash")}
    unpacked = entry.get("unpacked_bytes")
    found = []
    for name, hash in names.items():
        url = entry["url"].replace("{name}", name) if name else entry["url"]
        try:
            file = RemoteFile(url, entry.get("file"), entry.get("bytes"), hash)
        except SettingError as error:
            key = f"names.{name}" if error.name == "hash" and name else error.name
            raise SettingError(f"download.files.{part}.{key}", error.problem) from error
        found.append(_Wanted(file, unpacked and unpacked // len(names), entry.get("only") or ()))
    return found


def _with_lengths(wanted: Sequence[_Wanted]) -> list[_Wanted]:
    with ThreadPoolExecutor(8) as threads:
        files = threads.map(ask_length, [each.file for each in wanted])
        return [each._replace(file=file) for each, file in zip(wanted, files, strict=True)]


def _check_disk(wanted: Sequence[_Wanted], output: Path) -> None:
    """Log what will be downloaded and how much disk it takes, and refuse if there is less."""
    lengths = [each.file.bytes or 0 for each in wanted]
    content = sum(each.unpacked_bytes or length for each, length in zip(wanted, lengths, strict=True))
    archives = [length for each, length in zip(wanted, lengths, strict=True) if is_archive(each.file.name)]
    peak = content + max(archives, default=0)  # one archive at a time lies beside its content
    there = sum(received(each.file, output) for each in wanted)
    unknown = sum(each.file.bytes is None for each in wanted)
    log.info(
        f"To download: {file_size(sum(lengths) - there)} in {counted(len(wanted), 'file')}"
        f"{f', {unknown} of unknown length' if unknown else ''}. On the disk: about {file_size(content)}"
        f"{f', and {file_size(peak)} while unpacking' if archives else ''}; {file_size(free_bytes(output))} are free."
    )
    check_space(output, peak - there, "the data set")


class _Record:
    """The files that are complete, in `RECORD`."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.title = path, about["title"]
        with naming(path, "a record of downloads", "Delete it."):
            self.sets: dict[str, Any] = json.loads(read_text(path)) if path.exists() else {}
            own = {key: about[key] for key in ("page", "licence", "citation")}
            self.files: dict[str, Any] = self.sets.get(self.title, {}).get("files", {})
            self.sets[self.title] = {**own, "files": self.files}

    def has(self, file: RemoteFile) -> bool:
        """Whether a file is complete: an archive that was unpacked, or a file that is still there."""
        return file.url in self.files and (is_archive(file.name) or (self.path.parent / file.name).exists())

    def add(self, file: RemoteFile) -> None:
        """List a file as complete."""
        self.files[file.url] = {"bytes": file.bytes, "hash": file.hash}
        write_text(self.path, json.dumps(self.sets, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    program("download")

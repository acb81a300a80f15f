"""Checkpoints on disk: written aside and renamed, so a file under its final name is complete; checked when read."""

import io
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from depth_lightning.atomic import atomically, flush, write_bytes
from depth_lightning.models.torch_files import (
    END_OF_PARTS,
    INDEX_OF_PARTS,
    CheckpointError,
    NotARunError,
    read_run,
    refuse_parts,
)

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, each of them complete or absent, even after a crash of the machine.

    A thread writes them, one after the other, so that training does not wait for the disk.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._newest: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Take the content as it is now, and have it written; an existing file is replaced once this is complete."""
        content = serialised(checkpoint)
        self.then(lambda: write_bytes(Path(path), content, durable=True))

    def then(self, work: Callable[[], None]) -> Future[None]:
        """Have this done once everything else is written; its error is that of the first work that failed.

        It is an OSError if the disk is full, or the folder cannot be written to; an existing file is left untouched.
        """
        before = self._newest

        def after() -> None:
            if before is not None:
                before.result()
            work()

        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoints")
        self._newest = self._thread.submit(after)
        return self._newest

    def teardown(self) -> None:
        """Wait for everything to be written."""
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = self._newest = None

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Read a file.

        Raises:
            CheckpointError: the checkpoint is a folder of parts.
        """
        refuse_parts(Path(path))
        return super().load_checkpoint(path, *args, **options)


def serialised(checkpoint: dict[str, Any]) -> memoryview:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getbuffer()


def keep_as(path: Path, target: Path) -> None:
    """Keep the complete file or folder of parts at `path` as `target` as well, replacing what was there.

    This is a hard link where the file system supports it, since checkpoints are never modified; otherwise a copy.
    """
    needed_bytes = None if path.is_dir() else path.stat().st_size
    with atomically(target, durable=True, needed_bytes=needed_bytes) as aside:
        if path.is_dir():
            shutil.copytree(path, aside, copy_function=os.link)
        else:
            try:
                os.link(path, aside)
            except OSError:
                shutil.copyfile(path, aside)
        _make_way(aside, target)


def put(path: Path, target: Path) -> None:
    """Move a file or folder to `target`, replacing what was there."""
    _make_way(path, target)
    path.replace(target)
    flush(target.parent)


def _make_way(path: Path, target: Path) -> None:
    """Remove a `target` that renaming `path` cannot replace: a folder, or a file if `path` is a folder."""
    if target.is_dir():
        shutil.rmtree(target)
    elif path.is_dir():
        target.unlink(missing_ok=True)


def whole_step(path: Path) -> int:
    """The step at which a checkpoint was saved.

    Every byte of a file is checked; of a folder of parts, only the file that is written last.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is empty, truncated, damaged or not a checkpoint.
    """
    if path.is_dir():
        if not all((path / name).is_file() for name in (INDEX_OF_PARTS, END_OF_PARTS)):
            raise CheckpointError(f"{path} is a folder that lacks parts of a checkpoint.")
        path = path / END_OF_PARTS
    step = read_run(path, ("global_step",), every_byte=True)["global_step"]
    if not isinstance(step, int):
        raise NotARunError(f"{path} is not a checkpoint of train.py: its global_step is {step!r}.")
    return step


class Found(NamedTuple):
    """The checkpoint in a folder from which to resume."""

    path: Path | None
    """The intact checkpoint with the most steps."""
    passed_over: list[str]
    """What is wrong with each of the others that could not be read."""


def newest_whole(folder: Path) -> Found:
    """The checkpoint from which to resume the run of a folder; of two at the same step, the one saved last."""
    steps: dict[Path, int] = {}
    passed_over = []
    for path in (folder / name for name in (LAST, BEST, PREVIOUS)):
        if not path.exists():
            continue
        try:
            steps[path] = whole_step(path)
        except CheckpointError as error:
            passed_over.append(str(error))
    return Found(max(steps, key=steps.__getitem__) if steps else None, passed_over)

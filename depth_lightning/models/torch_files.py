"""Files of torch.save, opened without running anything that they bring, and refused with one message for each cause."""

import errno
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

INDEX_OF_PARTS: Final = ".metadata"
END_OF_PARTS: Final = "meta.pt"
"""Of a checkpoint that is a folder, to which every process of trainer=fsdp wrote its part; written in this order."""
RUN: Final = ("config", "state_dict")
"""What a checkpoint of train.py holds, among other things."""


class CheckpointError(ValueError):
    """A file that is not whole, or not what is expected. The message begins with its path."""


class NotARunError(CheckpointError):
    """A file of another kind than train.py's."""


def read_torch(path: Path, every_byte: bool = False) -> Any:
    """The content of a file: tensors, on the CPU and read from the file when they are used, and plain values.

    Args:
        path: of the file.
        every_byte: see that every byte is as it was written, which takes reading them all.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is in parts, empty, torn, damaged, or holds more than tensors and plain values.
        NotARunError: it is no file of torch.
    """
    refuse_parts(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise CheckpointError(f"{path} is empty.")
    zipped = start.startswith(b"PK")
    if not zipped and not start.startswith(b"\x80"):  # torch wrote pickles before it wrote zip files
        raise NotARunError(f"{path} is no checkpoint: it starts with {start!r}, as no file of torch does.")
    if zipped and every_byte:
        _check_bytes(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch and pickle raise nearly anything at bytes that are not as they were written
        if _is_of_machine(error):
            raise
        if zipped:
            _check_bytes(path)
        if isinstance(error, pickle.UnpicklingError):
            unsure = "" if zipped else ", or is damaged"
            raise CheckpointError(
                f"{path} was refused: it holds more than tensors and plain values{unsure}, and to read it would be to "
                "run code that it brings. Ask its author for a plain state dict."
            ) from error
        if zipped:
            raise NotARunError(f"{path} is no checkpoint, but a zip file of something else.") from error
        raise CheckpointError(f"{path} is torn or damaged. Copy or download it again.") from error


def read_run(path: Path, needed: tuple[str, ...] = RUN, every_byte: bool = False) -> dict[str, Any]:
    """The content of a checkpoint of train.py.

    Args:
        path: of the file.
        needed: keys that it must have.
        every_byte: see `read_torch`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read; see `read_torch`.
        NotARunError: it is something else.
    """
    content = read_torch(path, every_byte)
    held = content if isinstance(content, Mapping) else {}
    if missing := [key for key in needed if key not in held]:
        raise NotARunError(f"{path} is no checkpoint of train.py: it holds no {' and no '.join(missing)}.")
    return dict(held)


def refuse_parts(path: Path) -> None:
    """Refuse a folder to which every process wrote its part, where a file is needed.

    Raises:
        CheckpointError: it is one.
    """
    if (path / END_OF_PARTS).is_file():
        raise CheckpointError(
            f"{path} is in parts, one of each process of trainer=fsdp, which alone goes on from it. "
            f"For anything else, take {path.with_name('best.ckpt')}, which is whole."
        )


def _check_bytes(path: Path) -> None:
    """Compare a zip file with the checksums in it.

    Raises:
        CheckpointError: they differ, or the file ends early.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile, too, where the list of parts is damaged
        if _is_of_machine(error):
            raise
        raise CheckpointError(f"{path} is torn or damaged. Copy or download it again.") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: its part {damaged} is not what was written.")


def _is_of_machine(error: Exception) -> bool:
    """Whether reading failed, and not what was read: it may name a place before the beginning of the file."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL)

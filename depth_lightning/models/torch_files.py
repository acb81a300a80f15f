"""Reading torch.save files without running any code in them, with one error message for each cause."""

import errno
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

INDEX_OF_PARTS: Final = ".metadata"
END_OF_PARTS: Final = "meta.pt"
"""Files of a sharded checkpoint, a folder with a part from each process of trainer=fsdp; written in this order."""
RUN: Final = ("config", "state_dict")
"""Keys that a checkpoint of train.py holds, among others."""


class CheckpointError(ValueError):
    """A file that is incomplete or not what was expected. The message begins with its path."""


class NotARunError(CheckpointError):
    """A file that is not a checkpoint of train.py."""


def read_torch(path: Path, every_byte: bool = False) -> Any:
    """The content of a file: plain values, and tensors on the CPU that are read from the file on use.

    Args:
        path: path of the file.
        every_byte: verify the checksums of the complete file, which requires reading all of it.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: it is sharded, empty, truncated, damaged, or holds more than tensors and plain values.
        NotARunError: it is not a torch file.
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
    except Exception as error:  # torch and pickle may raise nearly anything on damaged bytes
        if _is_of_machine(error):
            raise
        if isinstance(error, UnicodeEncodeError):
            raise CheckpointError(f"{path} cannot be opened by torch: its name is not UTF-8. Rename it.") from error
        if zipped:
            _check_bytes(path)
        if isinstance(error, pickle.UnpicklingError):
            unsure = "" if zipped else ", or is damaged"
            raise CheckpointError(
                f"{path} was refused: it holds more than tensors and plain values{unsure}, and reading it could run "
                "code that it contains. Ask its author for a plain state dict."
            ) from error
        if zipped:
            raise NotARunError(f"{path} is no checkpoint, but a zip file of something else.") from error
        raise CheckpointError(f"{path} is torn or damaged. Copy or download it again.") from error


def read_run(path: Path, needed: tuple[str, ...] = RUN, every_byte: bool = False) -> dict[str, Any]:
    """The content of a checkpoint of train.py.

    Args:
        path: path of the file.
        needed: keys that it must have.
        every_byte: see `read_torch`.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: it cannot be read; see `read_torch`.
        NotARunError: it is not such a checkpoint.
    """
    content = read_torch(path, every_byte)
    held = content if isinstance(content, Mapping) else {}
    if missing := [key for key in needed if key not in held]:
        raise NotARunError(f"{path} is no checkpoint of train.py: it holds no {' and no '.join(missing)}.")
    return dict(held)


def refuse_parts(path: Path) -> None:
    """Refuse a sharded checkpoint, a folder, where a file is needed.

    Raises:
        CheckpointError: `path` is one.
    """
    if (path / END_OF_PARTS).is_file():
        raise CheckpointError(
            f"{path} is in parts, one from each process of trainer=fsdp, which alone can resume from it. "
            f"For anything else, use {path.with_name('best.ckpt')}, which is complete."
        )


def _check_bytes(path: Path) -> None:
    """Verify the checksums in a zip file.

    Raises:
        CheckpointError: they do not match, or the file is truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile too may raise nearly anything if its directory is damaged
        if _is_of_machine(error):
            raise
        raise CheckpointError(f"{path} is torn or damaged. Copy or download it again.") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: its part {damaged} is not what was written.")


def _is_of_machine(error: Exception) -> bool:
    """Whether the machine is to blame, not the content: damaged content may seek before the file's start (EINVAL)."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL)

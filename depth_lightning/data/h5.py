"""Reading HDF5 files. References to other files are followed only below the data's folder.

An untrusted file may link to any file on the machine, use its raw bytes as values (external storage), or be assembled
from data sets in other files (virtual data sets).
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from depth_lightning.data.reading import MAX_SIDE, BrokenError, reading


@contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; errors raised inside carry its path, see `reading`."""
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        yield file


def open_dataset(file: h5py.File, name: str, root: Path | None = None) -> h5py.h5d.DatasetID:
    """Open a data set in a file without reading it.

    Args:
        file: an open file.
        name: name of the data set.
        root: folder that must contain any other file that stores its values; None for the file's own folder.

    Raises:
        KeyError: there is no such data set.
        BrokenError: the name is not a data set, its chunks are too large, or its values lie outside `root`.
    """
    return _open(file, name, root or Path(file.filename).parent)


def _open(file: h5py.File, name: str, root: Path, is_source: bool = False) -> h5py.h5d.DatasetID:
    _check_links(file, name, root)
    opened = h5py.h5o.open(file.id, name.encode())
    if not isinstance(opened, h5py.h5d.DatasetID):
        raise BrokenError(f"expected {name!r} to be a data set, found something else. Is this another kind of file?")
    _check_storage(opened, root, is_source)
    return opened


def read_dataset(dataset: h5py.h5d.DatasetID) -> np.ndarray:
    """Return what `file[name][()]` would; creating h5py's Dataset object takes as long as reading a frame."""
    array = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def _check_links(file: h5py.File, name: str, root: Path, followed: int = 0) -> None:
    """Refuse links that leave `root` before HDF5 follows them: the target may not be a regular file."""
    if followed == 16:
        raise BrokenError(f"expected {name!r} to be a data set, found link after link.")
    parts = name.strip("/").split("/")
    for end in range(1, len(parts) + 1):
        here = "/".join(parts[:end])
        if not file.id.links.exists(here.encode()):
            raise KeyError(name)
        if file.id.links.get_info(here.encode()).type == h5py.h5l.TYPE_HARD:
            continue
        link = file.get(here, getlink=True)
        target = "/".join([link.path, *parts[end:]])
        if isinstance(link, h5py.ExternalLink):
            path = _referenced(file.filename, link.filename)
            _check_below(path, root, repr(name))
            with h5py.File(path, "r") as other:
                _check_links(other, target, root, followed + 1)
        else:
            above = [] if target.startswith("/") else parts[: end - 1]
            _check_links(file, "/".join([*above, target]), root, followed + 1)
        return


def _check_storage(dataset: h5py.h5d.DatasetID, root: Path, is_source: bool) -> None:
    """Refuse values that lie outside `root` and chunks that do not fit into memory."""
    made = dataset.get_create_plist()
    layout = made.get_layout()
    if layout == h5py.h5d.CHUNKED:
        if math.prod(made.get_chunk()) > MAX_SIDE**2:
            raise BrokenError(f"expected chunks of at most {MAX_SIDE**2} values, found {made.get_chunk()}. Repack it.")
        return
    for number in range(made.get_external_count()):
        # HDF5 resolves these from the working directory.
        _check_below(Path(os.fsdecode(made.get_external(number)[0])), root, "its values")
    if layout != h5py.h5d.VIRTUAL:
        return
    if is_source:  # it may refer to itself, and then HDF5 crashes
        raise BrokenError("expected a data set made of others, found virtual data sets among those too. Repack it.")
    own = os.fsdecode(h5py.h5f.get_name(dataset))
    numbers = range(made.get_virtual_count())
    for source, name in {(made.get_virtual_filename(number), made.get_virtual_dsetname(number)) for number in numbers}:
        path = Path(own) if source == "." else _referenced(own, source)
        _check_below(path, root, "its values")
        with h5py.File(path, "r") as other:
            _open(other, name, root, is_source=True)


def _referenced(file: str, name: str) -> Path:
    """The path at which HDF5 looks for another file: beside the first one, else relative to the working directory."""
    beside = Path(file).parent / name
    return beside if beside.exists() else Path(name)


def _check_below(path: Path, root: Path, what: str) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise BrokenError(
            f"expected {what} to lie in this file, or in another one below {root.resolve()}, found a reference to "
            f"{path}. Copy the values into this file."
        )
    if not path.is_file():
        raise BrokenError(f"expected {what} in {path}, to which this file refers, found no file there. Copy it too.")

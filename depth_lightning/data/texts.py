"""Many short strings in two arrays: a file index that workers share instead of copying."""

import os
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np


class Texts(Sequence[str]):
    """An immutable list of strings, such as file names.

    A list of str costs 50 bytes or more per string on top of its characters. A forked worker that reads one copies its
    memory page, since Python's reference counts are stored there. Two arrays cost 4 bytes per string, stay shared, and
    store the common prefix once.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._start = os.path.commonprefix([min(texts), max(texts)]) if texts else ""  # noqa: RUF071 — letters are meant
        # File names may not be valid UTF-8.
        encoded = [text[len(self._start) :].encode("utf-8", "surrogateescape") for text in texts]
        self._letters = np.frombuffer(b"".join(encoded), np.uint8)
        ends = np.cumsum([0, *map(len, encoded)])
        self._ends = ends.astype(np.uint32) if ends[-1] < 2**32 else ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        letters = self._letters[self._ends[position] : self._ends[position + 1]].tobytes()
        return self._start + letters.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return self._letters.nbytes + self._ends.nbytes

"""Many short texts in two arrays: an index of files that workers share instead of copying."""

import os
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np


class Texts(Sequence[str]):
    """An unchangeable list of texts, such as file names.

    A list of str costs 50 bytes and more per text beside its letters, and a forked worker that looks at one copies its
    page of memory, since Python counts references there. Two arrays cost 4 bytes, stay shared, and have what all texts
    begin with once.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._start = os.path.commonprefix([min(texts), max(texts)]) if texts else ""  # noqa: RUF071 — letters are meant
        # Names of files may be no UTF-8.
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
        """Memory that they take."""
        return self._letters.nbytes + self._ends.nbytes

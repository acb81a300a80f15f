"""Many images through one network: read ahead and written behind in threads, so that the network is what limits it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import torch

from depth_lightning.inference.predict import Prediction, Predictor

Item = TypeVar("Item")
Read = Callable[[Item], tuple[str, np.ndarray] | None]
"""An item's name and its (h, w, 3) uint8 image; None when there are no more."""


TOO_LARGE: Final = (MemoryError, cv2.error)
"""What is raised over an image that memory does not hold; the next one may be smaller."""


class Predicted(NamedTuple):
    """An image with what the network says of it."""

    name: str
    image: np.ndarray
    prediction: Prediction


class Failure(NamedTuple, Generic[Item]):
    """An image that could not be read or saved."""

    item: Item | str
    reason: Exception


class _Prepared(NamedTuple):
    name: str
    image: np.ndarray
    pixels: np.ndarray


def predict_stream(
    predictor: Predictor,
    items: Iterable[Item],
    read: Read[Item],
    *,
    batch_size: int = 8,
    disagreement: bool = False,
    readers: int = 4,
) -> Generator[Predicted | Failure[Item], None, None]:
    """Predict one image after another, those of one size in batches.

    Images of one size keep their order. One that cannot be read becomes a `Failure`, and the others go on.

    Args:
        predictor: with its network.
        items: what `read` takes.
        read: called in threads.
        batch_size: how many images the network sees at once.
        disagreement: see `Predictor.predict_batch`.
        readers: threads that read; 1 if the order of calls matters.

    Raises:
        ValueError: the device's memory does not hold a batch of several.
    """

    def prepared(item: Item) -> _Prepared | None:
        found = read(item)
        return found and _Prepared(*found, predictor.prepare(found[1]))

    def predicted(batch: list[_Prepared]) -> Iterator[Predicted | Failure[Item]]:
        sizes = [each.image.shape[:2] for each in batch]
        try:
            predictions = predictor.predict_batch([each.pixels for each in batch], sizes, disagreement)
        except torch.OutOfMemoryError as error:
            height, width = batch[0].pixels.shape[:2]
            if len(batch) > 1:
                raise ValueError(
                    f"{len(batch)} images of {height}×{width} do not fit into the device's memory: lower batch_size."
                ) from error
            alone = ValueError(f"{height}×{width} (h×w) do not fit into the device's memory: lower data.size.")
            yield Failure(batch[0].name, alone)
            return
        for each, prediction in zip(batch, predictions, strict=True):
            yield Predicted(each.name, each.image, prediction)

    waiting: dict[tuple[int, ...], list[_Prepared]] = {}
    pool = ThreadPoolExecutor(readers)
    try:
        for item, future in _ahead(pool, prepared, items, count=max(readers, 2 * batch_size)):
            try:
                image = future.result()
            except (OSError, ValueError, *TOO_LARGE) as error:
                yield Failure(item, error)
                continue
            if image is None:
                break
            batch = waiting.setdefault(image.pixels.shape, [])
            batch.append(image)
            if len(batch) == batch_size:
                yield from predicted(waiting.pop(image.pixels.shape))
            elif sum(map(len, waiting.values())) >= 4 * batch_size:  # many sizes: what waits must fit into memory
                yield from predicted(waiting.pop(next(iter(waiting))))
        for batch in waiting.values():
            yield from predicted(batch)
    finally:
        pool.shutdown(cancel_futures=True)


def save_behind(
    results: Iterable[Predicted | Failure[Item]],
    save: Callable[[Predicted], None],
    *,
    writers: int = 4,
    done: Callable[[], None] = lambda: None,
) -> list[Failure[Item]]:
    """Save every prediction in threads while the next are made.

    Args:
        results: of `predict_stream`.
        save: called in threads.
        writers: threads that save; 1 if the order matters.
        done: called after each image.

    Returns:
        What could not be read or, with a ValueError of `save` or where memory ends, not be saved.

    Raises:
        OSError: a file cannot be written, as on a full disk: the next could not either.
    """
    failures: list[Failure[Item]] = []
    pending: deque[tuple[str, Future[None]]] = deque()

    def settle() -> None:
        name, future = pending.popleft()
        try:
            future.result()
        except (ValueError, *TOO_LARGE) as error:
            failures.append(Failure(name, error))
        done()

    pool = ThreadPoolExecutor(writers)
    try:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
                done()
                continue
            pending.append((result.name, pool.submit(save, result)))
            while len(pending) > 2 * writers:
                settle()
        while pending:
            settle()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for the files that are being written
    return failures


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], _Prepared | None], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Future[_Prepared | None]]]:
    """Every item with its result to be, in order, `count` of them under way."""
    pending: deque[tuple[Item, Future[_Prepared | None]]] = deque()
    for item in items:
        pending.append((item, pool.submit(function, item)))
        if len(pending) >= count:
            yield pending.popleft()
    yield from pending

"""Prediction of many images, read ahead and saved in threads so that the network is the bottleneck."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import torch

from depth_lightning.camera import UNKNOWN
from depth_lightning.inference.cameras import PhotoCamera
from depth_lightning.inference.predict import Prediction, Predictor

Item = TypeVar("Item")


class Photo(NamedTuple):
    """An image to predict."""

    name: str
    image: np.ndarray
    """(h, w, 3) uint8."""
    camera: PhotoCamera = PhotoCamera(UNKNOWN, "unknown")


Read = Callable[[Item], Photo | tuple[str, np.ndarray] | None]
"""An item as it is read, or its name and image alone; None when there are no more."""


THREADS: Final = min(8, max(4, os.cpu_count() or 1))
"""Threads that read, and as many again that save."""
TOO_LARGE: Final = (MemoryError, cv2.error)
"""Raised for an image that does not fit into memory; the next one may be smaller."""


class Predicted(NamedTuple):
    """An image and its prediction."""

    name: str
    image: np.ndarray
    prediction: Prediction
    camera: PhotoCamera


class Failure(NamedTuple, Generic[Item]):
    """An image that could not be read or saved."""

    item: Item | str
    reason: Exception


class _Prepared(NamedTuple):
    photo: Photo
    pixels: np.ndarray


def predict_stream(
    predictor: Predictor,
    items: Iterable[Item],
    read: Read[Item],
    *,
    batch_size: int = 8,
    disagreement: bool = False,
    readers: int = THREADS,
) -> Generator[Predicted | Failure[Item], None, None]:
    """Predict a stream of images, with images of the same size in batches.

    Images of the same size keep their order. An image that cannot be read becomes a `Failure`, and the rest continue.

    Args:
        predictor: the network.
        items: the arguments of `read`.
        read: called in threads.
        batch_size: images per forward pass.
        disagreement: see `Predictor.predict_batch`.
        readers: threads that read; 1 if the order of calls matters.

    Raises:
        ValueError: a batch of several images does not fit into the device's memory.
    """

    def prepared(item: Item) -> _Prepared | None:
        given = read(item)
        if given is None:
            return None
        photo = Photo(*given)
        predictor.check_camera(photo.camera.intrinsics)
        return _Prepared(photo, predictor.prepare(photo.image))

    def predicted(batch: list[_Prepared]) -> Iterator[Predicted | Failure[Item]]:
        sizes = [image.photo.image.shape[:2] for image in batch]
        cameras = [image.photo.camera.intrinsics for image in batch]
        try:
            predictions = predictor.predict_batch([image.pixels for image in batch], sizes, disagreement, cameras)
        except torch.OutOfMemoryError as error:
            height, width = batch[0].pixels.shape[:2]
            if len(batch) > 1:
                raise ValueError(
                    f"{len(batch)} images of {height}×{width} do not fit into the device's memory: lower batch_size."
                ) from error
            alone = ValueError(f"{height}×{width} (h×w) do not fit into the device's memory: lower data.size.")
            yield Failure(batch[0].photo.name, alone)
            return
        for image, prediction in zip(batch, predictions, strict=True):
            yield Predicted(image.photo.name, image.photo.image, prediction, image.photo.camera)

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
            elif sum(map(len, waiting.values())) >= 4 * batch_size:  # many sizes: waiting images must fit into memory
                yield from predicted(waiting.pop(next(iter(waiting))))
        for batch in waiting.values():
            yield from predicted(batch)
    finally:
        pool.shutdown(cancel_futures=True)


def save_behind(
    results: Iterable[Predicted | Failure[Item]],
    save: Callable[[Predicted], None],
    *,
    writers: int = THREADS,
    done: Callable[[], None] = lambda: None,
) -> list[Failure[Item]]:
    """Save predictions in threads while the next ones are computed.

    Args:
        results: from `predict_stream`.
        save: called in threads.
        writers: threads that save; 1 if the order matters.
        done: called after each image.

    Returns:
        The images that could not be read, or not saved because `save` raised a ValueError or ran out of memory.

    Raises:
        OSError: a file cannot be written, for example on a full disk; the next one would fail too.
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
            while pending and (pending[0][1].done() or len(pending) > writers + 2):
                settle()
        while pending:
            settle()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for the files being written
    return failures


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], _Prepared | None], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Future[_Prepared | None]]]:
    """Every item with the future of its result, in order, with up to `count` of them in flight."""
    pending: deque[tuple[Item, Future[_Prepared | None]]] = deque()
    for item in items:
        pending.append((item, pool.submit(function, item)))
        if len(pending) >= count:
            yield pending.popleft()
    yield from pending

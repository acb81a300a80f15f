import os
import re
import struct
import threading

import cv2
import numpy as np
import pytest
import torch

from depth_lightning.inference import Outputs
from depth_lightning.inference.inputs import find_images, read_photo
from depth_lightning.inference.stream import Failure, predict_stream, save_behind

IMAGE = np.random.default_rng(0).integers(0, 256, (42, 56, 3), dtype=np.uint8)


def test_a_broken_image_is_reported_and_the_others_go_on(predictor):
    def read(index):
        if index in (1, 4):
            raise ValueError(f"{index} is broken")
        return str(index), IMAGE

    saved = []
    results = predict_stream(predictor, range(6), read, batch_size=3)
    failures = save_behind(results, lambda result: saved.append(result.name))
    assert sorted(saved) == ["0", "2", "3", "5"]
    assert [(failure.item, str(failure.reason)) for failure in failures] == [(1, "1 is broken"), (4, "4 is broken")]


def test_one_reader_and_one_writer_keep_the_order_and_stop_at_the_end(predictor):
    numbers, saved = iter(range(11)), []

    def read(_):
        index = next(numbers, None)
        return None if index is None else (str(index), IMAGE)

    endless = iter(int, 1)
    save_behind(
        predict_stream(predictor, endless, read, batch_size=4, readers=1),
        lambda result: saved.append(int(result.name)),
        writers=1,
    )
    assert saved == list(range(11))


def test_few_images_wait_however_many_sizes_there_are(predictor):
    """A folder of images of which no two are alike must not be held in memory."""
    read_so_far, largest = set(), 0

    def read(index):
        read_so_far.add(index)
        return str(index), np.full((42 + 14 * index, 42, 3), 100, np.uint8)

    for done, _ in enumerate(predict_stream(predictor, range(30), read, batch_size=2, readers=4)):
        largest = max(largest, len(read_so_far) - done)
    assert len(read_so_far) == 30 and largest <= 8 + 4 + 1


def test_reading_goes_on_while_results_are_saved(predictor):
    read_third = threading.Event()

    def read(index):
        if index == 2:
            read_third.set()
        return str(index), IMAGE

    results = predict_stream(predictor, range(3), read, batch_size=1)
    next(results)
    assert read_third.wait(timeout=10)
    results.close()


def test_an_image_that_cannot_be_saved_is_a_failure_and_a_full_disk_is_the_end(predictor):
    def read(index):
        return str(index), IMAGE

    def refuse(result):
        if result.name == "1":
            raise ValueError("not this one")

    failures = save_behind(predict_stream(predictor, range(3), read), refuse)
    assert [failure.item for failure in failures] == ["1"] and isinstance(failures[0], Failure)

    def full(result):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_behind(predict_stream(predictor, range(30), read, batch_size=1), full)


def test_an_interrupt_leaves_whole_files_and_no_others(predictor, tmp_path):
    outputs, count = Outputs(tmp_path, ("npy", "side_by_side"), metric=True, max_depth=10.0), 0

    def read(index):
        return str(index), IMAGE

    def save(result):
        outputs.write(result.name, result.image, result.prediction, {"npy", "side_by_side"})

    def interrupt():
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_behind(predict_stream(predictor, range(40), read, batch_size=2), save, done=interrupt)
    files = list(tmp_path.iterdir())
    assert 3 <= len(list(tmp_path.glob("*.npy"))) < 40
    assert not [path for path in files if path.name.startswith(".")]
    assert {np.load(path).shape for path in files if path.suffix == ".npy"} == {IMAGE.shape[:2]}


def test_what_is_no_picture_of_a_folder_is_reported_and_the_others_go_on(predictor, tmp_path):
    """A FIFO, a picture that claims 50,000×50,000, a strip, HEIC, text: all of them are named, none is waited for."""
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"good{number}.jpg"), IMAGE)
    os.mkfifo(tmp_path / "fifo.png")
    cv2.imwrite(str(tmp_path / "strip.png"), np.zeros((2, 9000, 3), np.uint8))
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 50_000, 50_000)
    (tmp_path / "huge.png").write_bytes(header + bytes(99))
    (tmp_path / "IMG.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (tmp_path / "text.png").write_text("no picture")
    _, images = find_images(str(tmp_path))
    saved = []
    results = predict_stream(predictor, images, lambda image: (image.name, read_photo(image.path)))
    failures = save_behind(results, lambda result: saved.append(result.name))
    assert sorted(saved) == ["good0", "good1", "good2"]
    reasons = {failure.item.path.name: str(failure.reason) for failure in failures}
    assert sorted(reasons) == ["IMG.HEIC", "fifo.png", "huge.png", "strip.png", "text.png"]
    assert "found a FIFO" in reasons["fifo.png"]
    assert "expected sides of at most 16384 pixels, found 50000×50000 (h×w)" in reasons["huge.png"]
    assert "at most 16,384 tokens, found" in reasons["strip.png"]


def test_memory_that_ends_over_one_image_is_that_ones_failure(predictor):
    def read(index):
        if index == 1:
            raise MemoryError("Unable to allocate 3 GiB")
        if index == 2:
            cv2.resize(np.zeros((0, 0, 3), np.uint8), (4, 4))
        return str(index), IMAGE

    def save(result):
        if result.name == "3":
            raise MemoryError("Unable to allocate 2 GiB")

    failures = save_behind(predict_stream(predictor, range(5), read), save)
    assert sorted(str(failure.item) for failure in failures) == ["1", "2", "3"]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_image_that_the_device_does_not_hold_ends_alone(predictor, monkeypatch, batch_size):
    predict_batch = predictor.predict_batch

    def full(prepared, *others):
        if prepared[0].shape[1] > 60 or len(prepared) > 1:
            raise torch.OutOfMemoryError
        return predict_batch(prepared, *others)

    monkeypatch.setattr(predictor, "predict_batch", full)
    images = [IMAGE, np.tile(IMAGE, (1, 3, 1)), IMAGE]
    results = predict_stream(predictor, range(3), lambda index: (str(index), images[index]), batch_size=batch_size)
    if batch_size == 1:
        one, alone, other = results
        assert (one.name, other.name) == ("0", "2") and isinstance(alone, Failure)
        assert re.fullmatch(
            r"\d+×\d+ \(h×w\) do not fit into the device's memory: lower data\.size\.", str(alone.reason)
        )
    else:
        with pytest.raises(ValueError, match=r"2 images of .* do not fit into the device's memory: lower batch_size"):
            list(results)

"""What ends a loader's workers, and what is said about it."""

import os
import signal
import time

import pytest
from torch.utils.data import Dataset

from depth_lightning.data.workers import SHARED_MEMORY, Loader, why_died

ADVICE = (
    "Lower data.num_workers or data.batch_size; data.num_workers=0 reads without workers. In a container, "
    "/dev/shm is small unless it is started with --shm-size=8g or --ipc=host."
)


class Ended(Dataset):
    """Whose worker is ended by a signal, as by the system when memory is full."""

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), self.number)
        time.sleep(5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_a_signal_ended(number):
    with pytest.raises(RuntimeError) as error:
        list(Loader(Ended(number), batch_size=None, num_workers=1))
    reason = why_died(error.value)
    assert reason.startswith("DataLoader worker (pid") and reason.endswith(ADVICE)
    assert "Usually the memory is full, or /dev/shm, through which workers pass on batches" in reason
    assert ("GB are free" in reason) == SHARED_MEMORY.is_dir()


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid(s) 17, 18) exited unexpectedly",
        "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call last): …",
        "unable to write to file </torch_1_2>: No space left on device (28)",
        "Caught RuntimeError in DataLoader worker process 1.\nOriginal Traceback (most recent call last):\n  File …\n"
        "RuntimeError: unable to allocate shared memory(shm) for file </torch_3_4>: Cannot allocate memory (12)",
    ],
)
def test_other_words_for_it(message):
    assert why_died(RuntimeError(message)).endswith(ADVICE)


@pytest.mark.parametrize("message", ["Too many open files. Communication with …", "received 0 items of ancdata"])
def test_too_many_files(message):
    assert "ulimit -n 65536, or lower data.num_workers" in why_died(RuntimeError(message))


def test_other_errors_are_none():
    assert why_died(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_workers_that_cannot_be_started_are_named(monkeypatch):
    def full():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    with pytest.raises(OSError, match=r"data\.num_workers=2: they cannot be started \(Resource .*\)\. Choose fewer\."):
        iter(Loader([1, 2], num_workers=2))

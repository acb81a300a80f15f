"""Loaders whose worker processes outlive signals, and what to do when a worker dies."""

import os
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import Any, Final, TypeVar

from torch.utils.data import DataLoader, Dataset

from depth_lightning.interrupts import interrupts_held

T = TypeVar("T", covariant=True)
SHARED_MEMORY: Final = Path("/dev/shm")
_DIED: Final = re.compile(
    r"DataLoader worker \(pid\D*[\d, ]+\) (is killed by signal: \w+( \w+)*|exited unexpectedly)"
    r"|Caught MemoryError in DataLoader worker"
    r"|unable to [^\n]*(shared memory|/torch_)[^\n]*"
)
_TOO_MANY: Final = re.compile(r"Too many open files|received \d+ items of ancdata")
"""What torch reports if a worker dies, or cannot pass on a batch."""


class Loader(DataLoader[T]):
    """A DataLoader whose workers end with this process, and not at signals that reach them as well.

    Raises:
        OSError: the workers cannot be started.
    """

    def __init__(self, dataset: Dataset[T], **options: Any) -> None:
        super().__init__(dataset, **{"worker_init_fn": _outlive_warnings, **options})

    def __iter__(self) -> Any:
        """Start the workers, or their next epoch."""
        try:
            with interrupts_held():
                return super().__iter__()
        except OSError as error:
            text = f"data.num_workers={self.num_workers}: they cannot be started ({error.strerror}). Choose fewer."
            raise OSError(error.errno, text) from error


def why_died(error: BaseException) -> str | None:
    """What usually ends a worker, and what to type, if that is what an error reports; None for other errors."""
    if _TOO_MANY.search(str(error)):
        return (
            "Too many files are open, since workers pass on every batch through some. Raise the limit with "
            "ulimit -n 65536, or lower data.num_workers."
        )
    reported = _DIED.search(str(error))
    if reported is None:
        return None
    room = ""
    if SHARED_MEMORY.is_dir():
        disk = shutil.disk_usage(SHARED_MEMORY)
        room = f" ({disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB are free)"
    return (
        f"{reported.group()}. Usually the memory is full, or {SHARED_MEMORY}, through which workers pass on "
        f"batches{room}. Lower data.num_workers or data.batch_size; data.num_workers=0 reads without workers. In a "
        f"container, {SHARED_MEMORY} is small unless it is started with --shm-size=8g or --ipc=host."
    )


def _outlive_warnings(worker: int) -> None:
    """Keep a worker alive when a cluster signals all processes of a job to end: training needs it to save and exit.

    Only the process that started it may end it.
    """
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # nor on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)

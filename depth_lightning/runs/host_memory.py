"""How the C library deals with the memory of tensors on a CPU."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have this process, and those that it forks, keep the memory of freed tensors for the next ones.

    glibc gives large blocks back to the system when they are freed, and every step asks for them again, to be mapped
    and zeroed page by page: a sixth of a training step on a CPU (`benchmarks/training_step.py`). The process then holds
    what it needed at its peak until it ends. With another C library than glibc nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        # Keeping blocks of any size is no faster, and leaves gaps. Older versions answer 0: they take 32 MiB at most.
        _ = malloc.mallopt(M_MMAP_THRESHOLD, 2**26) or malloc.mallopt(M_MMAP_THRESHOLD, 2**25)
        malloc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

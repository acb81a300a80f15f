"""How the C library manages the memory of CPU tensors."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Make this process, and those that it forks, reuse the memory of freed tensors.

    By default, glibc returns large blocks to the system when they are freed, and every step allocates them again, to be
    mapped and zeroed page by page. This takes a sixth of a training step on a CPU (`benchmarks/training_step.py`). With
    this setting, the process keeps its peak memory until it ends. Other C libraries than glibc are left unchanged.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        # Keeping blocks of any size is no faster and fragments memory. Older versions return 0: their limit is 32 MiB.
        _ = malloc.mallopt(M_MMAP_THRESHOLD, 2**26) or malloc.mallopt(M_MMAP_THRESHOLD, 2**25)
        malloc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

"""Blocks of 40 MiB are above what glibc keeps by itself in the end, 32 MiB. The first turns find their places."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from depth_lightning.runs.host_memory import keep_freed_memory

if KEPT:
    keep_freed_memory()
for turn in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.empty(40 * 2**20, dtype=torch.uint8).fill_(1) for _ in range(8)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


LIBC, VERSION = platform.libc_ver()


@pytest.mark.skipif(
    LIBC != "glibc" or tuple(map(int, VERSION.split("."))) < (2, 35), reason="glibc keeps such blocks from 2.35 on"
)
def test_the_memory_of_a_freed_tensor_is_used_again():
    programs = (FAULTS.replace("KEPT", kept) for kept in ("True", "False"))
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
        for program in programs
    )
    assert plain > 8 * 40 * 2**20 / 2**21  # pages of at most 2 MB
    assert kept < plain / 10

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from depth_lightning.commands.host_memory import keep_freed_memory

if {kept}:
    keep_freed_memory()
for turn in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.empty(24 * 2**20, dtype=torch.uint8).fill_(1) for _ in range(8)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is tested is glibc's")
def test_the_memory_of_a_freed_tensor_is_used_again() -> None:
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], check=True, capture_output=True).stdout)
        for kept in (True, False)
    )
    assert plain > 8 * 24 * 2**20 / 2**21  # pages of at most 2 MB
    assert kept < plain / 10

"""Reuse of freed memory by the C library."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from leuk.runs.process import keep_heap
if sys.argv[1] == "kept":
    assert keep_heap()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)  # 64 MiB, freed at once
before = faults()
for _ in range(10):
    np.ones(2**23)
print(faults() - before)
"""


def page_faults(heap: str) -> int:
    """Count the page faults of ten blocks of 64 MiB, each used and freed, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, heap], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's heap")
def test_freed_block_is_reused_without_system_calls():
    assert page_faults("kept") < 0.01 * page_faults("default")

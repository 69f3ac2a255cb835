"""Allocator setting that keeps freed memory for the next training step."""

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
KEPT = 2**31 - 1
"""Free bytes at the top of the heap that glibc keeps: the largest value it accepts."""


def keep_heap() -> bool:
    """Make glibc keep freed blocks of any size.

    By default, glibc maps each block of 32 MiB or more separately and unmaps it when freed. On a
    CPU, activations are such blocks, whose pages the kernel has to zero in every step: 40 % of the
    time of a CNN's training step at 224 px (``tests/benchmarks/classifiers.py --default-heap``).
    The cost is memory: the process keeps its peak, with fragmentation, such as 0.4 GB more when
    explaining at 224 px. See mallopt(3).

    Returns:
        True if the setting was applied; False with other C libraries or systems.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))

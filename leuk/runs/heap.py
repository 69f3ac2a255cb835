"""How the process keeps memory that a step has freed, for the next step to use."""

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
KEPT = 2**31 - 1
"""Bytes free at the top of the heap that glibc does not give back: as many as it can count."""


def keep_heap() -> bool:
    """Let glibc keep freed blocks of any size; whether it now does.

    By default it maps each block of 32 MiB and more anew and unmaps it when freed. On a CPU the
    activations of one step are such blocks, and the kernel zeroes every page of them again in
    every step: 40 % of a CNN's training step at 224 px (``tests/benchmarks/classifiers.py
    --default-heap``). A process then holds what it once needed until it ends, in pieces that do not
    always fit again: 0.4 GB more in explaining at 224 px. Other C libraries, and systems other
    than Linux, keep their own way. See mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))

"""Modules that are loaded where they are needed: some take seconds."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_THREADS = "OMP_NUM_THREADS"
"""What OpenBLAS and MKL look at while they are loaded, if nothing of their own is set."""


def load(*names: str) -> list[ModuleType]:
    """Import modules by name, the first time without a search for garbage in them.

    What is imported stays: to look for garbage in it takes a sixth of the time of loading, and time
    again at the end.
    """
    if not gc.isenabled() or all(name in sys.modules for name in names):
        return [import_module(name) for name in names]
    gc.disable()
    try:
        return [import_module(name) for name in names]
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def one_thread() -> Iterator[None]:
    """Libraries of linear algebra that are loaded inside keep to one thread, as long as they live.

    Threads of theirs wait busily, beside processes that have a core each: a sixteenth of a large
    report's time. Whoever sets the number of threads has it.
    """
    before = os.environ.get(_THREADS)
    os.environ.setdefault(_THREADS, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]

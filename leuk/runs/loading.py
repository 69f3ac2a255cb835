"""Deferred imports, for modules that take seconds to load."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_THREADS = "OMP_NUM_THREADS"
"""Environment variable that OpenBLAS and MKL read when they are loaded."""


def load(*names: str) -> list[ModuleType]:
    """Import modules by name, without garbage collection during the first import.

    Imported objects live until the end of the process. Collecting them takes a sixth of the import
    time, and more at exit.

    Args:
        names: dotted names of the modules.
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
    """Limit linear algebra libraries that are loaded in this block to a single thread.

    Their idle threads spin, which slows down worker processes with a core each: 1/16 of the time of
    a large report. An ``OMP_NUM_THREADS`` set by the user takes precedence.
    """
    before = os.environ.get(_THREADS)
    os.environ.setdefault(_THREADS, "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]

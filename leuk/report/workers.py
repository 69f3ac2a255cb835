"""Independent parts of a large report, side by side on several cores.

A report of hundreds of runs takes most of its time for thousands of small figures and for pictures,
in Python: threads would wait for each other. Processes are forked, so that they have what was read
without a copy of it; a process that holds a GPU or the threads of a fit should ask for one worker.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE = 4
"""Portions that each worker takes in turn: items differ in how long they take."""

_MOST = 8
"""More would each take memory, and save less than a second."""

_shared: tuple[Callable[[Any], Any], Sequence[Any]]
"""What the workers of this process share: a function, and what it is called with."""


def free_workers() -> int:
    """As many as this process may use cores, eight at most."""
    return min(_MOST, len(os.sched_getaffinity(0)))


def spread(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """``function`` of each item, in their order.

    Args:
        function: neither it nor the items are pickled; its results are, with several workers.
        items: what to call it with.
        workers: processes; with 1 everything happens in this one.

    Raises:
        Exception: what the function raises, that of the first item that fails.
    """
    workers = min(workers, len(items))
    if workers < 2:
        return [function(item) for item in items]
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), _share, (function, items)
    ) as pool:
        portion = max(1, len(items) // (workers * _AT_ONCE))
        return list(pool.map(_at, range(len(items)), chunksize=portion))


def _share(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _shared
    _shared = function, items
    # A terminal interrupts workers too, and a worker would take a stop for an item that failed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _at(place: int) -> Any:
    function, items = _shared
    return function(items[place])

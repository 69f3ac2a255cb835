"""Independent parts of a large report, side by side on several cores.

A report of hundreds of runs takes most of its time for thousands of small figures and for pictures,
in Python: threads would wait for each other. Processes are forked, so that they have what was read
without a copy of it; a process that holds a GPU or the threads of a fit should ask for one worker.
"""

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from leuk.errors import LeukError

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
    """``function`` of each item, in their order; as :func:`begun`, and waited for."""
    with begun(function, items, workers) as results:
        return results()


@contextmanager
def begun(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Callable[[], list[Result]]]:
    """Begin with ``function`` of each item; give what waits for the results, in their order.

    Meanwhile this process may do something else, but fork no others. It is to ask for the results
    once, or else what was not begun is left.

    Args:
        function: with several workers its results and errors are pickled; itself and the items
            are not.
        items: what to call it with.
        workers: processes; with 1 everything happens in this one, when the results are asked for.

    Raises:
        Exception: where the results are asked for, what the function raises, that of the first item
            that fails.
        LeukError: there, a worker was ended from outside.
    """
    workers = min(workers, len(items))
    if workers < 2:
        yield lambda: [function(item) for item in items]
        return
    portion = max(1, len(items) // (workers * _AT_ONCE))
    forked = multiprocessing.get_context("fork")
    with ExitStack() as stack:
        # A core each: several threads in each would take several times as long.
        stack.enter_context(threadpool_limits(1))
        pool = ProcessPoolExecutor(workers, forked, _share, (function, items))
        stack.callback(pool.shutdown, cancel_futures=True)
        found = pool.map(_at, range(len(items)), chunksize=portion)

        def results() -> list[Result]:
            with stack.pop_all():
                return _waited_for(found)

        yield results


def _waited_for(found: Iterator[Result]) -> list[Result]:
    try:
        return list(found)
    except BrokenProcessPool as error:
        raise LeukError(
            "a process of the report was ended from outside, as the kernel does where memory is "
            "short; start again, and make room in memory if it recurs"
        ) from error


def _share(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _shared
    _shared = function, items
    # It ends before its garbage comes to much; to look for some would copy the parent's pages too.
    gc.disable()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _at(place: int) -> Any:
    function, items = _shared
    try:
        return function(items[place])
    except SystemExit as end:
        # Told to stop, as leuk.runs.stopping does it: what it was writing is put away by now. A
        # pool would take it for an item that failed.
        os._exit(int(end.code or 1))

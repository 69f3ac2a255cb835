"""Parallel computation of independent parts of a report.

A report of hundreds of runs spends most of its time in Python, on thousands of small values and on
figures, where threads would block each other. Processes are forked, so they share the results that
were read without copying them. A process that uses a GPU or trains with threads should use one
worker.
"""

import gc
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar, cast

from threadpoolctl import threadpool_limits

from leuk.errors import LeukError

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_PORTIONS, _BYTES = 1000, 4
"""Maximum number of portions that workers take in turn, and bytes of a portion's number."""

_MOST = 8
"""Maximum number of workers: more would take memory and save less than a second."""


def free_workers() -> int:
    """Return the number of cores available to this process, eight at most."""
    return min(_MOST, len(os.sched_getaffinity(0)))


def spread(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """Apply ``function`` to each item and return the results in order; see :func:`begun`."""
    with begun(function, items, workers) as results:
        return results()


@contextmanager
def begun(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Callable[[], list[Result]]]:
    """Start ``function`` on each item; yield a function that waits for the results, in order.

    This process can continue meanwhile. It must wait for the results before the block ends, which
    also ends the workers.

    Args:
        function: function of an item; with several workers its results and errors are pickled, the
            function and the items are not.
        items: the items.
        workers: number of processes; with 1, everything is computed in this process when the
            results are requested.

    Raises:
        Exception: on waiting, the error of the function for the first item that failed.
        LeukError: on waiting, if a worker was killed.
    """
    workers = min(workers, len(items))
    if workers < 2:
        yield lambda: [function(item) for item in items]
        return
    tasks = _Tasks(function, items)
    # One thread per worker: more threads than cores would be several times slower.
    with threadpool_limits(1):
        started = [_start(tasks) for _ in range(workers)]
    os.close(tasks.portions)
    waiting = [results for _, results in started]
    try:
        yield lambda: _gathered(waiting)
    finally:
        for process, results in started:
            if results in waiting:
                process.terminate()
            process.join()
            results.close()


class _Tasks(Generic[Item, Result]):
    """Items in portions that workers take in turn; each worker sends its results at the end.

    Workers share no lock and no pipe to write to, unlike the pools of the standard library, so a
    killed worker cannot block the others.

    Args:
        function: function of an item.
        items: the items.
    """

    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self._function, self._items = function, items
        self._portion = -(-len(items) // _MOST_PORTIONS)
        starts = range(0, len(items), self._portion)
        # All portions fit into the buffer of a pipe; reading the closed, empty pipe gives nothing.
        self.portions, full = os.pipe()
        os.write(full, b"".join(start.to_bytes(_BYTES, "little") for start in starts))
        os.close(full)

    def work(self, results: Connection) -> None:
        """Compute portions until none is left, then send the results."""
        # Garbage collection would copy memory pages of the parent, and workers end soon.
        gc.disable()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        found: dict[int, Result] = {}
        failed: dict[int, Exception] = {}
        for index in self._taken():
            try:
                found[index] = self._function(self._items[index])
            except Exception as error:
                error.add_note(traceback.format_exc())
                failed[index] = error
                break
        results.send((found, failed))

    def _taken(self) -> Iterator[int]:
        while start := os.read(self.portions, _BYTES):
            first = int.from_bytes(start, "little")
            yield from range(first, min(first + self._portion, len(self._items)))


def _start(tasks: _Tasks[Item, Result]) -> tuple[BaseProcess, Connection]:
    forked = multiprocessing.get_context("fork")
    reader, writer = forked.Pipe(duplex=False)
    process = forked.Process(target=tasks.work, args=(writer,), daemon=True)
    process.start()
    writer.close()
    return process, reader


def _gathered(waiting: list[Connection]) -> list[Any]:
    """Results of all workers in the order of the items."""
    found: dict[int, Any] = {}
    failed: dict[int, Exception] = {}
    while waiting:
        for results in cast(list[Connection], wait(waiting)):
            waiting.remove(results)
            try:
                of_one, failures = results.recv()
            except (EOFError, OSError) as error:
                raise LeukError(
                    "a process of the report was killed, probably because memory ran out; start "
                    "again, and free memory if it recurs"
                ) from error
            found |= of_one
            failed |= failures
    if failed:
        raise failed[min(failed)]
    return [found[index] for index in sorted(found)]


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)

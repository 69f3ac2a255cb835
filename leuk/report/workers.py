"""Independent parts of a large report, side by side on several cores.

A report of hundreds of runs takes most of its time for thousands of small figures and for pictures,
in Python: threads would wait for each other. Processes are forked, so that they have what was read
without a copy of it; a process that holds a GPU or the threads of a fit should ask for one worker.
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
"""Of items that workers take in turn, and how long the number of the first is."""

_MOST = 8
"""More would each take memory, and save less than a second."""


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

    Meanwhile this process may do something else. It is to ask for the results before the block
    ends, which ends the workers too.

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
    tasks = _Tasks(function, items)
    # A core each: several threads in each would take several times as long.
    with threadpool_limits(1):
        started = [_start(tasks) for _ in range(workers)]
    os.close(tasks.places)
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
    """What workers take portions of, and send back at their end.

    Nothing is shared that a worker could hold when it is ended from outside: not a lock, as the
    standard library's pools have, nor a pipe that another worker writes to.

    Args:
        function: of each item.
        items: all of them.
    """

    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self._function, self._items = function, items
        self._portion = -(-len(items) // _MOST_PORTIONS)
        starts = range(0, len(items), self._portion)
        # As much as any pipe holds; from an empty one that nobody writes to, nothing is read.
        self.places, full = os.pipe()
        os.write(full, b"".join(start.to_bytes(_BYTES, "little") for start in starts))
        os.close(full)

    def work(self, results: Connection) -> None:
        """What a worker does."""
        # It ends before its garbage comes to much; to look for some would copy the parent's pages.
        gc.disable()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        found: dict[int, Result] = {}
        failed: dict[int, Exception] = {}
        for place in self._taken():
            try:
                found[place] = self._function(self._items[place])
            except Exception as error:
                error.add_note(traceback.format_exc())
                failed[place] = error
                break
        results.send((found, failed))

    def _taken(self) -> Iterator[int]:
        while start := os.read(self.places, _BYTES):
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
    """What all workers send, by its place; each sends once, or is no more."""
    found: dict[int, Any] = {}
    failed: dict[int, Exception] = {}
    while waiting:
        for results in cast(list[Connection], wait(waiting)):
            waiting.remove(results)
            try:
                of_one, failures = results.recv()
            except (EOFError, OSError) as error:
                raise LeukError(
                    "a process of the report was ended from outside, as the kernel does where "
                    "memory is short; start again, and make room in memory if it recurs"
                ) from error
            found |= of_one
            failed |= failures
    if failed:
        raise failed[min(failed)]
    return [found[place] for place in sorted(found)]


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)

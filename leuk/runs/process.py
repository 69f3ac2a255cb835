"""Settings of the process: memory kept for the next training step, and an orderly exit."""

import ctypes
import multiprocessing
import os
import platform
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
KEPT = 2**31 - 1
"""Free bytes at the top of the heap that glibc keeps: the largest value it accepts."""


def keep_heap() -> bool:
    """Make glibc keep freed blocks of any size; return False with other C libraries.

    By default, glibc maps each block of 32 MiB or more separately and unmaps it when freed. On a
    CPU, activations are such blocks, whose pages the kernel has to zero in every step: 40 % of the
    time of a CNN's training step at 224 px (``tests/benchmarks/training.py --default-heap``).
    The cost is memory: the process keeps its peak, with fragmentation, such as 0.4 GB more when
    explaining at 224 px. See mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))


# --- Orderly exit on SIGTERM (from ``docker stop`` or a cluster), Ctrl-C and a closed output

CODE = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as in shells."""

_SIGNALS: dict[signal.Signals, tuple[Any, str]] = {
    signal.SIGTERM: (signal.SIG_DFL, "SIGTERM"),
    signal.SIGINT: (signal.default_int_handler, "Ctrl-C"),
    signal.SIGPIPE: (signal.SIG_IGN, "a closed output pipe"),
}
"""Python's default handler of each signal, and its name in messages."""

_GRACE = 3.0
"""Seconds for child processes to exit before they are killed."""


class StoppedError(SystemExit):
    """Stop by a signal, raised so that locks are released and temporary files removed."""


@contextmanager
def leaves_on_signals() -> Iterator[None]:
    """Raise :class:`StoppedError` on SIGTERM, Ctrl-C and a closed output within this block.

    Lightning's own handler only sets a flag during testing, which includes explanations, and reads
    it between batches. Lightning calls a handler that it finds installed, so this handler has to
    come first. Handlers that are not Python's defaults stay: submitit's ignores SIGTERM, because
    SLURM announces the end of a job by another signal. Only the main thread can have handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    here = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGPIPE and not _output_is_closed():
            return
        # Forked processes inherit this handler, and a terminal interrupts them too. If a data
        # loader exited by itself, that would look like a failure.
        if os.getpid() != here and number == signal.SIGINT:
            return
        # Child processes would delay the exit; joblib ends its own and must not find them dead.
        children = [
            child
            for child in multiprocessing.active_children()
            if not type(child).__module__.startswith("joblib")
        ]
        for child in children:
            child.terminate()
        for child in children:
            child.join(_GRACE)
            child.kill()
        raise StoppedError(128 + number)

    ours = {
        number: default
        for number, (default, _) in _SIGNALS.items()
        if signal.getsignal(number) is default
    }
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, default in ours.items():
            signal.signal(number, default)


def _output_is_closed() -> bool:
    """Return True if standard output is a closed pipe, and then redirect it to the null device.

    SIGPIPE also comes from pipes to other processes, which have their own error handling.
    """
    poller = select.poll()
    poller.register(1, 0)
    if not any(event & select.POLLERR for _, event in poller.poll(0)):
        return False
    # The interpreter flushes remaining output at exit, which would raise again.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    return True


def log_stop(error: StoppedError) -> int:
    """Print the reason for the stop and return the exit code."""
    code = int(error.code or CODE)
    _, name = _SIGNALS[signal.Signals(code - 128)]
    print(
        f"leuk: stopped by {name}; complete results and the last complete epoch are kept: run the "
        "same command again to resume",
        file=sys.stderr,
    )
    return code

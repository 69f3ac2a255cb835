"""SIGTERM, as ``docker stop`` and clusters send it, and Ctrl-C: the process leaves in order."""

import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

CODE = 128 + signal.SIGTERM
"""Exit code, as a shell gives it to a process that SIGTERM ended."""

_UNTOUCHED: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
}
"""What Python has for each signal where nobody installed anything."""

_NAMES = {
    128 + signal.SIGTERM: "SIGTERM",
    128 + signal.SIGINT: "Ctrl-C",
    128 + signal.SIGPIPE: "the end of the program that reads its output",
}

_GRACE = 3.0
"""Seconds that a process which fits or loads with this one has to leave by itself."""

_SAID = (
    "stopped by {}; what is complete is kept, and a fit its last whole epoch: the same "
    "command again goes on from there"
)


class StoppedError(SystemExit):
    """Raised where a signal finds the process, so that locks and temporary files are let go."""


@contextmanager
def leaves_on_signals() -> Iterator[None]:
    """Inside, SIGTERM and Ctrl-C raise :class:`StoppedError`, whatever is being done.

    Without, Lightning alone would take the first: while it tests, and explanations are part of
    that, it only notes it, and looks at the note between batches. It calls a handler that it finds
    installed, so this one is to be there first. One that is there already is left alone: that of
    submitit ignores SIGTERM, as SLURM announces the end of a job by another. Only a process's main
    thread can have one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    here = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGPIPE and not _output_is_closed():
            return
        # A process forked meanwhile inherits this, and a terminal interrupts it too. Were it to
        # leave by itself, such as one that loads batches, its end would pass for a fault.
        if os.getpid() == here or number != signal.SIGINT:
            _leave(number)

    ours = [number for number, usual in _UNTOUCHED.items() if signal.getsignal(number) is usual]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _UNTOUCHED[number])


def _output_is_closed() -> bool:
    """Return True where standard output is a pipe that nothing reads; point it to nowhere then.

    SIGPIPE also comes from pipes to other processes, whose ends are errors of their own.
    """
    poller = select.poll()
    poller.register(1, 0)
    if not any(event & select.POLLERR for _, event in poller.poll(0)):
        return False
    # The interpreter flushes what is left at its end, which would raise again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return True


def _leave(number: int) -> None:
    """End the processes that fit or load with this one, which it would wait for, and leave."""
    children = [child for child in multiprocessing.active_children() if not _of_joblib(child)]
    for child in children:
        child.terminate()
    for child in children:
        child.join(_GRACE)
        child.kill()
    raise StoppedError(128 + number)


def _of_joblib(child: BaseProcess) -> bool:
    """Whether joblib started a process; it ends its own, and takes any other end for a fault."""
    return type(child).__module__.startswith("joblib")


def say_stopped(error: StoppedError) -> int:
    """Tell the user what stopped the process, and give the exit code."""
    code = int(error.code or CODE)
    print(f"leuk: {_SAID.format(_NAMES[code])}", file=sys.stderr)
    return code

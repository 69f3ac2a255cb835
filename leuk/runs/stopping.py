"""SIGTERM, as ``docker stop`` and clusters send it: the process leaves at once and in order."""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType

CODE = 128 + signal.SIGTERM
"""Exit code, as a shell gives it to a process that this signal ended."""

_GRACE = 3.0
"""Seconds that a process which fits or loads with this one has to leave by itself."""

SAID = (
    "stopped by SIGTERM; what is complete is kept, and a fit its last whole epoch: the same "
    "command again goes on from there"
)


class StoppedError(SystemExit):
    """Raised where SIGTERM finds the process, so that locks and temporary files are let go."""


@contextmanager
def leaves_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises :class:`StoppedError`, whatever is being done.

    Without, Lightning alone would take the signal: while it tests, and explanations are part of
    that, it only notes it, and looks at the note between batches. It calls a handler that it finds
    installed, so this one is to be there first. One that is there already is left alone: that of
    submitit ignores the signal, as SLURM announces the end of a job by another. Only a process's
    main thread can have one.
    """
    ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the processes that fit or load with this one, which it would wait for, and leave."""
    children = [child for child in multiprocessing.active_children() if not _of_joblib(child)]
    for child in children:
        child.terminate()
    for child in children:
        child.join(_GRACE)
        child.kill()
    raise StoppedError(CODE)


def _of_joblib(child: BaseProcess) -> bool:
    """Whether joblib started a process; it ends its own, and takes any other end for a fault."""
    return type(child).__module__.startswith("joblib")


def say_stopped() -> int:
    """Tell the user of a stop, and give the exit code."""
    print(f"leuk: {SAID}", file=sys.stderr)
    return CODE

"""State of a run, determined only from its folder; used by starts, dry runs and summaries."""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from leuk.errors import StoreError
from leuk.runs.record import FILE, Record

LOCK = ".lock"
"""Lock file in a run's folder, held by the process that executes the run."""

_SHOWN = 5
"""Largest number of differing settings to list."""


class State(StrEnum):
    """State of a run."""

    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"
    """Started but not finished, and no process is executing it; a new start resumes it."""
    RUNNING = "running"
    """A process holds the lock file."""
    MISSING = "missing"
    OTHER = "other settings"
    """The folder holds a run of the same name with other settings."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, eq=False)
class Found:
    """State of a run, the reason in a sentence if there is one, and the record if readable."""

    state: State
    message: str = ""
    record: Record | None = None


def inspect_folder(folder: Path, expected: Record, ours: bool = False) -> Found:
    """Determine the state of a run without writing anything.

    Args:
        folder: folder of the run.
        expected: initial record that the run would have now.
        ours: True if the caller itself holds the lock file.
    """
    held = not ours and is_held(folder / LOCK)
    if not (folder / FILE).exists():
        return Found(State.RUNNING if held else State.MISSING)
    try:
        record = Record.read(folder)
    except StoreError as error:
        return Found(State.UNREADABLE, str(error))
    if record.fingerprint != expected.fingerprint:
        return Found(State.OTHER, ", ".join(differences(record, expected)), record)
    if record.status == "complete":
        return Found(State.COMPLETE, record=record)
    if held:
        return Found(State.RUNNING, record=record)
    if record.status == "failed":
        return Found(State.FAILED, record.reason, record)
    return Found(State.STOPPED, record=record)


def is_held(lock: Path) -> bool:
    """Return True if a process holds a lock file, or if this cannot be tested for lack of rights.

    Tested without filelock, as some versions truncate the file.
    """
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder."""
    try:
        held = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"{folder}: in use by another process; wait until it ends") from error
    with held:
        yield


def differences(before: Record, now: Record) -> list[str]:
    """List the settings in which two records differ, such as ``fit.epochs=3 (was 2)``."""
    old, new = (dict(_flat(record.settings, "")) for record in (before, now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if not old or not keys:
        return ["its record does not list them"]
    texts = [
        f"{key}={new.get(key, 'not set')} (was {old.get(key, 'not set')})" for key in keys[:_SHOWN]
    ]
    return texts + ([f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else [])


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- Errors of full, failing or read-only disks, with a remedy for each

_ROOM = "free some space (or raise the quota), or choose another disk with outputs=DIR"
_RIGHT = "grant this user write permission, or choose another folder with outputs=DIR"
_MOUNT = "mount the disk for writing, or choose another with outputs=DIR"
_GONE = "check the disk (or its server), or choose another with outputs=DIR"

_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: _MOUNT,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EIO: _GONE,
    errno.ESTALE: _GONE,
}

_SHORT = ("Not enough free space to write", "requested and", "unexpected pos")
"""Messages of NumPy and torch for a full disk, which replace the system's error."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Convert disk errors to messages with a remedy; all files are written atomically."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number is None and any(words in str(error) for words in _SHORT):
            number = errno.ENOSPC
        if number not in _ADVICE:
            raise
        path = getattr(error, "filename", None) or folder
        raise StoreError(
            f"{path}: {os.strerror(number)}; {_ADVICE[number]}, and start again to resume"
        ) from error

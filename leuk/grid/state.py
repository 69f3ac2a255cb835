"""How far a cell is, told from its folder alone: what a start, a dry run and a summary go by."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from leuk.errors import StoreError
from leuk.grid.record import FILE, Record

LOCK = ".lock"
"""File in a cell's folder that the process which works there holds."""

_SHOWN = 5
"""Differing keys that are named where there may be many."""


class State(StrEnum):
    """What a folder says of its cell."""

    COMPLETE = "complete"
    FAILED = "failed"
    STOPPED = "stopped"
    """Begun and not ended, by nobody's hand now; a start goes on with it."""
    RUNNING = "running"
    """A process holds the folder."""
    MISSING = "missing"
    OTHER = "other settings"
    """The folder holds a cell of the same name that was made of something else."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, eq=False)
class Found:
    """What lies in a cell's folder.

    Attributes:
        state: how far it is.
        said: one sentence on why it is no further; empty where the state says all.
        record: what was read; None where there is nothing to read.
    """

    state: State
    said: str = ""
    record: Record | None = None


def look_at(folder: Path, expected: Record, ours: bool = False) -> Found:
    """Tell how far a cell is; nothing is written.

    Args:
        folder: the cell's.
        expected: the record that it would begin with now.
        ours: whether the folder is held by the caller.
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
        message = record.error["message"].strip() if record.error else "no reason is given"
        return Found(State.FAILED, message.splitlines()[0], record)
    return Found(State.STOPPED, record=record)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file; one that may not be tried counts as held.

    Asked without filelock, some versions of which empty the file that they try.
    """
    try:
        asked = os.open(lock, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(asked, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(asked)
    return False


def differences(before: Record, now: Record) -> list[str]:
    """The settings in which two records differ: ``fit.epochs=3 (there 2)``."""
    old, new = (dict(_flat(record.settings, "")) for record in (before, now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if not old or not keys:
        return ["its record does not say which"]
    said = [f"{key}={_value(new, key)} (there {_value(old, key)})" for key in keys[:_SHOWN]]
    return said + ([f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else [])


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "not set"

"""Errors of full, failing or read-only disks, with a remedy for each."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leuk.errors import StoreError

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
    """Convert disk errors to messages with a remedy; all files are written atomically.

    Args:
        folder: working folder, used in the message if the error names no file.

    Raises:
        StoreError: replaces the system's error.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _cause(error)
        if number is None:
            raise
        where = getattr(error, "filename", None) or folder
        raise StoreError(
            f"{where}: {os.strerror(number)}; {_ADVICE[number]}, and start again to resume"
        ) from error


def _cause(error: OSError | RuntimeError) -> int | None:
    """Error number of a disk error; None for any other error."""
    number = getattr(error, "errno", None)
    if number is None:
        number = errno.ENOSPC if any(words in str(error) for words in _SHORT) else None
    return number if number in _ADVICE else None

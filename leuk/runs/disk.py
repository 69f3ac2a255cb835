"""What a disk that takes no more, or lets nothing be written, comes out as: what to do about it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leuk.errors import StoreError

_ROOM = "make room (or have the quota raised), or choose another disk with outputs=DIR"
_RIGHT = "give this user the right to write there, or choose another folder with outputs=DIR"
_MOUNT = "have the disk mounted for writing, or choose another with outputs=DIR"
_GONE = "see to the disk (or its server), or choose another with outputs=DIR"

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
"""What numpy and torch say of a full disk, in place of the system's error."""


@contextmanager
def told_of_disk(folder: Path) -> Iterator[None]:
    """Say what to do where the disk is why something cannot be written; files are whole or absent.

    Args:
        folder: where the work is done, named where the error names no file.

    Raises:
        StoreError: in place of the system's own error.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _cause(error)
        if number is None:
            raise
        where = getattr(error, "filename", None) or folder
        raise StoreError(
            f"{where}: {os.strerror(number)}; {_ADVICE[number]}, and start again, which goes on "
            "with what is whole"
        ) from error


def _cause(error: OSError | RuntimeError) -> int | None:
    """The system's number of a fault of the disk; None of anything else."""
    number = getattr(error, "errno", None)
    if number is None:
        number = errno.ENOSPC if any(words in str(error) for words in _SHORT) else None
    return number if number in _ADVICE else None

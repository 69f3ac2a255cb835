"""Files and folders that appear complete or not at all."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from leuk.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def ensure_writable(folder: Path, key: str) -> None:
    """Prove that a file can be written in ``folder``, and leave nothing there.

    Args:
        folder: folder of the results; if it is missing, the nearest existing parent is tried, so
            that a command that is refused later leaves no empty folder.
        key: the config key that chose it, named in the error.

    Raises:
        StoreError: the folder cannot be created or written to.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written ({error.strerror or error}); "
            f"choose another folder with {key}=DIR"
        ) from error


def ensure_room(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes are free on the disk of ``folder``.

    Raises:
        StoreError: the disk has too little free space; the message gives both sizes.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"{folder.parent}: needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make "
            "room or choose another disk with outputs=DIR"
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` when the block ends without an error.

    Readers see the old or the new file, never a partial one. The temporary file has the same
    suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON atomically; raise ValueError for NaN, which JSON lacks."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends without an error.

    After an error the folders above it are as they were.
    """
    missing = [path for path in target.parents if not path.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.replace(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in missing:
            with suppress(OSError):  # not empty: another process works there
                path.rmdir()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StoreError(
                f"{target}: {error.strerror}; no partial file is left; make room or choose "
                "another disk with outputs=DIR"
            ) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Files and folders that appear complete or not at all."""

import csv
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from leuk.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def ensure_writable(folder: Path, key: str) -> None:
    """Prove that a file can be written in a folder, or in its nearest existing parent.

    Nothing is left there, so that a command that is refused later leaves no empty folder.

    Raises:
        StoreError: the folder, chosen by the config key ``key``, cannot be created or written to.
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


# --- Hashes of settings, equal on every machine


def digest(value: Any) -> str:
    """Hash JSON-like values to 16 hexadecimal digits, independent of the order of dicts.

    Raises:
        TypeError: a value is not JSON-like; its ``repr`` could contain a memory address.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- Folders of results that a later command replaces once its user agrees


def refuse_loss(folder: Path, lost: Sequence[str], replace: bool) -> None:
    """Refuse to lose results in a folder that the new ones would not reproduce.

    Raises:
        StoreError: something would be lost, and the user has not set ``replace``.
    """
    if lost and not replace:
        raise StoreError(
            f"{folder}: {', '.join(lost)} would be lost; choose another folder with name=NAME, or "
            "allow it with replace=true"
        )


@dataclass(frozen=True)
class Replaceable:
    """A folder of results, and the condition for replacing it."""

    target: Path  # may be missing
    mark: str  # name of the JSON file in it that describes the results
    same: Mapping[str, str]  # keys and values of that file that the new results share
    # Patterns of the files that the command writes, relative to the folder; a folder with other
    # files, hidden ones aside, is never replaced.
    own: Sequence[str]
    replace: bool  # the user agrees to lose the results in it

    def check(self) -> None:
        """Refuse to lose files.

        Raises:
            StoreError: the folder holds results and ``replace`` is false, results of something
                else, or files of the user's.
        """
        if not self.target.exists():
            return
        try:
            found = json.loads((self.target / self.mark).read_text("utf-8"))
            other = [found[key] for key, value in self.same.items() if found[key] != value]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.target}: contains something other than results (no readable {self.mark}); "
                "move it away or set another name for the new results: name=NAME"
            ) from error
        if other:
            raise StoreError(
                f"{self.target}: holds the results of {', '.join(map(str, other))}; set "
                "another name for the new results: name=NAME"
            )
        refuse_loss(self.target, ["earlier results"], self.replace)
        known = (*self.own, ".*", "*/.*")
        foreign = [
            name
            for path in sorted(self.target.rglob("*"))
            if path.is_file()
            and (name := path.relative_to(self.target).as_posix())
            and not any(fnmatch(name, pattern) for pattern in known)
        ]
        if foreign:
            raise StoreError(
                f"{self.target}: {foreign[0]} is not leuk's and would be lost"
                f"{f', and {len(foreign) - 1} more' if foreign[1:] else ''}; move it away, or "
                "write beside it with name=NAME"
            )

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """Yield a temporary folder that becomes the target when the block ends without an error.

        Raises:
            StoreError: see :meth:`check`.
        """
        self.check()
        with whole_folder(self.target) as temporary:
            yield temporary
            if self.target.exists():
                shutil.rmtree(self.target)


# --- Safe reading of files in folders that may come from an untrusted source

_PACKED, _SMALL = 64, 2**20
"""Largest allowed ratio of unpacked to packed size, and unpacked bytes allowed in any case."""


def file_in(folder: Path, name: str) -> Path:
    """Path of a regular file in a folder, checked before use.

    Raises:
        OSError: no such file, or it is a pipe or device, on which reading could block forever.
        ValueError: the name, or a link in it, leads out of the folder.
    """
    base = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base:
        raise ValueError(f"{name!a} leads out of {folder}")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path}: not a regular file")
    return folder / name


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an ``.npz`` file into memory; object arrays are refused.

    Raises:
        OSError: no such file.
        ValueError: the file is damaged, or unpacks to far more than images or features would.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _PACKED * os.path.getsize(path) + _SMALL:
            raise ValueError(f"unpacks from {os.path.getsize(path)} to {unpacked} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise any kind
        raise ValueError(f"{type(error).__name__}: {error}") from error


# --- Content-addressed artifacts, found by the hash of everything that determines their content

log = logging.getLogger(__name__)

MANIFEST = "artifact.json"

_HASHED = 64 * 2**20
"""Largest size in bytes of a file whose content is checked at every use."""


_ONLY_FOUND: ContextVar[bool] = ContextVar("read_only", default=False)


class MissingArtifactError(StoreError):
    """An artifact is missing in a process that may not build any."""


@contextmanager
def read_only() -> Iterator[None]:
    """Forbid building and removing artifacts in this block; existing ones can be used.

    Raises:
        MissingArtifactError: an artifact is missing or damaged.
    """
    before = _ONLY_FOUND.set(True)
    try:
        yield
    finally:
        _ONLY_FOUND.reset(before)


def make_once(root: Path, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder of an artifact, building it first if it is missing or damaged.

    Args:
        root: folder of all artifacts.
        kind: kind such as ``pixels`` or ``gan``, the first folder level.
        key: every value that determines the content (JSON-like).
        build: function that writes the content into the given empty folder.

    Raises:
        MissingArtifactError: the artifact is missing or damaged, inside :func:`read_only`.
    """
    folder = root / kind / digest(key)
    if is_whole(folder):
        return folder
    _refuse_to_change(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s %s: being built by another process; waiting", kind, folder.name)
        lock.acquire()
    try:
        if not is_whole(folder):
            _build(folder, key, build)
    finally:
        lock.release()
    return folder


def discard(folder: Path) -> None:
    """Remove an artifact, so that it is built again when needed.

    Raises:
        MissingArtifactError: inside :func:`read_only`.
    """
    _refuse_to_change(folder)
    shutil.rmtree(folder)


def _refuse_to_change(folder: Path) -> None:
    if _ONLY_FOUND.get():
        raise MissingArtifactError(f"{folder}: not built yet")


def unfinished(root: Path, kind: str, key: Mapping[str, Any]) -> Path:
    """Folder for intermediate results from which an interrupted build can be resumed.

    Only the process that holds the artifact's lock may write to it and remove it.
    """
    return root / kind / unfinished_name(digest(key))


def unfinished_name(name: str) -> str:
    """Name of the folder :func:`unfinished` beside the artifact ``name``."""
    return f".{name}.unfinished"


def is_whole(folder: Path) -> bool:
    """Return True if all files of the manifest are in ``folder`` with the listed size and hash.

    A manifest that lists anything but regular files of the folder counts as damaged.
    """
    try:
        listed: dict[str, Any] = json.loads(file_in(folder, MANIFEST).read_text("utf-8"))["files"]
        return all(_facts(file_in(folder, name)) == facts for name, facts in listed.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


def _facts(path: Path) -> list[Any]:
    """Size and hash of a file; the content of large files is not hashed, to save time."""
    size = path.stat().st_size
    content = path.read_bytes() if size <= _HASHED else b""
    return [size, hashlib.sha256(content).hexdigest()[:16]]


def _build(folder: Path, key: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    if folder.exists():
        log.warning("%s: damaged or incomplete; building it again", folder)
        shutil.rmtree(folder)
    for remnant in folder.parent.glob(f".{folder.name}.*"):
        # From a killed build; intermediate results to resume from are kept.
        if remnant.is_dir() and remnant.name != unfinished_name(folder.name):
            shutil.rmtree(remnant, ignore_errors=True)
    with whole_folder(folder) as temporary:
        build(temporary)
        files = {
            path.relative_to(temporary).as_posix(): _facts(path)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {"key": dict(key), "files": files})


# --- CSV tables whose texts a spreadsheet does not run as formulas (OWASP, CSV injection)

_RUN = r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""First characters of a formula, full-width ones included."""

_FORMULA = re.compile(rf"(^|[;\t\r\n])('*)(?={_RUN})")
"""Formula at the start of a field; with a decimal comma, semicolons separate the fields."""

_INERT = re.compile(rf"(^|[;\t\r\n])'('*)(?={_RUN})")


def inert(text: str) -> str:
    """Text with an apostrophe before everything that a spreadsheet could run as a formula."""
    return _FORMULA.sub(r"\1'\2", text)


def restored(text: str) -> str:
    """Original text, before :func:`inert`."""
    # Checked first for speed, as very few of the many texts have an apostrophe.
    return _INERT.sub(r"\1\2", text) if "'" in text else text


def csv_text(table: pd.DataFrame, index_label: str | None = None) -> str:
    """Format a table as CSV with inert texts and unchanged numbers.

    Without an ``index_label``, the heading of the index column, the index is left out.
    """

    def safe_value(value: Any) -> Any:
        return inert(value) if isinstance(value, str) else value

    safe = table.rename(columns=safe_value, index=safe_value)
    values: list[Any] = [*safe.columns, *safe.index]
    for position, kind in enumerate(table.dtypes):
        if not (is_numeric_dtype(kind) or is_bool_dtype(kind)):
            column = [safe_value(value) for value in table.iloc[:, position]]
            safe.isetitem(position, column)
            values += column
    return safe.to_csv(
        index=index_label is not None,
        index_label=index_label,
        # Unquoted, a carriage return in a text would end the row.
        quoting=csv.QUOTE_NONNUMERIC if any("\r" in str(v) for v in values) else csv.QUOTE_MINIMAL,
    )

"""Content-addressed artifacts, found by the hash of everything that determines their content.

An artifact is a folder ``<root>/<kind>/<hash>/``. It is written to a temporary folder beside it,
which is renamed when complete. A file lock ensures that processes which need the same artifact at
the same time build it only once.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from leuk.errors import StoreError
from leuk.store.atomic import whole_folder, write_json
from leuk.store.digest import digest
from leuk.store.foreign import file_in

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

"""Content-addressed artefacts: made once, found by the hash of everything that determines them.

An artefact is a folder ``<root>/<kind>/<hash>/``. It is written beside its place and renamed when
whole, behind a file lock, so that processes that need the same one at the same time make it once.
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

MANIFEST = "artefact.json"

_HASHED = 64 * 2**20
"""Bytes of the largest file whose content is checked at every use."""


_ONLY_FOUND: ContextVar[bool] = ContextVar("only_found", default=False)


class NotMadeError(StoreError):
    """An artefact that would have to be made, where none may be."""


@contextmanager
def only_found() -> Iterator[None]:
    """Inside, artefacts are found and never made or thrown away; nothing is written.

    Raises:
        NotMadeError: where one is missing or damaged.
    """
    before = _ONLY_FOUND.set(True)
    try:
        yield
    finally:
        _ONLY_FOUND.reset(before)


def make_once(root: Path, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder of an artefact, building it first if it is missing or damaged.

    Args:
        root: folder of all artefacts.
        kind: what it is, such as ``pixels`` or ``gan``; the first folder level.
        key: every value that determines the content (JSON-like).
        build: writes the content into the empty folder it is given.

    Raises:
        NotMadeError: it is missing or damaged, inside :func:`only_found`.
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
        log.info("%s %s: another process is making it; waiting", kind, folder.name)
        lock.acquire()
    try:
        if not is_whole(folder):
            _build(folder, key, build)
    finally:
        lock.release()
    return folder


def discard(folder: Path) -> None:
    """Throw an artefact away, so that it is made anew.

    Raises:
        NotMadeError: inside :func:`only_found`.
    """
    _refuse_to_change(folder)
    shutil.rmtree(folder)


def _refuse_to_change(folder: Path) -> None:
    if _ONLY_FOUND.get():
        raise NotMadeError(f"{folder}: not made yet")


def unfinished(root: Path, kind: str, key: Mapping[str, Any]) -> Path:
    """Folder where the making of an artefact may leave what a later start can go on from.

    It is the maker's, who holds the artefact's lock, and the maker's to remove.
    """
    return root / kind / unfinished_name(digest(key))


def unfinished_name(name: str) -> str:
    """Name of the folder beside an artefact ``name`` that its making can go on from."""
    return f".{name}.unfinished"


def is_whole(folder: Path) -> bool:
    """Whether ``folder`` holds every file its manifest lists, as it lists them.

    A manifest that names what is no plain file of the folder is damaged.
    """
    try:
        listed: dict[str, Any] = json.loads(file_in(folder, MANIFEST).read_text("utf-8"))["files"]
        return all(_facts(file_in(folder, name)) == facts for name, facts in listed.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


def _facts(path: Path) -> list[Any]:
    """Size and hash of a file; large ones go by their size alone, as reading them takes long."""
    size = path.stat().st_size
    content = path.read_bytes() if size <= _HASHED else b""
    return [size, hashlib.sha256(content).hexdigest()[:16]]


def _build(folder: Path, key: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    if folder.exists():
        log.warning("%s: damaged or incomplete; making it again", folder)
        shutil.rmtree(folder)
    for left in folder.parent.glob(f".{folder.name}.*"):
        # By a maker that was killed; what it can go on from stays.
        if left.is_dir() and left.name != unfinished_name(folder.name):
            shutil.rmtree(left, ignore_errors=True)
    with whole_folder(folder) as temporary:
        build(temporary)
        files = {
            path.relative_to(temporary).as_posix(): _facts(path)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {"key": dict(key), "files": files})

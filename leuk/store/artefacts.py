"""Content-addressed artefacts: made once, found by the hash of everything that determines them.

An artefact is a folder ``<root>/<kind>/<hash>/``. It is written beside its place and renamed when
whole, behind a file lock, so that processes that need the same one at the same time make it once.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from leuk.store.atomic import whole_folder, write_json
from leuk.store.digest import digest

log = logging.getLogger(__name__)

MANIFEST = "artefact.json"


def make_once(root: Path, kind: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder of an artefact, building it first if it is missing or damaged.

    Args:
        root: folder of all artefacts.
        kind: what it is, such as ``pixels`` or ``gan``; the first folder level.
        key: every value that determines the content (JSON-like).
        build: writes the content into the empty folder it is given.
    """
    folder = root / kind / digest(key)
    if is_whole(folder):
        return folder
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


def is_whole(folder: Path) -> bool:
    """Whether ``folder`` holds every file its manifest lists, at the size it lists."""
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _build(folder: Path, key: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    if folder.exists():
        log.warning("%s: damaged or incomplete; making it again", folder)
        shutil.rmtree(folder)
    with whole_folder(folder) as temporary:
        build(temporary)
        files = {
            path.relative_to(temporary).as_posix(): path.stat().st_size
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        write_json(temporary / MANIFEST, {"key": dict(key), "files": files})

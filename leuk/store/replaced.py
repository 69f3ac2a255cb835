"""Folders of results that are replaced when the same command runs again."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from leuk.errors import StoreError
from leuk.store.atomic import whole_folder


def check_replaceable(target: Path, mark: str, same: Mapping[str, str]) -> None:
    """Check that a folder is missing or holds earlier results of the same thing.

    Args:
        target: folder of the results.
        mark: name of the JSON file in the folder that identifies its results.
        same: entries that this file must have.

    Raises:
        StoreError: the folder holds other results or other files.
    """
    if not target.exists():
        return
    try:
        found = json.loads((target / mark).read_text("utf-8"))
        other = [found[key] for key, value in same.items() if found[key] != value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{target}: not a folder of results (no readable {mark}); move it away or choose "
            "another name: name=NAME"
        ) from error
    if other:
        raise StoreError(
            f"{target}: holds the results of {', '.join(map(str, other))}; choose another name: "
            "name=NAME"
        )


@contextmanager
def replaced_folder(target: Path, mark: str, same: Mapping[str, str]) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``target`` when the block ends without an error.

    Args:
        target: folder of the results, which may exist from an earlier run.
        mark: see :func:`check_replaceable`.
        same: see :func:`check_replaceable`.

    Raises:
        StoreError: see :func:`check_replaceable`.
    """
    check_replaceable(target, mark, same)
    with whole_folder(target) as temporary:
        yield temporary
        if target.exists():
            shutil.rmtree(target)

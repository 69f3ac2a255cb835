"""Folders of results that a later run of the same thing takes the place of."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from leuk.errors import StoreError
from leuk.store.atomic import whole_folder


def check_replaceable(target: Path, mark: str, same: Mapping[str, str]) -> None:
    """Refuse a folder that holds the results of something else.

    Args:
        target: the folder; none is fine.
        mark: name of the JSON file in it that says what it is of.
        same: what that file has to say.

    Raises:
        StoreError: saying what the folder holds.
    """
    if not target.exists():
        return
    try:
        found = json.loads((target / mark).read_text("utf-8"))
        other = [found[key] for key, value in same.items() if found[key] != value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{target}: holds something else than results (no readable {mark}); move it away or "
            "give these a name of their own: name=NAME"
        ) from error
    if other:
        raise StoreError(
            f"{target}: holds the results of {', '.join(map(str, other))}; give these a name of "
            "their own: name=NAME"
        )


@contextmanager
def replaced_folder(target: Path, mark: str, same: Mapping[str, str]) -> Iterator[Path]:
    """Give a temporary folder that takes the place of ``target`` when the block ends well.

    Args:
        target: the folder, which may be there from an earlier run of the same thing.
        mark: see :func:`check_replaceable`.
        same: likewise.

    Raises:
        StoreError: see :func:`check_replaceable`.
    """
    check_replaceable(target, mark, same)
    with whole_folder(target) as temporary:
        yield temporary
        if target.exists():
            shutil.rmtree(target)

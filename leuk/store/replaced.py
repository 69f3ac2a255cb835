"""Folders of results that a later command replaces once its user agrees."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from leuk.errors import StoreError
from leuk.store.atomic import whole_folder


@dataclass(frozen=True)
class Replaceable:
    """A folder of results, and the condition for replacing it.

    Attributes:
        target: the folder; it may be missing.
        mark: name of the JSON file in it that describes the results.
        same: keys and values of that file that the new results share.
        own: patterns of the files that the command writes, relative to the folder; a folder with
            other files than these, hidden ones aside, is never replaced.
        replace: whether the user agrees to lose the results in it.
    """

    target: Path
    mark: str
    same: Mapping[str, str]
    own: Sequence[str]
    replace: bool

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
        if not self.replace:
            raise StoreError(
                f"{self.target}: holds earlier results; write beside them with name=NAME, or "
                "replace them with replace=true"
            )
        if foreign := self._foreign():
            raise StoreError(
                f"{self.target}: {foreign[0]} is not leuk's and would be lost"
                f"{f', and {len(foreign) - 1} more' if foreign[1:] else ''}; move it away, or "
                "write beside it with name=NAME"
            )

    def _foreign(self) -> list[str]:
        files = (path for path in sorted(self.target.rglob("*")) if path.is_file())
        names = (path.relative_to(self.target).as_posix() for path in files)
        return [
            name
            for name in names
            if not any(fnmatch(name, pattern) for pattern in (*self.own, ".*", "*/.*"))
        ]

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

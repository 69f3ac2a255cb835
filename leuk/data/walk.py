"""Safe listing of the files below a folder, without opening any.

Untrusted folders can contain links to other places, pipes and devices.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SPECIAL = "a pipe, device or socket, not a file; remove it"

_METADATA = {"thumbs.db", "desktop.ini", "icon\r"}
"""Metadata files of Windows and macOS in lower case, in addition to dot files."""

_REORDERS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_HIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, undecodable bytes and line breaks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a folder that cannot be listed.

    Attributes:
        path: path relative to the listed folder, with forward slashes.
        problem: reason not to open it, and remedy; empty if it can be opened.
        folder: True for a folder.
    """

    path: str
    problem: str = ""
    folder: bool = False


def files_below(root: Path) -> Iterator[Entry]:
    """List the files below a folder, sorted by name, without hidden folders.

    Links are followed, each folder once, if they point below ``root`` or into the store of the
    download tool that created ``root``, see :func:`_stores`. Broken links count as files, so that
    opening them reports the problem.
    """
    base = os.path.realpath(root)
    allowed = [base, *_stores(base)]
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(os.path.join(base, folder))
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(real) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield Entry(folder, f"{error.strerror}; make it readable or remove it", folder=True)
            continue
        below: list[str] = []
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            problem, is_folder = _inspect(entry, allowed)
            if not is_folder:
                yield Entry(path, problem)
            elif not entry.name.startswith("."):
                if problem:
                    yield Entry(path, problem, folder=True)
                else:
                    below.append(path)
        waiting += reversed(below)


def _stores(base: str) -> list[str]:
    """Return the folders in which download tools store the targets of a data set's links.

    Hugging Face's hub links ``snapshots/<revision>/`` to the sibling folder ``blobs/``; git-annex
    and DVC link a work tree to folders at its top. Only stores above ``base`` are allowed, because
    an untrusted archive could contain a store with links to other places.
    """
    found = []
    folder = base
    while folder != (above := os.path.dirname(folder)):
        if os.path.basename(above) == "snapshots":
            found.append(os.path.join(os.path.dirname(above), "blobs"))
        found += [os.path.join(folder, store) for store in (".git/annex/objects", ".dvc/cache")]
        folder = above
    return found


def _inspect(entry: os.DirEntry[str], allowed: Sequence[str]) -> tuple[str, bool]:
    """Return the problem of an entry, or an empty string, and True for a folder."""
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "", True
        return ("" if entry.is_file(follow_symlinks=False) else SPECIAL), False
    target = os.path.realpath(entry.path)
    is_folder = os.path.isdir(target)
    if not os.path.exists(target):
        return "", False
    if not any(os.path.commonpath([base, target]) == base for base in allowed):
        text = (
            f"a link that leads out of the folder, to {printable(target)}; put the {{}} itself "
            "there, for example with cp -rL"
        )
        return text.format("folder" if is_folder else "file"), is_folder
    return ("" if is_folder or os.path.isfile(target) else SPECIAL), is_folder


def is_metadata(path: str) -> bool:
    """Return True for metadata files of an operating system, such as ``.DS_Store``."""
    *folders, name = path.split("/")
    return name.startswith(".") or name.lower() in _METADATA or "__MACOSX" in folders


def is_plain(name: str) -> bool:
    """Return True if a name has no control characters and can be printed anywhere."""
    return name.isprintable() or not any(map(_is_hidden, name))


def _is_hidden(letter: str) -> bool:
    return letter in _REORDERS or unicodedata.category(letter) in _HIDDEN_CATEGORIES


def printable(name: str) -> str:
    r"""Escape a file name for terminals, pages and tables.

    Bytes that are not UTF-8, control characters and characters that change the writing direction
    become escapes such as ``\x1b``.
    """
    return name if is_plain(name) else "".join(map(_escaped, name))


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # Python's representation of an undecodable byte
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode() if _is_hidden(letter) else letter

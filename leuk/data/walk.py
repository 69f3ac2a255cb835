"""The files below a folder and which of them can be no cells, told without opening one.

Before the layouts: what comes from somebody else may hold links to anywhere, pipes and devices.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SPECIAL = "no file but a pipe, device or socket; remove it"

_METADATA = {"thumbs.db", "desktop.ini", "icon\r"}
"""Files of Windows and macOS, in lower case, beside those whose names begin with a dot."""

_REORDERS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, bytes that are no text, breaks of lines."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, or one folder that is not looked into.

    Attributes:
        path: relative to the folder that was asked for, with forward slashes.
        wrong: why it is not to be opened, and what to do; empty where it may be.
        folder: whether it is a folder.
    """

    path: str
    wrong: str = ""
    folder: bool = False


def files_below(root: Path) -> Iterator[Entry]:
    """Files below a folder, by name; hidden folders are left out.

    Links are followed, each folder once, as long as they stay below ``root`` or end in the store of
    the download that ``root`` is part of, see :func:`_stores`. The end of a broken link counts as a
    file, so that who opens it says what is wrong.
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
            wrong, is_folder = _looked_at(entry, allowed)
            if not is_folder:
                yield Entry(path, wrong)
            elif not entry.name.startswith("."):
                if wrong:
                    yield Entry(path, wrong, folder=True)
                else:
                    below.append(path)
        waiting += reversed(below)


def _stores(base: str) -> list[str]:
    """Folders where tools that download a data set keep the files that its links point to.

    Hugging Face's hub links ``snapshots/<revision>/`` to ``blobs/`` beside it, git-annex and DVC
    link a work tree to folders at its top. All lie in folders above ``base``, so that links in a
    foreign archive cannot point out of it by way of a store that the archive brings.
    """
    found = []
    folder = base
    while folder != (above := os.path.dirname(folder)):
        if os.path.basename(above) == "snapshots":
            found.append(os.path.join(os.path.dirname(above), "blobs"))
        found += [os.path.join(folder, store) for store in (".git/annex/objects", ".dvc/cache")]
        folder = above
    return found


def _looked_at(entry: os.DirEntry[str], allowed: Sequence[str]) -> tuple[str, bool]:
    """What is wrong with an entry, and whether it is a folder."""
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "", True
        return ("" if entry.is_file(follow_symlinks=False) else SPECIAL), False
    target = os.path.realpath(entry.path)
    is_folder = os.path.isdir(target)
    if not os.path.exists(target):
        return "", False
    if not any(os.path.commonpath([place, target]) == place for place in allowed):
        text = (
            f"a link that leads out of the folder, to {shown(target)}; put the {{}} itself there, "
            "as cp -rL copies it"
        )
        return text.format("folder" if is_folder else "file"), is_folder
    return ("" if is_folder or os.path.isfile(target) else SPECIAL), is_folder


def is_metadata(path: str) -> bool:
    """Return True for files that an operating system keeps beside others, such as ``.DS_Store``."""
    *folders, name = path.split("/")
    return name.startswith(".") or name.lower() in _METADATA or "__MACOSX" in folders


def is_plain(name: str) -> bool:
    """Whether a name is text without control characters, so that it can stand in any table."""
    return name.isprintable() or not any(map(_unseen, name))


def _unseen(letter: str) -> bool:
    return letter in _REORDERS or unicodedata.category(letter) in _UNSEEN


def shown(name: str) -> str:
    r"""A name as any terminal, page or table can show it; those of files may be any bytes.

    Bytes that are no UTF-8, control characters and what changes the direction of writing become
    escapes such as ``\x1b``.
    """
    return name if is_plain(name) else "".join(map(_escaped, name))


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte of a name that is no text
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode() if _unseen(letter) else letter

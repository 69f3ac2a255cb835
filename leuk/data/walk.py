"""The files below a folder and which of them can be no cells, told without opening one.

Before the layouts: what comes from somebody else may hold links to anywhere, pipes and devices.
"""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPECIAL = "no file but a pipe, device or socket; remove it"

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

    Links are followed, each folder once, as long as they stay below ``root``. The end of a broken
    link counts as a file, so that who opens it says what is wrong.
    """
    base = os.path.realpath(root)
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
            wrong, is_folder = _looked_at(entry, base)
            if not is_folder:
                yield Entry(path, wrong)
            elif not entry.name.startswith("."):
                if wrong:
                    yield Entry(path, wrong, folder=True)
                else:
                    below.append(path)
        waiting += reversed(below)


def _looked_at(entry: os.DirEntry[str], base: str) -> tuple[str, bool]:
    """What is wrong with an entry, and whether it is a folder."""
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "", True
        return ("" if entry.is_file(follow_symlinks=False) else SPECIAL), False
    target = os.path.realpath(entry.path)
    is_folder = os.path.isdir(target)
    if not os.path.exists(target):
        return "", False
    if os.path.commonpath([base, target]) != base:
        text = f"a link that leads out of the folder, to {shown(target)}; put the {{}} itself there"
        return text.format("folder" if is_folder else "file"), is_folder
    return ("" if is_folder or os.path.isfile(target) else SPECIAL), is_folder


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

"""Index of C-NMC image folders in all common layouts.

First step of the data flow: labels, subjects and source folds from file and folder names, with the
problems found.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leuk.data.labels import UNLABELED, Label
from leuk.data.walk import files_below, is_metadata, is_plain, printable
from leuk.errors import DataError

PRELIM, FINAL, MERGED = "prelim", "final", "merged"
"""Source folds besides ``fold_0`` to ``fold_2``: both test sets, and folders without folds."""

_PHASES = {"prelim_phase": PRELIM, "final_phase": FINAL}
IMAGE_SUFFIXES = {".bmp", ".png"}
LABELS_CSV = ("Patient_ID", "new_names", "labels")
"""Columns of the preliminary set's label table, where label 1 is ALL."""

UID_FORM = "UID_<subject>_<image>_<cell>_all or ..._hem"
"""File names of C-NMC's labeled images, for messages."""

NUMBERED = (
    "it is numbered like C-NMC's test images; rename its folder to C-NMC_test_prelim_phase_data or "
    "C-NMC_test_final_phase_data"
)
"""Reason why a numbered image in another folder is not read."""

BAD_NAME = "its name has control characters or is not UTF-8; rename it"

_CLASS = {label.folder: label for label in Label}
_FOLD = re.compile(r"fold_?([0-9]{1,9})", re.IGNORECASE)
UID = re.compile(
    r"UID_H?(?P<subject>[0-9]{1,12})_[0-9]{1,12}_[0-9]{1,12}_(?P<label>all|hem)",
    re.IGNORECASE | re.ASCII,
)
_TEST_SET = re.compile("prelim|final|test|val", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")

COLUMNS = ["path", "label", "subject", "source_fold", "name"]


@dataclass(frozen=True)
class Problem:
    """A problem of a file or table row.

    Attributes:
        kind: kind of problem, such as ``label conflict``.
        path: path of the file, with the line number for a table row.
        text: problem and remedy.
    """

    kind: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True)
class Index:
    """Content of an image folder.

    Attributes:
        table: one row per image, sorted by path: ``path`` (relative, forward slashes), ``label`` (a
            :class:`Label` or :data:`UNLABELED`), ``subject`` (unique over both classes, such as
            ``ALL-11``; empty if unknown), ``source_fold``, ``name`` (C-NMC's name of the image).
        problems: unusable files, and files and table rows that contradict each other; the table
            omits these images.
        strays: relative paths of files that do not belong to C-NMC.
        unread: strays that are images in folders of C-NMC, with the reason.
    """

    table: pd.DataFrame
    problems: list[Problem]
    strays: list[str]
    unread: list[Problem]


def read_folder(root: Path) -> Index:
    """Index the images below ``root``.

    Supports BMP and PNG in the folders of the archive and of Kaggle, with repeated folder names (as
    some tools unpack them), and merged into ``all`` and ``hem``.

    Args:
        root: a folder at or above the images.

    Raises:
        DataError: the folder is missing, or the label table cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set data.root=DIR to the C-NMC images")
    rows: list[tuple[str, int, str, str, str]] = []
    problems: list[Problem] = []
    strays: list[str] = []
    unread: list[Problem] = []
    numbered: list[str] = []
    elsewhere: list[str] = []
    tables: list[str] = []
    parsed: dict[str, tuple[str | None, Label | None]] = {}
    root_name = root.resolve().name
    for entry in files_below(root):
        path = entry.path
        folder, _, name = path.rpartition("/")
        if folder not in parsed:
            names = folder.split("/") if folder else []
            parsed[folder] = _fold_and_label([root_name, *names])
        fold, label = parsed[folder]
        stem, suffix = os.path.splitext(name)
        match = UID.fullmatch(stem)
        is_image = suffix.lower() in IMAGE_SUFFIXES
        is_table = _is_labels_csv(name)
        if is_metadata(path) and not entry.folder:
            strays.append(printable(path))
            continue
        problem = entry.problem or ("" if is_plain(path) else BAD_NAME)
        if problem and (is_image or is_table or entry.folder):
            problems.append(Problem("unusable file", printable(path), problem))
        elif is_image and label is not None and match is not None:
            _add_named(path, fold or MERGED, label, match, rows, problems)
        elif is_image and label is None and fold == PRELIM and _NUMBER.fullmatch(stem):
            numbered.append(path)
        elif is_image and label is None and fold == FINAL and _NUMBER.fullmatch(stem):
            rows.append((path, UNLABELED, "", FINAL, name))
        elif is_table:
            tables.append(path)
        elif is_image and label is None and fold is None and _NUMBER.fullmatch(stem):
            elsewhere.append(path)
        else:
            strays.append(printable(path))
            if is_image and (reason := _unread_reason(fold, label, match)):
                unread.append(Problem("image not read", printable(path), reason))
    _add_numbered(root, numbered, tables, elsewhere, rows, problems)
    strays += elsewhere
    unread += [
        Problem("image not read", path, NUMBERED)
        for path in elsewhere
        if _TEST_SET.search(Path(path).parent.name)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values("path", ignore_index=True)
    return Index(_drop_repeated(table, problems), problems, sorted(strays), unread)


def _unread_reason(fold: str | None, label: Label | None, match: re.Match[str] | None) -> str:
    """Explain why an image is not read; empty if nothing suggests that it belongs to C-NMC."""
    if match is not None:
        return "its folder is neither all nor hem; move it into the one that its name states"
    if label is not None or fold in (PRELIM, FINAL):
        expected = UID_FORM if label is not None else "a number"
        return f"its name is not {expected}; rename it, or remove it if it is a copy"
    return ""


def _fold_and_label(folders: list[str]) -> tuple[str | None, Label | None]:
    """Parse source fold and class from the folder names of a file; the innermost fold counts."""
    label = _CLASS.get(folders[-1].lower())
    for folder in reversed(folders):
        if match := _FOLD.fullmatch(folder):
            return f"fold_{int(match[1])}", label
        for phase, fold in _PHASES.items():
            if phase in folder.lower():
                return fold, label
    return None, label


def _is_labels_csv(name: str) -> bool:
    lower = name.lower()
    return lower.endswith(".csv") and "prelim_phase" in lower and "label" in lower


def parse_subject(match: re.Match[str]) -> str:
    """Key of the subject in an image's name, with the class: 19 numbers occur in both classes."""
    return f"{parse_label(match).name}-{int(match['subject'])}"


def parse_label(match: re.Match[str]) -> Label:
    """Class in an image's name."""
    return _CLASS[match["label"].lower()]


def _add_named(
    path: str,
    fold: str,
    label: Label,
    match: re.Match[str],
    rows: list[tuple[str, int, str, str, str]],
    problems: list[Problem],
) -> None:
    if parse_label(match) is label:
        rows.append((path, int(label), parse_subject(match), fold, match[0]))
        return
    text = f"in folder {label.folder}, but its name ends in {match['label']}; move or remove it"
    problems.append(Problem("label conflict", path, text))


def _add_numbered(
    root: Path,
    numbered: list[str],
    tables: list[str],
    elsewhere: list[str],
    rows: list[tuple[str, int, str, str, str]],
    problems: list[Problem],
) -> None:
    """Add the preliminary set's numbered files with the labels and names of its table."""
    if not tables:
        rows += [(path, UNLABELED, "", PRELIM, Path(path).name) for path in numbered]
        if numbered:
            folder = Path(min(numbered)).parent
            text = "no label table; put C-NMC_test_prelim_phase_data_labels.csv beside it"
            problems.append(Problem("no table", str(folder), text))
        return
    entries: dict[str, tuple[int, str, str]] = {}
    for table in tables:
        _read_labels(root, table, entries, problems)
    for path in numbered:
        number = Path(path).stem
        if number in entries:
            label, subject, name = entries.pop(number)
            rows.append((path, label, subject, PRELIM, name))
        else:
            text = f"its label is missing in {tables[0]}; complete the table or remove the file"
            problems.append(Problem("file without row", path, text))
    folders = Counter(Path(path).parent for path in elsewhere if Path(path).stem in entries)
    folder, count = max(folders.items(), key=lambda item: item[1], default=(Path(), 0))
    if count > len(entries) / 2:
        text = (
            f"{count} of its images have the numbers of the {len(entries)} rows without a file in "
            f"{tables[0]}; rename the folder to C-NMC_test_prelim_phase_data"
        )
        problems.append(Problem("folder not read", str(folder), text))
        elsewhere[:] = [path for path in elsewhere if Path(path).parent != folder]
        return
    for number, (_, _, name) in entries.items():
        text = f"row {number} ({name}) has no file; download the image or remove the row"
        problems.append(Problem("row without file", tables[0], text))


def _read_labels(
    root: Path, table: str, entries: dict[str, tuple[int, str, str]], problems: list[Problem]
) -> None:
    """Read label, subject and original name of each numbered file from the table."""
    try:
        frame = pd.read_csv(root / table, dtype=str, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{root / table}: cannot be read ({error}); download it again") from error
    if missing := [column for column in LABELS_CSV if column not in frame.columns]:
        found = printable(", ".join(map(str, frame.columns)))
        raise DataError(f"{root / table}: no column {missing[0]}; found: {found}")
    for line, row in enumerate(frame[list(LABELS_CSV)].itertuples(index=False), start=2):
        patient, new_name, label = (printable(str(value).strip()) for value in row)
        match = UID.fullmatch(Path(patient).stem)
        location = f"{table}:{line}"
        if match is None or label not in ("0", "1"):
            text = f"{patient},{new_name},{label}: expected UID_..._all or _hem and label 0 or 1"
            problems.append(Problem("unknown label", location, text))
        elif parse_label(match) != int(label):
            text = f"name {match['label']}, but label {label} ({Label(int(label)).folder})"
            problems.append(Problem("label conflict", location, text))
        else:
            entry = int(label), parse_subject(match), match[0]
            first = entries.setdefault(Path(new_name).stem, entry)
            if first != entry:
                text = f"{new_name} is {first[2]} in another row; remove a row"
                problems.append(Problem("label conflict", location, text))


def _drop_repeated(table: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Omit repeated names, which result from two formats or copies of C-NMC.

    Case is ignored, as on many file systems.
    """
    labeled = table[table["label"] != UNLABELED]
    names = labeled["name"].str.lower()
    again = names[names.duplicated()]
    first = labeled.loc[~names.duplicated(), "path"].set_axis(names[~names.duplicated()])
    twice = table.loc[again.index, ["path", "name"]]
    for path, name in twice.itertuples(index=False):
        text = f"{name} exists twice, first as {first[name.lower()]}; set data.root to one copy"
        problems.append(Problem("name twice", path, text))
    return table.drop(index=again.index).reset_index(drop=True)

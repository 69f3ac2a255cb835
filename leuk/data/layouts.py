"""Where the images of C-NMC lie, in every layout in use, and what their names say.

First station of the flow: from a folder to what its files claim to be, and what is wrong with them.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leuk.data.labels import UNLABELED, Label
from leuk.data.walk import files_below, is_metadata, is_plain, shown
from leuk.errors import DataError

PRELIM, FINAL, MERGED = "prelim", "final", "merged"
"""Parts beside ``fold_0`` to ``fold_2``: the two test sets, and folders whose folds were lost."""

_PHASES = {"prelim_phase": PRELIM, "final_phase": FINAL}
IMAGE_SUFFIXES = {".bmp", ".png"}
LABELS_CSV = ("Patient_ID", "new_names", "labels")
"""Columns of the preliminary set's table; its label 1 is ALL."""

UID_FORM = "UID_<subject>_<image>_<cell>_all or ..._hem"
"""C-NMC's names of labeled images, for messages."""

UNPLACED = (
    "it is numbered as C-NMC's test images are; rename its folder to C-NMC_test_prelim_phase_data "
    "or C-NMC_test_final_phase_data"
)
"""Reason why an image that is a number is not read in a folder of another name."""

BAD_NAME = "its name has control characters or bytes that are no UTF-8; rename it"

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
    """Something wrong with one file or row.

    Attributes:
        kind: such as ``label conflict``.
        path: the file, and the line of a table.
        text: what is wrong and what to do.
    """

    kind: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True)
class Index:
    """What lies under a folder.

    Attributes:
        cells: one row a cell, sorted by path: ``path`` (relative, forward slashes), ``label`` (a
            :class:`Label` or :data:`UNLABELED`), ``subject`` (unique over both classes, such as
            ``ALL-11``; empty where unknown), ``part``, ``name`` (C-NMC's own name of the image).
        problems: files and rows that contradict each other; their cells are left out.
        strays: files that are no part of C-NMC, relative.
        unread: those strays that are images where C-NMC has its own, with the reason.
    """

    table: pd.DataFrame
    problems: list[Problem]
    strays: list[str]
    unread: list[Problem]


def read_folder(root: Path) -> Index:
    """Find the cells under ``root``, whatever its layout.

    Known are the archive's and Kaggle's folders, folders in folders of the same name as unpacking
    makes them, and folders merged to ``all`` and ``hem``; BMP or PNG.

    Args:
        root: a folder at or above the images.

    Raises:
        DataError: there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; point data.root=DIR at the C-NMC images")
    rows: list[tuple[str, int, str, str, str]] = []
    problems: list[Problem] = []
    strays: list[str] = []
    unread: list[Problem] = []
    numbered: list[str] = []
    unplaced: list[str] = []
    tables: list[str] = []
    here, places = root.resolve().name, dict[str, tuple[str | None, Label | None]]()
    for entry in files_below(root):
        path = entry.path
        folder, _, name = path.rpartition("/")
        if folder not in places:
            places[folder] = _place([here, *folder.split("/")] if folder else [here])
        part, label = places[folder]
        stem, suffix = os.path.splitext(name)
        match = UID.fullmatch(stem)
        is_image = suffix.lower() in IMAGE_SUFFIXES
        is_table = _is_labels_csv(name)
        if is_metadata(path) and not entry.folder:
            strays.append(shown(path))
            continue
        wrong = entry.wrong or ("" if is_plain(path) else BAD_NAME)
        if wrong and (is_image or is_table or entry.folder):
            problems.append(Problem("unusable file", shown(path), wrong))
        elif is_image and label is not None and match is not None:
            _take_named(path, part or MERGED, label, match, rows, problems)
        elif is_image and label is None and part == PRELIM and _NUMBER.fullmatch(stem):
            numbered.append(path)
        elif is_image and label is None and part == FINAL and _NUMBER.fullmatch(stem):
            rows.append((path, UNLABELED, "", FINAL, name))
        elif is_table:
            tables.append(path)
        elif is_image and label is None and part is None and _NUMBER.fullmatch(stem):
            unplaced.append(path)
        else:
            strays.append(shown(path))
            if is_image and (reason := _unread(part, label, match)):
                unread.append(Problem("image not read", shown(path), reason))
    _take_numbered(root, numbered, tables, unplaced, rows, problems)
    strays += unplaced
    unread += [
        Problem("image not read", path, UNPLACED)
        for path in unplaced
        if _TEST_SET.search(Path(path).parent.name)
    ]
    cells = pd.DataFrame(rows, columns=COLUMNS).sort_values("path", ignore_index=True)
    return Index(_drop_repeated(cells, problems), problems, sorted(strays), unread)


def _unread(part: str | None, label: Label | None, match: re.Match[str] | None) -> str:
    """Reason why an image is not read; empty where nothing suggests that it is one of C-NMC's."""
    if match is not None:
        return "its folder is neither all nor hem; move it into the one that its name says"
    if label is not None or part in (PRELIM, FINAL):
        expected = UID_FORM if label is not None else "a number"
        return f"its name is not {expected}; rename it, or remove it if it is a copy"
    return ""


def _place(folders: list[str]) -> tuple[str | None, Label | None]:
    """The part and class that the folders of a file say; the nearest folder counts."""
    label = _CLASS.get(folders[-1].lower())
    for folder in reversed(folders):
        if fold := _FOLD.fullmatch(folder):
            return f"fold_{int(fold[1])}", label
        for phase, part in _PHASES.items():
            if phase in folder.lower():
                return part, label
    return None, label


def _is_labels_csv(name: str) -> bool:
    lower = name.lower()
    return lower.endswith(".csv") and "prelim_phase" in lower and "label" in lower


def subject_of(match: re.Match[str]) -> str:
    """A subject's key; 19 numbers stand for two subjects, so the class belongs to it."""
    return f"{label_of(match).name}-{int(match['subject'])}"


def label_of(match: re.Match[str]) -> Label:
    """Class that C-NMC's name of an image says."""
    return _CLASS[match["label"].lower()]


def _take_named(
    path: str,
    part: str,
    label: Label,
    match: re.Match[str],
    rows: list[tuple[str, int, str, str, str]],
    problems: list[Problem],
) -> None:
    if label_of(match) is label:
        rows.append((path, int(label), subject_of(match), part, match[0]))
        return
    text = f"the folder says {label.folder}, the name says {match['label']}; move or remove it"
    problems.append(Problem("label conflict", path, text))


def _take_numbered(
    root: Path,
    numbered: list[str],
    tables: list[str],
    unplaced: list[str],
    rows: list[tuple[str, int, str, str, str]],
    problems: list[Problem],
) -> None:
    """Give the preliminary set's numbered files the labels and names of its table."""
    if not tables:
        rows += [(path, UNLABELED, "", PRELIM, Path(path).name) for path in numbered]
        if numbered:
            place = str(Path(min(numbered)).parent)
            text = "no table of labels; put C-NMC_test_prelim_phase_data_labels.csv beside it"
            problems.append(Problem("no table", place, text))
        return
    said: dict[str, tuple[int, str, str]] = {}
    for table in tables:
        _read_labels(root, table, said, problems)
    for path in numbered:
        number = Path(path).stem
        if number in said:
            label, subject, name = said.pop(number)
            rows.append((path, label, subject, PRELIM, name))
        else:
            text = f"no row in {tables[0]} gives its label; complete the table or remove the file"
            problems.append(Problem("file without row", path, text))
    folders = Counter(Path(path).parent for path in unplaced if Path(path).stem in said)
    folder, count = max(folders.items(), key=lambda item: item[1], default=(Path(), 0))
    if count > len(said) / 2:
        text = (
            f"{count} of its images are numbered as the {len(said)} rows without a file in "
            f"{tables[0]}; rename the folder to C-NMC_test_prelim_phase_data"
        )
        problems.append(Problem("folder not read", str(folder), text))
        unplaced[:] = [path for path in unplaced if Path(path).parent != folder]
        return
    for number, (_, _, name) in said.items():
        text = f"its row for {number} ({name}) has no file; download the image or remove the row"
        problems.append(Problem("row without file", tables[0], text))


def _read_labels(
    root: Path, table: str, said: dict[str, tuple[int, str, str]], problems: list[Problem]
) -> None:
    """Take down label, subject and original name of each numbered file, as the table says."""
    try:
        frame = pd.read_csv(root / table, dtype=str, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{root / table}: cannot be read ({error}); download it again") from error
    if missing := [column for column in LABELS_CSV if column not in frame.columns]:
        there = shown(", ".join(map(str, frame.columns)))
        raise DataError(f"{root / table}: no column {missing[0]}; it has {there}")
    for line, row in enumerate(frame[list(LABELS_CSV)].itertuples(index=False), start=2):
        patient, new_name, label = (shown(str(value).strip()) for value in row)
        match = UID.fullmatch(Path(patient).stem)
        place = f"{table}:{line}"
        if match is None or label not in ("0", "1"):
            text = f"{patient},{new_name},{label}: not UID_..._all or _hem with a label 0 or 1"
            problems.append(Problem("unknown label", place, text))
        elif label_of(match) != int(label):
            text = f"the name says {match['label']}, the label {label} ({Label(int(label)).folder})"
            problems.append(Problem("label conflict", place, text))
        else:
            row_says = int(label), subject_of(match), match[0]
            if said.setdefault(Path(new_name).stem, row_says) != row_says:
                text = f"{new_name} is {said[Path(new_name).stem][2]} in another row; remove one"
                problems.append(Problem("label conflict", place, text))


def _drop_repeated(cells: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Leave out the second file of a name: the same cell as PNG and BMP, or two copies of C-NMC.

    Names that differ in case alone are one: many file systems could not hold both.
    """
    labeled = cells[cells["label"] != UNLABELED]
    names = labeled["name"].str.lower()
    again = names[names.duplicated()]
    first = labeled.loc[~names.duplicated(), "path"].set_axis(names[~names.duplicated()])
    twice = cells.loc[again.index, ["path", "name"]]
    for path, name in twice.itertuples(index=False):
        text = f"{name} is there twice, first as {first[name.lower()]}; point data.root at one copy"
        problems.append(Problem("name twice", path, text))
    return cells.drop(index=again.index).reset_index(drop=True)

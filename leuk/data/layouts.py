"""Listing of image folders: which images there are, with their labels, subjects and source folds.

First step of the data flow. A *layout* is a function from a folder to an :class:`Index`;
:func:`read_cnmc` is that of C-NMC 2019, in all forms in which its images are shared.
"""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from leuk.data.decode import SPECIAL, Frame, Framing
from leuk.data.labels import UNLABELED, Label
from leuk.data.pixels import PixelStore
from leuk.errors import DataError
from leuk.progress import ONCE

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".png"}
_OTHER_FORMATS = {".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_NAMED = 5
"""Maximum number of files or folders to list in a message."""

# --- Safe listing of the files below a folder, without opening any

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
    special = f"{SPECIAL}; remove it"
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "", True
        return ("" if entry.is_file(follow_symlinks=False) else special), False
    target = os.path.realpath(entry.path)
    is_folder = os.path.isdir(target)
    if not os.path.exists(target):
        return "", False
    if not any(os.path.commonpath([base, target]) == base for base in allowed):
        kind = "folder" if is_folder else "file"
        return (
            f"a link that leads out of the folder, to {printable(target)}; put the {kind} itself "
            "there, for example with cp -rL"
        ), is_folder
    return ("" if is_folder or os.path.isfile(target) else special), is_folder


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

    def escaped(letter: str) -> str:
        if "\udc80" <= letter <= "\udcff":  # Python's representation of an undecodable byte
            return f"\\x{ord(letter) - 0xDC00:02x}"
        return letter.encode("unicode_escape").decode() if _is_hidden(letter) else letter

    return name if is_plain(name) else "".join(map(escaped, name))


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


# --- Index: the table that a layout returns, with the problems found


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


COLUMNS = ["path", "label", "subject", "source_fold", "name"]
Row = tuple[str, int, str, str, str]


@dataclass(frozen=True)
class Index:
    """Content of an image folder.

    Attributes:
        table: one row per image, sorted by path: ``path`` (relative, forward slashes), ``label`` (a
            :class:`Label` or :data:`UNLABELED`), ``subject`` (unique over all classes, such as
            ``ALL-11``; empty if unknown), ``source_fold``, ``name`` (C-NMC's name of the image).
        problems: unusable files, and files and table rows that contradict each other; the table
            omits these images.
        strays: relative paths of files that do not belong to the data set.
        unread: strays that are images in folders of the data set, with the reason.
    """

    table: pd.DataFrame
    problems: list[Problem]
    strays: list[str]
    unread: list[Problem]


# --- Layout of C-NMC 2019

PRELIM, FINAL, MERGED = "prelim", "final", "merged"
"""Source folds besides ``fold_0`` to ``fold_2``: both test sets, and folders without folds."""

_PHASES = {"prelim_phase": PRELIM, "final_phase": FINAL}
LABELS_CSV = ("Patient_ID", "new_names", "labels")
"""Columns of the preliminary set's label table, which has the labels of :class:`Label`."""

_CLASS = {label.folder: label for label in Label}
_ENDINGS = [f"_{label.folder}" for label in reversed(Label)]
UID_FORM = "UID_<subject>_<image>_<cell>" + " or ...".join(_ENDINGS)
"""File names of C-NMC's labeled images, for messages."""

NUMBERED = (
    "it is numbered like C-NMC's test images; rename its folder to C-NMC_test_prelim_phase_data or "
    "C-NMC_test_final_phase_data"
)
"""Reason why a numbered image in another folder is not read."""

BAD_NAME = "its name has control characters or is not UTF-8; rename it"

_FOLD = re.compile(r"fold_?([0-9]{1,9})", re.IGNORECASE)
_UID = re.compile(
    rf"UID_H?(?P<subject>[0-9]{{1,12}})_[0-9]{{1,12}}_[0-9]{{1,12}}_(?P<label>{'|'.join(_CLASS)})",
    re.IGNORECASE | re.ASCII,
)
_TEST_SET = re.compile("prelim|final|test|val", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class _Name:
    """Content of a labeled image's name: C-NMC's name, the class, and the key of the subject.

    The key has the class, as 19 numbers occur in both classes.
    """

    text: str
    label: Label
    subject: str

    @classmethod
    def of(cls, stem: str) -> "_Name | None":
        match = _UID.fullmatch(stem)
        if match is None:
            return None
        label = _CLASS[match["label"].lower()]
        return cls(match[0], label, f"{label.name}-{int(match['subject'])}")

    @property
    def ending(self) -> str:
        return self.text.rpartition("_")[2]


def read_cnmc(root: Path) -> Index:
    """Index the images of C-NMC below ``root``.

    Supports BMP and PNG in the folders of the archive and of Kaggle, with repeated folder names (as
    some tools unpack them), and merged into ``all`` and ``hem``.

    Args:
        root: a folder at or above the images.

    Raises:
        DataError: the folder is missing, or the label table cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set data.root=DIR to the C-NMC images")
    rows: list[Row] = []
    problems: list[Problem] = []
    strays: list[str] = []
    unread: list[Problem] = []
    tables: list[str] = []  # label tables of the preliminary set
    prelim: list[str] = []  # its numbered images
    numbered: list[str] = []  # numbered images in folders of another name
    root_name = root.resolve().name
    folders: dict[str, tuple[str | None, Label | None]] = {}
    for entry in files_below(root):
        path = entry.path
        folder, _, file = path.rpartition("/")
        if folder not in folders:
            folders[folder] = _fold_and_label([root_name, *filter(None, folder.split("/"))])
        fold, label = folders[folder]
        stem, suffix = os.path.splitext(file)
        is_image = suffix.lower() in IMAGE_SUFFIXES
        is_table = suffix.lower() == ".csv" and all(
            word in file.lower() for word in ("prelim_phase", "label")
        )
        is_number = _NUMBER.fullmatch(stem) is not None and label is None
        name = _Name.of(stem) if is_image else None
        problem = entry.problem or ("" if is_plain(path) else BAD_NAME)
        if is_metadata(path) and not entry.folder:
            strays.append(printable(path))
        elif problem and (is_image or is_table or entry.folder):
            problems.append(Problem("unusable file", printable(path), problem))
        elif is_table:
            tables.append(path)
        elif name is not None and label is name.label:
            rows.append((path, int(label), name.subject, fold or MERGED, name.text))
        elif name is not None and label is not None:
            text = (
                f"in folder {label.folder}, but its name ends in {name.ending}; move or remove it"
            )
            problems.append(Problem("label conflict", path, text))
        elif is_image and is_number and fold == PRELIM:
            prelim.append(path)
        elif is_image and is_number and fold == FINAL:
            rows.append((path, UNLABELED, "", FINAL, file))
        elif is_image and is_number and fold is None:
            numbered.append(path)
        else:
            strays.append(printable(path))
            reason = ""
            if name is not None:
                reason = (
                    "its folder is neither all nor hem; move it into the one that its name states"
                )
            elif is_image and (label is not None or fold in (PRELIM, FINAL)):
                expected = "a number" if label is None else UID_FORM
                reason = f"its name is not {expected}; rename it, or remove it if it is a copy"
            if reason:
                unread.append(Problem("image not read", printable(path), reason))

    found = _prelim_rows(root, prelim, tables, numbered)
    numbered = [path for path in numbered if Path(path).parent != found.misnamed]
    unread += [
        Problem("image not read", path, NUMBERED)
        for path in numbered
        if _TEST_SET.search(Path(path).parent.name)
    ]
    problems += found.problems
    table = pd.DataFrame(rows + found.rows, columns=COLUMNS).sort_values("path", ignore_index=True)

    # Two formats or copies of C-NMC repeat its names; file systems differ in whether case counts.
    labeled = table[table["label"] != UNLABELED]
    names = labeled["name"].str.lower()
    again = names.duplicated()
    first = dict(zip(names[~again], labeled.loc[~again, "path"], strict=True))
    for path, named in labeled.loc[again, ["path", "name"]].itertuples(index=False):
        text = f"{named} exists twice, first as {first[named.lower()]}; set data.root to one copy"
        problems.append(Problem("name twice", path, text))
    table = table.drop(index=names.index[again]).reset_index(drop=True)
    return Index(table, problems, sorted(strays + numbered), unread)


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


class _Prelim(NamedTuple):
    """Rows and problems of the preliminary set, and a folder that seems to be it."""

    rows: list[Row]
    problems: list[Problem]
    misnamed: Path | None = None


def _prelim_rows(root: Path, images: list[str], tables: list[str], others: list[str]) -> _Prelim:
    """Give the preliminary set's numbered images the labels and names of its tables.

    Args:
        root: folder to which all paths are relative.
        images: numbered images of the preliminary set.
        tables: its label tables.
        others: numbered images in folders of another name.
    """
    if not tables:
        rows: list[Row] = [(path, UNLABELED, "", PRELIM, Path(path).name) for path in images]
        text = "no label table; put C-NMC_test_prelim_phase_data_labels.csv beside it"
        missing = [Problem("no table", str(Path(path).parent), text) for path in sorted(images)[:1]]
        return _Prelim(rows, missing)
    names: dict[str, _Name] = {}
    problems: list[Problem] = []
    for table in tables:
        problems += _read_labels(root, table, names)
    rows = []
    for path in images:
        if name := names.pop(Path(path).stem, None):
            rows.append((path, int(name.label), name.subject, PRELIM, name.text))
        else:
            text = f"its label is missing in {tables[0]}; complete the table or remove the file"
            problems.append(Problem("file without row", path, text))
    folders = Counter(Path(path).parent for path in others if Path(path).stem in names)
    folder, count = max(folders.items(), key=lambda item: item[1], default=(Path(), 0))
    if count > len(names) / 2:
        text = (
            f"{count} of its images have the numbers of the {len(names)} rows without a file in "
            f"{tables[0]}; rename the folder to C-NMC_test_prelim_phase_data"
        )
        return _Prelim(rows, [*problems, Problem("folder not read", str(folder), text)], folder)
    for number, name in names.items():
        text = f"row {number} ({name.text}) has no file; download the image or remove the row"
        problems.append(Problem("row without file", tables[0], text))
    return _Prelim(rows, problems)


def _read_labels(root: Path, table: str, names: dict[str, _Name]) -> list[Problem]:
    """Add the original name of each numbered image in a table to ``names``; return the problems."""
    try:
        frame = pd.read_csv(root / table, dtype=str, keep_default_na=False)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{root / table}: cannot be read ({error}); download it again") from error
    if missing := [column for column in LABELS_CSV if column not in frame.columns]:
        found = printable(", ".join(map(str, frame.columns)))
        raise DataError(f"{root / table}: no column {missing[0]}; found: {found}")
    problems = []
    for line, row in enumerate(frame[list(LABELS_CSV)].itertuples(index=False), start=2):
        patient, number, label = (printable(str(value).strip()) for value in row)
        name, kind = _Name.of(Path(patient).stem), "label conflict"
        if name is None or label not in map(str, map(int, Label)):
            kind, expected = "unknown label", f"UID_...{' or '.join(_ENDINGS)} and label 0 or 1"
            text = f"{patient},{number},{label}: expected {expected}"
        elif name.label != int(label):
            text = f"name {name.ending}, but label {label} ({Label(int(label)).folder})"
        elif (first := names.setdefault(Path(number).stem, name)) != name:
            text = f"{number} is {first.text} in another row; remove a row"
        else:
            continue
        problems.append(Problem(kind, f"{table}:{line}", text))
    return problems


# --- Description of a folder without usable images: its contents, the expected layout and a remedy

_EXPECTED = (
    f"BMP or PNG images named {UID_FORM} in folders all and hem, below fold_0, fold_1, ... if "
    "the folds are known, or the numbered images of C-NMC's test sets in their own folders"
)


def contents(paths: Sequence[str]) -> str:
    """Summarize relative paths: formats with counts, folders, and three example names."""
    if not paths:
        return "no files"
    suffixes = Counter(_suffix(path) or "without suffix" for path in paths)
    images = [path for path in paths if _is_picture(path)] or list(paths)
    folders = Counter(os.path.dirname(path) for path in images)
    formats = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    listed = ", ".join(
        f"{printable(folder) or '.'}/ ({count})" for folder, count in folders.most_common(_NAMED)
    )
    more = f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
    names = ", ".join(printable(os.path.basename(path)) for path in images[:3])
    return f"{formats} in {listed}{more}, such as {names}"


def unread_message(root: Path, problems: Sequence[Problem] = ()) -> str:
    """Describe a folder without C-NMC images: its content, the expected layout, and a remedy.

    Args:
        root: the folder.
        problems: problems found in the folder.
    """
    paths = [
        entry.path
        for entry in files_below(root)
        if not entry.folder and not entry.problem and not is_metadata(entry.path)
    ]
    stated = [f"{len(problems)} problem(s), the first: {problems[0]}"] if problems else []
    return "; ".join(
        [
            f"{root}: no cell images in fold_*/all or fold_*/hem, or in all or hem, below it",
            f"found: {contents(paths)}",
            *stated,
            f"expected: {_EXPECTED}",
            *_remedies(paths),
            "then set data.root=DIR to the folder above them",
        ]
    )


def _remedies(paths: Sequence[str]) -> Iterator[str]:
    pictures = [path for path in paths if _is_picture(path)]
    if not pictures:
        if packed := [printable(path) for path in paths if _suffix(path) in _ARCHIVES]:
            yield f"unpack {', '.join(packed[:_NAMED])}"
        return
    suffixes = set(map(_suffix, pictures))
    if others := sorted(suffixes - IMAGE_SUFFIXES):
        lossy = "; JPEG changes pixels, so use the original files if they exist"
        yield f"save {' and '.join(others)} as PNG{lossy if '.jpg' in others else ''}"
    names = {path: _Name.of(os.path.splitext(os.path.basename(path))[0]) for path in pictures}
    if None in names.values():
        yield (
            f"rename the images to {UID_FORM}, whose first number identifies the patient; label "
            "tables are supported only for the preliminary set"
        )
        if suffixes & IMAGE_SUFFIXES:
            yield "leuk predict run=RUN images=DIR reads images of any name, without labels"
    if {os.path.basename(os.path.dirname(path)).lower() for path in pictures} & {*_CLASS}:
        return
    classes = {os.path.dirname(path): name.label.folder for path, name in names.items() if name}
    if classes and len(classes) == len(set(classes.values())):
        renamed = (f"{printable(old) or '.'} to {new}" for old, new in classes.items())
        yield f"rename the folders: {', '.join(renamed)}"
    else:
        yield "put the leukemic images into a folder all, the healthy ones into a folder hem"


def _is_picture(path: str) -> bool:
    return _suffix(path) in IMAGE_SUFFIXES | _OTHER_FORMATS


# --- Images of a data set, without or with decoded pixels

OnCorrupt = Literal["raise", "skip"]

_PROBLEMS = 10


def index_images(root: Path, on_corrupt: OnCorrupt = "raise") -> pd.DataFrame:
    """List the images below ``root``, in any form that :func:`read_cnmc` supports.

    Args:
        root: a folder at or above the images.
        on_corrupt: ``raise``, or ``skip`` to omit files and table rows that contradict each other.

    Returns:
        The table of :class:`Index`, including unlabeled images.

    Raises:
        DataError: the folder is missing or has no images, or, with ``raise``, a contradiction.
    """
    index = read_cnmc(root)
    count = len(index.problems)
    if count and on_corrupt == "raise":
        more = f" (and {count - 1} more; leuk data lists them)" if count > 1 else ""
        raise DataError(f"{root}: {index.problems[0]}, or set data.on_corrupt=skip{more}")
    for problem in index.problems[:_PROBLEMS]:
        log.warning("skipped: %s", problem, extra=ONCE)
    if count > _PROBLEMS:
        log.warning("skipped: and %d more; leuk data lists them", count - _PROBLEMS, extra=ONCE)
    if index.table.empty:
        raise DataError(unread_message(root, index.problems))
    unread = [problem.path for problem in index.unread]
    strays = [path for path in index.strays if path not in {*unread}]
    for paths, text in (
        (unread, "images not read, leuk data gives the reasons"),
        (strays, "stray files ignored"),
    ):
        if paths:
            more = ", ..." if len(paths) > _NAMED else ""
            named = ", ".join(paths[:_NAMED])
            facts = (root, len(paths), text, named, more)
            log.warning("%s: %d %s: %s%s", *facts, extra=ONCE)
    return index.table


def labeled_images(table: pd.DataFrame) -> pd.DataFrame:
    """Select the images with a label.

    Raises:
        DataError: no image has a label.
    """
    labeled = table[table["label"] != UNLABELED]
    unlabeled = table.loc[table["label"] == UNLABELED, "source_fold"]
    for fold, count in unlabeled.value_counts().items():
        log.info("%d unlabeled images of %s are not used", count, fold, extra=ONCE)
    if labeled.empty:
        raise DataError(
            f"none of the {len(table)} images has a label; put the preliminary set's table "
            "C-NMC_test_prelim_phase_data_labels.csv beside its folder"
        )
    return labeled.reset_index(drop=True)


class CNMC:
    """Labeled images of C-NMC 2019, decoded once into a memory-mapped store that later runs reuse.

    Attributes:
        index: the table of :func:`index_images`; row ``i`` is image ``i``.
        listed: the same table including unreadable images.
        store: the decoded images with areas, sizes and thumbnails.
        data: ``uint8 (N, resolution, resolution, 3)``, memory-mapped.
        targets: ``N`` labels, see :class:`Label`.

    Args:
        root: a folder at or above the fold folders.
        resolution: pixels per side.
        framing: crop of each image, see :class:`leuk.data.decode.Frame`.
        canvas: side in pixels of the square to which images are first cropped or padded; None for
            the longer side of each image.
        cache: folder of the pixel store.
        on_corrupt: ``raise``, or ``skip`` to omit unreadable files with a warning.

    Raises:
        DataError: no labeled images, or an unreadable image.
    """

    def __init__(
        self,
        root: str | Path,
        resolution: int = 224,
        framing: Framing = "full",
        canvas: int | None = None,
        cache: str | Path = "outputs/artifacts",
        on_corrupt: OnCorrupt = "raise",
    ) -> None:
        root = Path(root).expanduser()
        self.listed = labeled_images(index_images(root, on_corrupt))
        frame = Frame(resolution, framing, canvas)
        self.store = PixelStore.open(self.listed, root, frame, Path(cache), on_corrupt)
        self.index = self.listed.iloc[self.store.kept].reset_index(drop=True)
        self.data = self.store.pixels
        self.targets: list[int] = self.index["label"].tolist()

    def __len__(self) -> int:
        return len(self.targets)


# --- Images outside a data set: those of a folder, of a list, or a single file

_SUFFIXES = " or ".join(sorted(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class UnlabeledImage:
    """An image file.

    Attributes:
        name: name in results: path relative to the folder, or the path in the list.
        path: path of the file.
        problem: reason not to read it; empty if it can be tried.
    """

    name: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class Images:
    """Images of a folder or list.

    Attributes:
        images: sorted by name for a folder, otherwise in the order of the list.
        others: number of other files in the folder, by suffix.
    """

    images: list[UnlabeledImage]
    others: dict[str, int]


def find_images(source: str) -> Images:
    """List images without opening them.

    Args:
        source: a folder, which is searched recursively; an image; or a text file with one path per
            line, relative to the folder of the text file. Empty lines and lines that begin with
            ``#`` are ignored.

    Raises:
        DataError: the source is missing or has no images.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        images: list[UnlabeledImage] = []
        others: list[str] = []
        for entry in files_below(path):
            hidden = os.path.basename(entry.path).startswith(".")
            if entry.folder or (_suffix(entry.path) in IMAGE_SUFFIXES and not hidden):
                name = printable(entry.path)
                images.append(UnlabeledImage(name, path / entry.path, entry.problem))
            elif not is_metadata(entry.path):
                others.append(entry.path)
        if not any(_suffix(image.path.name) in IMAGE_SUFFIXES for image in images):
            raise DataError(
                f"images={source}: no {_SUFFIXES} images; found: {contents(others)}; save images "
                "of other formats as PNG"
            )
        images.sort(key=lambda image: str(image.path))
        return Images(images, dict(Counter(map(_suffix, others))))
    if not path.is_file():
        raise DataError(
            f"images={source}: no such file or folder; set it to a folder of {_SUFFIXES} images, a "
            "single image, or a text file with one path per line"
        )
    if _suffix(path.name) in IMAGE_SUFFIXES:
        return Images([UnlabeledImage(printable(path.name), path)], {})
    try:
        lines = map(str.strip, path.read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"images={source}: neither a {_SUFFIXES} image nor a text file ({error}); write one "
            "path per line"
        ) from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names or any("\0" in name for name in names):
        raise DataError(f"images={source}: no paths; write one path per line")
    problems = {
        name: "" if _suffix(name) in IMAGE_SUFFIXES else f"not a {_SUFFIXES} file" for name in names
    }
    return Images(
        [UnlabeledImage(printable(name), path.parent / name, problems[name]) for name in names], {}
    )

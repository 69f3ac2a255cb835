"""Listing of image folders: which images there are, with their labels, subjects and source folds.

First step of the data flow. A *layout* is a function from a folder to an :class:`Index`;
:func:`read_cnmc` is that of C-NMC 2019, in all forms in which its images are shared.
"""

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from leuk.data.decode import SPECIAL
from leuk.data.labels import UNLABELED, Label
from leuk.errors import DataError
from leuk.progress import ONCE

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".png"}
_PICTURES = IMAGE_SUFFIXES | {
    *(".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm")
}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_NAMED = 5
"""Maximum number of files or folders to list in a message."""

# --- Safe listing of the files below a folder, without opening any

_METADATA = {"thumbs.db", "desktop.ini", "icon\r"}
"""Metadata files of Windows and macOS in lower case, in addition to dot files."""

_REORDERS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_HIDDEN_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, undecodable bytes and line breaks."""


class Entry(NamedTuple):
    """A file, or a folder that cannot be listed."""

    path: str  # relative to the listed folder, with forward slashes
    problem: str = ""  # reason not to open it, and remedy
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
            if not is_folder or (problem and not entry.name.startswith(".")):
                yield Entry(path, problem, is_folder)
            elif not entry.name.startswith("."):
                below.append(path)
        waiting += reversed(below)


def _stores(base: str) -> list[str]:
    """Return the folders in which download tools store the targets of a data set's links.

    Hugging Face's hub links ``snapshots/<revision>/`` to the sibling folder ``blobs/``; git-annex
    and DVC link a work tree to folders at its top. Only stores above ``base`` are allowed, because
    an untrusted archive could contain a store with links to other places.
    """
    found = []
    for folder in (Path(base), *Path(base).parents):
        if folder.parent.name == "snapshots":
            found.append(str(folder.parent.parent / "blobs"))
        found += [str(folder / store) for store in (".git/annex/objects", ".dvc/cache")]
    return found


def _inspect(entry: os.DirEntry[str], allowed: Sequence[str]) -> tuple[str, bool]:
    """Return the problem of an entry, or an empty string, and True for a folder."""
    if not entry.is_symlink():
        is_folder, is_file = entry.is_dir(), entry.is_file()
    else:
        target = os.path.realpath(entry.path)
        is_folder, is_file = os.path.isdir(target), os.path.isfile(target)
        if not os.path.exists(target):
            return "", False
        if not any(os.path.commonpath([base, target]) == base for base in allowed):
            kind = "folder" if is_folder else "file"
            return (
                f"a link that leads out of the folder, to {printable(target)}; put the {kind} "
                "itself there, for example with cp -rL"
            ), is_folder
    return ("" if is_folder or is_file else f"{SPECIAL}; remove it"), is_folder


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


def shortened(names: Sequence[str], most: int = _NAMED) -> str:
    """List the first names, and the number of the others."""
    others = len(names) - most
    return ", ".join(names[:most]) + (f" and {others} more" if others > 0 else "")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


# --- Index: the table that a layout returns, with the problems found


@dataclass(frozen=True)
class Problem:
    """A problem of a file or table row."""

    kind: str  # such as "label conflict"
    path: str  # with the line number for a table row
    text: str  # problem and remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


COLUMNS = ["path", "label", "subject", "source_fold", "name"]


@dataclass(frozen=True)
class Index:
    """Content of an image folder.

    The table has a row per image, sorted by path: ``path`` (relative, forward slashes), ``label``
    (a :class:`Label` or :data:`UNLABELED`), ``subject`` (unique over all classes, such as
    ``ALL-11``; empty if unknown), ``source_fold``, ``name`` (C-NMC's name of the image).
    """

    table: pd.DataFrame
    problems: list[Problem]  # unusable or contradictory files and table rows, not in the table
    strays: list[str]  # files that do not belong to the data set
    unread: list[Problem]  # strays that are images in folders of the data set, with the reason


# --- Layout of C-NMC 2019

PRELIM, FINAL, MERGED = "prelim", "final", "merged"
"""Source folds besides ``fold_0`` to ``fold_2``: both test sets, and folders without folds."""

LABELS_CSV = ("Patient_ID", "new_names", "labels")
"""Columns of the preliminary set's label table, which has the labels of :class:`Label`."""

_CLASS = {label.folder: label for label in Label}
_ENDINGS = " or ".join(f"_{label.folder}" for label in reversed(Label))
_UID_FORM = "UID_<subject>_<image>_<cell>" + _ENDINGS.replace("or ", "or ...")
_PRELIM_FOLDER = "C-NMC_test_prelim_phase_data"

_FOLDS = [  # (pattern of a folder's name, source fold)
    (re.compile(r"\Afold_?([0-9]{1,9})\Z", re.IGNORECASE), None),
    (re.compile("prelim_phase", re.IGNORECASE), PRELIM),
    (re.compile("final_phase", re.IGNORECASE), FINAL),
]
_UID = re.compile(
    rf"UID_H?(?P<subject>[0-9]{{1,12}})_[0-9]{{1,12}}_[0-9]{{1,12}}_(?P<label>{'|'.join(_CLASS)})",
    re.IGNORECASE | re.ASCII,
)
_TEST_SET = re.compile("prelim|final|test|val", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")


class _Name(NamedTuple):
    """A labeled image's name, its class, and the key of its subject.

    The key has the class, as 19 numbers occur in both classes.
    """

    text: str
    label: Label
    subject: str


def _parse_name(stem: str) -> _Name | None:
    if match := _UID.fullmatch(stem):
        label = _CLASS[match["label"].lower()]
        return _Name(match[0], label, f"{label.name}-{int(match['subject'])}")
    return None


def _source_fold(folders: Sequence[str]) -> str | None:
    """Parse the source fold from the names of the folders above a file; the innermost counts."""
    for folder in reversed(folders):
        for pattern, fold in _FOLDS:
            if match := pattern.search(folder):
                return fold or f"fold_{int(match[1])}"
    return None


def read_cnmc(root: Path) -> Index:
    """Index the images of C-NMC at or below a folder.

    Supports BMP and PNG in the folders of the archive and of Kaggle, with repeated folder names (as
    some tools unpack them), and merged into ``all`` and ``hem``.

    Raises:
        DataError: the folder is missing, or the label table cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set data.root=DIR to the C-NMC images")
    rows: list[tuple[str, int, str, str, str]] = []
    problems: list[Problem] = []
    strays: list[str] = []
    unread: list[Problem] = []
    tables: list[str] = []  # label tables of the preliminary set
    prelim: list[str] = []  # its numbered images
    numbered: list[str] = []  # numbered images in folders of another name
    root_name = root.resolve().name
    for entry in files_below(root):
        path = entry.path
        *above, file = path.split("/")
        folders = [root_name, *above]
        fold, label = _source_fold(folders), _CLASS.get(folders[-1].lower())
        stem, suffix = os.path.splitext(file)
        is_image = suffix.lower() in IMAGE_SUFFIXES
        is_table = suffix.lower() == ".csv" and all(
            word in file.lower() for word in ("prelim_phase", "label")
        )
        is_numbered = is_image and label is None and _NUMBER.fullmatch(stem) is not None
        name = _parse_name(stem) if is_image else None
        problem = entry.problem or (
            "" if is_plain(path) else "its name has control characters or is not UTF-8; rename it"
        )
        if is_metadata(path) and not entry.folder:
            strays.append(printable(path))
        elif problem and (is_image or is_table or entry.folder):
            problems.append(Problem("unusable file", printable(path), problem))
        elif is_table:
            tables.append(path)
        elif name and label is name.label:
            rows.append((path, int(label), name.subject, fold or MERGED, name.text))
        elif name and label is not None:
            ending = name.label.folder
            text = f"in folder {label.folder}, but its name ends in {ending}; move or remove it"
            problems.append(Problem("label conflict", path, text))
        elif is_numbered and fold == PRELIM:
            prelim.append(path)
        elif is_numbered and fold == FINAL:
            rows.append((path, UNLABELED, "", FINAL, file))
        elif is_numbered and fold is None:
            numbered.append(path)
        else:
            strays.append(printable(path))
            if name:
                text = (
                    "its folder is neither all nor hem; move it into the one that its name states"
                )
            elif is_image and (label is not None or fold in (PRELIM, FINAL)):
                expected = "a number" if label is None else _UID_FORM
                text = f"its name is not {expected}; rename it, or remove it if it is a copy"
            else:
                continue
            unread.append(Problem("image not read", printable(path), text))

    # The preliminary set's images have numbers; its table has their names and labels.
    names: dict[str, _Name] = {}
    for table in tables:
        problems += _read_labels(root, table, names)
    for path in prelim:
        if found := names.pop(Path(path).stem, None):
            rows.append((path, int(found.label), found.subject, PRELIM, found.text))
        elif tables:
            text = f"its label is missing in {tables[0]}; complete the table or remove the file"
            problems.append(Problem("file without row", path, text))
        else:
            rows.append((path, UNLABELED, "", PRELIM, Path(path).name))
    if prelim and not tables:
        text = f"no label table; put {_PRELIM_FOLDER}_labels.csv beside it"
        problems.append(Problem("no table", os.path.dirname(min(prelim)) or ".", text))
    matching = Counter(os.path.dirname(path) for path in numbered if Path(path).stem in names)
    ((folder, count),) = matching.most_common(1) or [("", 0)]
    if count > len(names) / 2:
        numbered = [path for path in numbered if os.path.dirname(path) != folder]
        text = (
            f"{count} of its images have the numbers of the {len(names)} rows without a file in "
            f"{tables[0]}; rename the folder to {_PRELIM_FOLDER}"
        )
        problems.append(Problem("folder not read", folder or ".", text))
    else:
        for number, named in names.items():
            text = f"row {number} ({named.text}) has no file; download the image or remove the row"
            problems.append(Problem("row without file", tables[0], text))
    text = (
        f"it is numbered like C-NMC's test images; rename its folder to {_PRELIM_FOLDER} or "
        "C-NMC_test_final_phase_data"
    )
    unread += [
        Problem("image not read", path, text)
        for path in numbered
        if _TEST_SET.search(os.path.basename(os.path.dirname(path)))
    ]

    # Two formats or copies of C-NMC repeat its names; file systems differ in whether case counts.
    index = pd.DataFrame(rows, columns=COLUMNS).sort_values("path", ignore_index=True)
    lower = index["name"].str.lower()
    again = lower.duplicated() & (index["label"] != UNLABELED)
    first = dict(zip(lower[::-1], index["path"][::-1], strict=True))
    for path, twice in index.loc[again, ["path", "name"]].to_numpy().tolist():
        text = f"{twice} exists twice, first as {first[twice.lower()]}; set data.root to one copy"
        problems.append(Problem("name twice", path, text))
    return Index(index[~again].reset_index(drop=True), problems, sorted(strays + numbered), unread)


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
        name, kind = _parse_name(Path(patient).stem), "label conflict"
        if name is None or label not in ("0", "1"):
            kind = "unknown label"
            text = f"{patient},{number},{label}: expected UID_...{_ENDINGS} and label 0 or 1"
        elif name.label != int(label):
            text = f"name {name.label.folder}, but label {label} ({Label(int(label)).folder})"
        elif (first := names.setdefault(Path(number).stem, name)) != name:
            text = f"{number} is {first.text} in another row; remove a row"
        else:
            continue
        problems.append(Problem(kind, f"{table}:{line}", text))
    return problems


# --- Description of a folder without usable images: its contents, the expected layout and a remedy


def contents(paths: Sequence[str]) -> str:
    """Summarize relative paths: formats with counts, folders, and three example names."""
    if not paths:
        return "no files"
    formats = Counter(_suffix(path) or "without suffix" for path in paths).most_common()
    images = [path for path in paths if _suffix(path) in _PICTURES] or paths
    folders = Counter(map(os.path.dirname, images)).most_common()
    names = ", ".join(printable(os.path.basename(path)) for path in images[:3])
    counts = shortened([f"{printable(folder) or '.'}/ ({count})" for folder, count in folders])
    listed = ", ".join(f"{count} {suffix}" for suffix, count in formats)
    return f"{listed} in {counts}, such as {names}"


def unread_message(root: Path, problems: Sequence[Problem] = ()) -> str:
    """Describe a folder without C-NMC images: its content and problems, and remedies."""
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
            f"expected: BMP or PNG images named {_UID_FORM} in folders all and hem, below fold_0, "
            "fold_1, ... if the folds are known, or the numbered images of C-NMC's test sets in "
            "their own folders",
            *_remedies(paths),
            "then set data.root=DIR to the folder above them",
        ]
    )


def _remedies(paths: Sequence[str]) -> Iterator[str]:
    pictures = [path for path in paths if _suffix(path) in _PICTURES]
    packed = [printable(path) for path in paths if _suffix(path) in _ARCHIVES]
    if not pictures:
        if packed:
            yield f"unpack {', '.join(packed[:_NAMED])}"
        return
    suffixes = set(map(_suffix, pictures))
    if others := sorted(suffixes - IMAGE_SUFFIXES):
        lossy = "; JPEG changes pixels, so use the original files if they exist"
        yield f"save {' and '.join(others)} as PNG{lossy if '.jpg' in others else ''}"
    names = {path: _parse_name(Path(path).stem) for path in pictures}
    if None in names.values():
        yield (
            f"rename the images to {_UID_FORM}, whose first number identifies the patient; label "
            "tables are supported only for the preliminary set"
        )
        if suffixes & IMAGE_SUFFIXES:
            yield "leuk predict run=RUN images=DIR reads images of any name, without labels"
    if {Path(path).parent.name.lower() for path in pictures} & {*_CLASS}:
        return
    classes = {os.path.dirname(path): name.label.folder for path, name in names.items() if name}
    if classes and len(classes) == len(set(classes.values())):
        renamed = (f"{printable(old) or '.'} to {new}" for old, new in classes.items())
        yield f"rename the folders: {', '.join(renamed)}"
    else:
        yield "put the leukemic images into a folder all, the healthy ones into a folder hem"


# --- Images of a data set

OnCorrupt = Literal["raise", "skip"]


def index_images(root: Path, on_corrupt: OnCorrupt = "raise") -> pd.DataFrame:
    """Return the table of :class:`Index` of a folder, including unlabeled images.

    Args:
        root: a folder at or above the images, in any form that :func:`read_cnmc` supports.
        on_corrupt: ``raise``, or ``skip`` to omit files and table rows that contradict each other.

    Raises:
        DataError: the folder is missing or has no images, or, with ``raise``, a contradiction.
    """
    index = read_cnmc(root)
    count = len(index.problems)
    if count and on_corrupt == "raise":
        more = f" (and {count - 1} more; leuk data lists them)" if count > 1 else ""
        raise DataError(f"{root}: {index.problems[0]}, or set data.on_corrupt=skip{more}")
    warn_of_skipped(index.problems)
    if index.table.empty:
        raise DataError(unread_message(root, index.problems))
    unread = [problem.path for problem in index.unread]
    strays = [path for path in index.strays if path not in set(unread)]
    for paths, text in (
        (unread, "images not read, leuk data gives the reasons"),
        (strays, "stray files ignored"),
    ):
        if paths:
            log.warning("%s: %d %s: %s", root, len(paths), text, shortened(paths), extra=ONCE)
    return index.table


def warn_of_skipped(problems: Sequence[object]) -> None:
    """Log the first ten problems of skipped files, and the number of the others."""
    for problem in problems[:10]:
        log.warning("skipped: %s", problem, extra=ONCE)
    if len(problems) > 10:
        log.warning("skipped: and %d more; leuk data lists them", len(problems) - 10, extra=ONCE)


def labeled_images(table: pd.DataFrame) -> pd.DataFrame:
    """Select the images with a label; raise DataError if none has any."""
    labeled = table[table["label"] != UNLABELED]
    unlabeled = table.loc[table["label"] == UNLABELED, "source_fold"]
    for fold, count in unlabeled.value_counts().items():
        log.info("%d unlabeled images of %s are not used", count, fold, extra=ONCE)
    if labeled.empty:
        raise DataError(
            f"none of the {len(table)} images has a label; put the preliminary set's table "
            f"{_PRELIM_FOLDER}_labels.csv beside its folder"
        )
    return labeled.reset_index(drop=True)


# --- Images outside a data set: those of a folder, of a list, or a single file

_SUFFIXES = " or ".join(sorted(IMAGE_SUFFIXES))


class UnlabeledImage(NamedTuple):
    """An image file."""

    name: str  # in results: path relative to the folder, or the path in the list
    path: Path
    problem: str = ""  # reason not to read it


class Images(NamedTuple):
    """Images of a folder, sorted by name, or of a list, and numbers of other files by suffix."""

    images: list[UnlabeledImage]
    others: Mapping[str, int]


def find_images(source: str) -> Images:
    """List images without opening them.

    Args:
        source: a folder, which is searched recursively; an image; or a text file with a path per
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
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"images={source}: neither a {_SUFFIXES} image nor a text file ({error}); write one "
            "path per line"
        ) from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names or any("\0" in name for name in names):
        raise DataError(f"images={source}: no paths; write one path per line")
    wrong = f"not a {_SUFFIXES} file"
    images = [
        UnlabeledImage(
            printable(name), path.parent / name, "" if _suffix(name) in IMAGE_SUFFIXES else wrong
        )
        for name in names
    ]
    return Images(images, {})

"""Index of C-NMC image folders in all common layouts.

First step of the data flow: labels, subjects and source folds from file and folder names, with the
problems found.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from PIL import Image
from torchvision.datasets import VisionDataset

from leuk.data.decode import Frame, Framing, files_below, is_metadata, is_plain, printable
from leuk.data.labels import UNLABELED, Label
from leuk.data.pixels import PixelStore
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


# --- Description of a folder without usable images: its contents, the expected layout and a remedy

_OTHER_FORMATS = {".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_EXAMPLES = 3
_FOLDERS = 5

EXPECTED = (
    f"BMP or PNG images named {UID_FORM} in folders all and hem, below fold_0, fold_1, ... if "
    "the folds are known, or the numbered images of C-NMC's test sets in their own folders"
)


def contents(paths: Sequence[str]) -> str:
    """Summarize relative paths: formats with counts, folders, and three example names."""
    if not paths:
        return "no files"
    suffixes = Counter(os.path.splitext(path)[1].lower() or "without suffix" for path in paths)
    images = [path for path in paths if _is_picture(path)] or list(paths)
    folders = Counter(os.path.dirname(path) for path in images)
    formats = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    listed = ", ".join(
        f"{printable(folder) or '.'}/ ({count})" for folder, count in folders.most_common(_FOLDERS)
    )
    more = f" and {len(folders) - _FOLDERS} more" if len(folders) > _FOLDERS else ""
    names = ", ".join(printable(os.path.basename(path)) for path in images[:_EXAMPLES])
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
            f"expected: {EXPECTED}",
            *_remedies(paths),
            "then set data.root=DIR to the folder above them",
        ]
    )


def _remedies(paths: Sequence[str]) -> Iterable[str]:
    pictures = [path for path in paths if _is_picture(path)]
    others = sorted({os.path.splitext(path)[1].lower() for path in pictures} - IMAGE_SUFFIXES)
    if not pictures:
        packed = [path for path in paths if os.path.splitext(path)[1].lower() in _ARCHIVES]
        if packed:
            yield f"unpack {', '.join(printable(path) for path in packed[:_NAMED])}"
        return
    if others:
        lossy = "; JPEG changes pixels, so use the original files if they exist"
        yield f"save {' and '.join(others)} as PNG{lossy if '.jpg' in others else ''}"
    matches = {path: UID.fullmatch(os.path.splitext(os.path.basename(path))[0]) for path in paths}
    named = [path for path in pictures if matches[path] is not None]
    if len(named) < len(pictures):
        yield (
            f"rename the images to {UID_FORM}, whose first number identifies the patient; label "
            "tables are supported only for the preliminary set"
        )
        readable = any(os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES for path in pictures)
        if readable:
            yield "leuk predict run=RUN images=DIR reads images of any name, without labels"
    folders = {os.path.basename(os.path.dirname(path)).lower() for path in pictures}
    if not folders & {label.folder for label in Label}:
        classes = {
            os.path.dirname(path): parse_label(match).folder
            for path in named
            if (match := matches[path]) is not None
        }
        renamed = ", ".join(f"{printable(old) or '.'} to {new}" for old, new in classes.items())
        if len(classes) == len(set(classes.values())) and renamed:
            yield f"rename the folders: {renamed}"
        else:
            yield "put the leukemic images into a folder all, the healthy ones into a folder hem"


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES | _OTHER_FORMATS


# --- C-NMC 2019 as a data set: table of images and decoded pixels

log = logging.getLogger(__name__)

OnCorrupt = Literal["raise", "skip"]

_NAMED = 5
_PROBLEMS = 10


def index_images(root: Path, on_corrupt: OnCorrupt = "raise") -> pd.DataFrame:
    """List the images below ``root``, in any layout of :func:`leuk.data.layouts.read_folder`.

    Args:
        root: a folder at or above the images.
        on_corrupt: ``raise``, or ``skip`` to omit files and table rows that contradict each other.

    Returns:
        The table of :class:`leuk.data.layouts.Index`, including unlabeled images.

    Raises:
        DataError: the folder is missing or has no images, or, with ``raise``, a contradiction.
    """
    index = read_folder(root)
    if index.problems and on_corrupt == "raise":
        raise DataError(_problem_message(root, index.problems))
    for problem in index.problems[:_PROBLEMS]:
        log.warning("skipped: %s", problem)
    if len(index.problems) > _PROBLEMS:
        log.warning("skipped: and %d more; leuk data lists them", len(index.problems) - _PROBLEMS)
    if index.table.empty:
        raise DataError(unread_message(root, index.problems))
    if index.unread:
        named = ", ".join(problem.path for problem in index.unread[:_NAMED])
        more = ", ..." if len(index.unread) > _NAMED else ""
        log.warning(
            "%s: %d images not read, leuk data gives the reasons: %s%s",
            *(root, len(index.unread), named, more),
        )
    unread = {problem.path for problem in index.unread}
    strays = [path for path in index.strays if path not in unread]
    if strays:
        named = ", ".join(strays[:_NAMED])
        more = ", ..." if len(strays) > _NAMED else ""
        log.warning("%s: %d stray files ignored: %s%s", root, len(strays), named, more)
    return index.table


def _problem_message(root: Path, problems: Sequence[Problem]) -> str:
    more = f" (and {len(problems) - 1} more; leuk data lists them)" if len(problems) > 1 else ""
    return f"{root}: {problems[0]}, or set data.on_corrupt=skip{more}"


class CNMC(VisionDataset):  # type: ignore[misc]
    """C-NMC 2019, used like :class:`torchvision.datasets.CIFAR10`.

    Images are decoded once, into a memory-mapped store that later runs reuse.

    Attributes:
        index: the table of :func:`index_images`; row ``i`` is image ``i``.
        listed: the same table including unreadable images.
        store: the decoded images with areas, sizes and thumbnails.
        data: ``uint8 (N, resolution, resolution, 3)``, memory-mapped.
        targets: ``N`` labels, 1 = leukemic, 0 = healthy, -1 = unlabeled.
        classes: class names in the order of their labels.

    Args:
        root: a folder at or above the fold folders.
        parts: source folds to keep, such as ``["fold_0"]``; all labeled images if None.
        transform: function from PIL image to PIL image.
        target_transform: function from label to label.
        resolution: pixels per side.
        framing: crop of each image, see :class:`leuk.data.decode.Frame`.
        canvas: side in pixels of the square to which images are first cropped or padded; None for
            the longer side of each image.
        cache: folder of the pixel store.
        on_corrupt: ``raise``, or ``skip`` to omit unreadable files with a warning.

    Raises:
        DataError: no images, a missing source fold, or an unreadable image.
    """

    classes: ClassVar = [label.folder for label in Label]
    class_to_idx: ClassVar = {label.folder: int(label) for label in Label}

    def __init__(
        self,
        root: str | Path,
        parts: Sequence[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        resolution: int = 224,
        framing: Framing = "full",
        canvas: int | None = None,
        cache: str | Path = "outputs/artifacts",
        on_corrupt: OnCorrupt = "raise",
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(root, transform=transform, target_transform=target_transform)
        table = index_images(root, on_corrupt)
        table = labeled_images(table) if parts is None else select_source_folds(table, parts)
        self.listed = table
        self.store = PixelStore.open(
            table, root, Frame(resolution, framing, canvas), Path(cache), on_corrupt
        )
        self.index = table.iloc[self.store.kept].reset_index(drop=True)
        self.data = self.store.pixels
        self.targets: list[int] = self.index["label"].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(self.data[index])
        label: Any = self.targets[index]
        if self.transforms is not None:
            image, label = self.transforms(image, label)
        return image, label


def labeled_images(table: pd.DataFrame) -> pd.DataFrame:
    """Select the images with a label.

    Raises:
        DataError: no image has a label.
    """
    labeled = table[table["label"] != UNLABELED]
    unlabeled = table.loc[table["label"] == UNLABELED, "source_fold"]
    for fold, count in unlabeled.value_counts().items():
        log.info("%d unlabeled images of %s are not used", count, fold)
    if labeled.empty:
        raise DataError(
            f"none of the {len(table)} images has a label; put the preliminary set's table "
            "C-NMC_test_prelim_phase_data_labels.csv beside its folder"
        )
    return labeled.reset_index(drop=True)


def select_source_folds(table: pd.DataFrame, folds: Sequence[str]) -> pd.DataFrame:
    """Select the images of some source folds.

    Raises:
        DataError: a source fold has no images; the message lists those that have.
    """
    found = sorted(table["source_fold"].unique())
    for fold in folds:
        if fold not in found:
            raise DataError(f"parts: no source fold {fold}; choose from {', '.join(found)}")
    return table[table["source_fold"].isin(folds)].reset_index(drop=True)


# --- Images outside a data set: those of a folder, of a list, or a single file

_EXPECTED = " or ".join(sorted(IMAGE_SUFFIXES))


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
        return _list_folder(source, path)
    if not path.is_file():
        raise DataError(
            f"images={source}: no such file or folder; set it to a folder of {_EXPECTED} images, a "
            "single image, or a text file with one path per line"
        )
    if _is_image(path.name):
        return Images([UnlabeledImage(printable(path.name), path)], {})
    return Images(_read_list(source, path), {})


def _list_folder(source: str, folder: Path) -> Images:
    images: list[UnlabeledImage] = []
    others: list[str] = []
    for entry in files_below(folder):
        name = Path(entry.path)
        if entry.folder or (_is_image(name.name) and not name.name.startswith(".")):
            images.append(UnlabeledImage(printable(entry.path), folder / name, entry.problem))
        elif not is_metadata(entry.path):
            others.append(entry.path)
    if not any(_is_image(image.path.name) for image in images):
        raise DataError(
            f"images={source}: no {_EXPECTED} images; found: {contents(others)}; save images of "
            "other formats as PNG"
        )
    suffixes = Counter(Path(name).suffix.lower() for name in others)
    return Images(sorted(images, key=lambda image: str(image.path)), dict(suffixes))


def _read_list(source: str, text: Path) -> list[UnlabeledImage]:
    try:
        lines = text.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"images={source}: neither a {_EXPECTED} image nor a text file ({error}); write one "
            "path per line"
        ) from error
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names or any("\0" in name for name in names):
        raise DataError(f"images={source}: no paths; write one path per line")
    return [UnlabeledImage(printable(name), text.parent / name, _problem(name)) for name in names]


def _problem(name: str) -> str:
    return "" if _is_image(name) else f"not a {_EXPECTED} file"


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES

"""Description of a folder without usable images: its contents, the expected layout and a remedy."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from leuk.data.labels import Label
from leuk.data.layouts import IMAGE_SUFFIXES, UID, UID_FORM, Problem, parse_label
from leuk.data.walk import files_below, is_metadata, printable

_OTHER_FORMATS = {".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_NAMED = 3
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
    names = ", ".join(printable(os.path.basename(path)) for path in images[:_NAMED])
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

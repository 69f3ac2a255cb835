"""Description of a folder without usable images: its contents, C-NMC's form, and a remedy."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from leuk.data.labels import Label
from leuk.data.layouts import IMAGE_SUFFIXES, UID, UID_FORM, Problem, label_of
from leuk.data.walk import files_below, is_metadata, shown

_OTHER_FORMATS = {".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_NAMED = 3
_FOLDERS = 5

EXPECTED = (
    f"BMP or PNG images called {UID_FORM} in folders all and hem, below fold_0, fold_1, ... where "
    "the folds are known, or the numbered images of C-NMC's test sets in their own folders"
)


def contents(paths: Sequence[str]) -> str:
    """Formats with counts, folders and three example names of relative paths, in one phrase."""
    if not paths:
        return "no file"
    suffixes = Counter(os.path.splitext(path)[1].lower() or "without suffix" for path in paths)
    images = [path for path in paths if _is_picture(path)] or list(paths)
    folders = Counter(os.path.dirname(path) for path in images)
    formats = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    places = ", ".join(
        f"{shown(folder) or '.'}/ ({count})" for folder, count in folders.most_common(_FOLDERS)
    )
    more = f" and {len(folders) - _FOLDERS} more" if len(folders) > _FOLDERS else ""
    names = ", ".join(shown(os.path.basename(path)) for path in images[:_NAMED])
    return f"{formats} in {places}{more}, such as {names}"


def unread_message(root: Path, problems: Sequence[Problem] = ()) -> str:
    """Contents of a folder in which no image of C-NMC was found, the expected form, and a remedy.

    Args:
        root: the folder.
        problems: found there.
    """
    paths = [
        entry.path
        for entry in files_below(root)
        if not entry.folder and not entry.wrong and not is_metadata(entry.path)
    ]
    stated = [f"{len(problems)} problem(s), the first: {problems[0]}"] if problems else []
    return "; ".join(
        [
            f"{root}: no cell images in fold_*/all or fold_*/hem, or in all or hem, below it",
            f"found: {contents(paths)}",
            *stated,
            f"expected: {EXPECTED}",
            *_remedies(paths),
            "then point data.root=DIR at the folder above them",
        ]
    )


def _remedies(paths: Sequence[str]) -> Iterable[str]:
    pictures = [path for path in paths if _is_picture(path)]
    others = sorted({os.path.splitext(path)[1].lower() for path in pictures} - IMAGE_SUFFIXES)
    if not pictures:
        packed = [path for path in paths if os.path.splitext(path)[1].lower() in _ARCHIVES]
        if packed:
            yield f"unpack {', '.join(shown(path) for path in packed[:_NAMED])}"
        return
    if others:
        lossy = "; JPEG changes pixels, so take the original files if there are any"
        yield f"save {' and '.join(others)} as PNG{lossy if '.jpg' in others else ''}"
    matches = {path: UID.fullmatch(os.path.splitext(os.path.basename(path))[0]) for path in paths}
    named = [path for path in pictures if matches[path] is not None]
    if len(named) < len(pictures):
        yield (
            f"rename the images to {UID_FORM}, as the first number tells patients apart; a table "
            "of labels is read with the preliminary set alone"
        )
        readable = any(os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES for path in pictures)
        if readable:
            yield "leuk predict run=RUN images=DIR reads images of any name, without labels"
    folders = {os.path.basename(os.path.dirname(path)).lower() for path in pictures}
    if not folders & {label.folder for label in Label}:
        classes = {
            os.path.dirname(path): label_of(match).folder
            for path in named
            if (match := matches[path]) is not None
        }
        renamed = ", ".join(f"{shown(old) or '.'} to {new}" for old, new in classes.items())
        if len(classes) == len(set(classes.values())) and renamed:
            yield f"rename the folders: {renamed}"
        else:
            yield "put the leukemic images into a folder all, the healthy ones into a folder hem"


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES | _OTHER_FORMATS

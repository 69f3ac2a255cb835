"""Images that are no part of a data set: those of a folder, those that a text names, or one."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from leuk.data.layouts import IMAGE_SUFFIXES
from leuk.data.unread import contents
from leuk.data.walk import files_below, is_metadata, shown
from leuk.errors import DataError

_EXPECTED = " or ".join(sorted(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class Image:
    """One image to look at.

    Attributes:
        name: as it is named in results: relative to the folder, or as the text has it.
        path: of the file.
        problem: why it cannot be one of ours; empty where it may be.
    """

    name: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class Images:
    """What was found.

    Attributes:
        images: by name where they are a folder's, else in the order of the text.
        others: how many files of another kind a folder holds beside them, by suffix.
    """

    images: list[Image]
    others: dict[str, int]


def find_images(where: str) -> Images:
    """Images to look at; whether they can be read is not asked.

    Args:
        where: a folder, with all folders below it; one image; or a text file with a path a line,
            relative to the folder of the text, where empty lines and those that begin with ``#``
            are passed over.

    Raises:
        DataError: nothing there, or no image in it.
    """
    place = Path(where).expanduser()
    if place.is_dir():
        return _of_folder(where, place)
    if not place.is_file():
        raise DataError(
            f"images={where}: no such file or folder; name a folder of {_EXPECTED} images, one of "
            "them, or a text file with a path a line"
        )
    if _is_image(place.name):
        return Images([Image(shown(place.name), place)], {})
    return Images(_of_text(where, place), {})


def _of_folder(where: str, folder: Path) -> Images:
    images: list[Image] = []
    others: list[str] = []
    for one in files_below(folder):
        name = Path(one.path)
        if one.folder or (_is_image(name.name) and not name.name.startswith(".")):
            images.append(Image(shown(one.path), folder / name, one.wrong))
        elif not is_metadata(one.path):
            others.append(one.path)
    if not any(_is_image(one.path.name) for one in images):
        raise DataError(
            f"images={where}: no {_EXPECTED} image in it; found: {contents(others)}; save images "
            "of other formats as PNG"
        )
    suffixes = Counter(Path(name).suffix.lower() for name in others)
    return Images(sorted(images, key=lambda one: str(one.path)), dict(suffixes))


def _of_text(where: str, text: Path) -> list[Image]:
    try:
        lines = text.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"images={where}: neither a {_EXPECTED} image nor a text with a path a line ({error})"
        ) from error
    named = [line.strip() for line in lines]
    named = [line for line in named if line and not line.startswith("#")]
    if not named or any("\0" in name for name in named):
        raise DataError(f"images={where}: no path in it; write one a line")
    return [Image(shown(name), text.parent / name, _problem(name)) for name in named]


def _problem(name: str) -> str:
    return "" if _is_image(name) else f"no {_EXPECTED} file"


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES

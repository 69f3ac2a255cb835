"""Images outside a data set: those of a folder, of a list, or a single file."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from leuk.data.layouts import IMAGE_SUFFIXES
from leuk.data.unread import contents
from leuk.data.walk import files_below, is_metadata, printable
from leuk.errors import DataError

_EXPECTED = " or ".join(sorted(IMAGE_SUFFIXES))


@dataclass(frozen=True)
class Image:
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

    images: list[Image]
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
        return Images([Image(printable(path.name), path)], {})
    return Images(_read_list(source, path), {})


def _list_folder(source: str, folder: Path) -> Images:
    images: list[Image] = []
    others: list[str] = []
    for entry in files_below(folder):
        name = Path(entry.path)
        if entry.folder or (_is_image(name.name) and not name.name.startswith(".")):
            images.append(Image(printable(entry.path), folder / name, entry.problem))
        elif not is_metadata(entry.path):
            others.append(entry.path)
    if not any(_is_image(image.path.name) for image in images):
        raise DataError(
            f"images={source}: no {_EXPECTED} images; found: {contents(others)}; save images of "
            "other formats as PNG"
        )
    suffixes = Counter(Path(name).suffix.lower() for name in others)
    return Images(sorted(images, key=lambda image: str(image.path)), dict(suffixes))


def _read_list(source: str, text: Path) -> list[Image]:
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
    return [Image(printable(name), text.parent / name, _problem(name)) for name in names]


def _problem(name: str) -> str:
    return "" if _is_image(name) else f"not a {_EXPECTED} file"


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES

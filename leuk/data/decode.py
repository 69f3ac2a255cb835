"""Decoding of an image file: frame, digest, thumbnail and area of the cell."""

import hashlib
import math
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from leuk.errors import DataError

# --- Safe listing of the files below a folder, without opening any

SPECIAL = "a pipe, device or socket, not a file; remove it"

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
    if not entry.is_symlink():
        if entry.is_dir(follow_symlinks=False):
            return "", True
        return ("" if entry.is_file(follow_symlinks=False) else SPECIAL), False
    target = os.path.realpath(entry.path)
    is_folder = os.path.isdir(target)
    if not os.path.exists(target):
        return "", False
    if not any(os.path.commonpath([base, target]) == base for base in allowed):
        text = (
            f"a link that leads out of the folder, to {printable(target)}; put the {{}} itself "
            "there, for example with cp -rL"
        )
        return text.format("folder" if is_folder else "file"), is_folder
    return ("" if is_folder or os.path.isfile(target) else SPECIAL), is_folder


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
    return name if is_plain(name) else "".join(map(_escaped, name))


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # Python's representation of an undecodable byte
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode() if _is_hidden(letter) else letter


Framing = Literal["full", "centered", "crop300", "cell"]

NATIVE = 450
"""Pixels per side of C-NMC's images; those of the final test set have a wider black margin."""

FINAL_SIZE = (600, 600)
LARGEST = 4096
"""Maximum pixels per side. Cell images have a few hundred; a small file can claim enough to
exhaust the memory."""

LIT = 10
"""Gray value (0-255) above which a pixel belongs to the cell; compression changes the black around
the cell by less."""


@overload
def cell_mask(images: Tensor) -> Tensor: ...


@overload
def cell_mask(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]: ...


def cell_mask(images: Tensor | npt.NDArray[np.uint8]) -> Tensor | npt.NDArray[np.bool_]:
    """Mask of the cell: pixels with a channel brighter than :data:`LIT` of 255.

    Args:
        images: tensor ``float (B, 3, R, R)`` in [0, 1], or array ``uint8 (..., R, R, 3)``.

    Returns:
        ``bool (B, R, R)`` on the same device, or ``bool (..., R, R)``.
    """
    if isinstance(images, Tensor):
        return images.amax(dim=1) > LIT / 255
    return np.asarray(images.max(axis=-1) > LIT)


_LIT_TABLE = [255 * (value > LIT) for value in range(256)]

THUMB = 64
"""Pixels per side of a thumbnail."""

DIGEST = 16
"""Length of a digest in bytes."""

FORMATS = ("BMP", "PNG")
"""Readers of Pillow to try, whatever the suffix of the file; some others start programs."""

_CROP300 = 300 / NATIVE
_CENTERED = 360 / NATIVE
_CENTERED_MARGIN = 0.02
_MARGIN = 0.05


class UnusableError(DataError):
    """An image file that cannot be used.

    Attributes:
        problem: description of the problem, without path and remedy.
        remedy: change to the file that would make it usable.
    """

    problem = ""
    remedy = ""


class NoCellError(UnusableError):
    """A readable image without a cell."""


@dataclass(frozen=True)
class Frame:
    """Crop and size of decoded images.

    ``full`` and ``crop300`` keep the scale of all cells, so that their size remains meaningful, and
    ``centered`` that of all but the largest; ``cell`` loses the scale for more detail.

    C-NMC's cells are often off center: ``crop300`` cuts more than 0.5 % of the cell's area in 5.6 %
    of the leukemic and 2.0 % of the healthy images of folds 0 and 1, which leaves straight edges
    that classifiers can learn; it remains for runs that choose it. ``centered`` cuts no cell: for
    cells that do not fit (0.8 % of the leukemic, 0.5 % of the healthy images), the square grows.

    Attributes:
        resolution: pixels per side after resizing.
        framing: ``full``; ``centered`` for 360 of C-NMC's 450 pixels (four fifths of the longer
            side of other images) around the center of the cell, or more for larger cells;
            ``crop300`` for the central 300 pixels (two thirds); or ``cell`` for the square around
            the cell.
        canvas: side in pixels of the square to which images are first cropped or padded with black,
            so that images of one pixel size show the same field of view.
        share: side of that square as a share of the image's longer side. By default, the square
            has the central 450 pixels of C-NMC's final images and the longer side of others, which
            keeps the aspect ratio.
    """

    resolution: int
    framing: Framing = "full"
    canvas: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: ``uint8 (R, R, 3)``, RGB, the resized frame.
        digest: hash of the pixels before framing; equal for identical images.
        thumb: ``uint8 (64, 64)`` gray, the square around the cell, to find near-duplicates.
        area: share of the square canvas that the cell covers.
        size: width and height of the image.
        outside: share of the cell's area, 0 to 1, that the frame cuts off.
        at_border: True if the cell touches the image border or exceeds the canvas, either of which
            may cut it.
        filled: True if the canvas is larger than the image.
    """

    pixels: npt.NDArray[np.uint8]
    digest: bytes
    thumb: npt.NDArray[np.uint8]
    area: float
    size: tuple[int, int]
    outside: float
    at_border: bool
    filled: bool = False


def decode(path: Path, frame: Frame) -> Decoded:
    """Read an RGB image and resize its frame with an antialiased triangle filter.

    The filter has no negative lobes, so the black around a cell stays black. The image is first
    cropped around its center, without cutting the cell, or padded to a square canvas. A fully
    opaque alpha channel, as image editors add it, is dropped.

    Raises:
        NoCellError: all pixels are black.
        UnusableError: the file is missing, truncated, not BMP or PNG, too large, not 8-bit RGB,
            partly transparent, or its field of view exceeds the maximum size.
    """
    image = _rgb(path, _open(path))
    size = image.size
    gray = image.convert("L")
    mask = gray.point(_LIT_TABLE)
    whole = mask.histogram()[255]
    box = mask.getbbox()
    side = _side(size, frame)
    if side > LARGEST:
        raise _unusable(path, f"its field of view would be {side} pixels wide, limit {LARGEST}")
    if box is not None:
        wide, high = box[2] - box[0], box[3] - box[1]
        at_border = max(wide, high) > side or _touches(box, size)
        canvas = _canvas(size, box, side)
        if canvas != (0, 0, *size):
            image, gray, mask = image.crop(canvas), gray.crop(canvas), mask.crop(canvas)
            box = mask.getbbox()
    if box is None:
        raise _unusable(path, "no cell, all pixels are black", NoCellError)
    square = _square(box)
    thumb = gray.crop(square).resize((THUMB, THUMB), Image.Resampling.BOX)
    framed = _frame_box(image, frame, square)
    left, upper, right, lower = (round(edge) for edge in framed)
    inside = mask.crop((left, upper, right, lower)).histogram()[255]
    return Decoded(
        _resized(image, frame, framed),
        hashlib.sha256(image.tobytes()).digest()[:DIGEST],
        np.asarray(thumb),
        mask.histogram()[255] / (image.width * image.height),
        size,
        1 - inside / whole,
        at_border,
        side > max(size),
    )


def _side(size: tuple[int, int], frame: Frame) -> int:
    """Return the side of the square canvas of an image in pixels."""
    if frame.canvas is not None:
        return frame.canvas
    if frame.share is not None:
        return max(1, round(frame.share * max(size)))
    return NATIVE if size == FINAL_SIZE else max(size)


def _canvas(
    size: tuple[int, int], box: tuple[int, int, int, int], side: int
) -> tuple[int, int, int, int]:
    """Return the edges of the canvas, centered on the image but moved to contain the cell."""
    corner = []
    for length, low, high in zip(size, box[:2], box[2:], strict=True):
        corner.append(min(max((length - side) // 2, high - side), low))
    left, upper = corner
    return (left, upper, left + side, upper + side)


def _touches(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Return True if a box reaches the border of an image."""
    return min(box[:2]) == 0 or box[2] == size[0] or box[3] == size[1]


def _open(path: Path) -> Image.Image:
    """Read an image completely, with BMP and PNG readers only."""
    try:
        # Opening a pipe would block, and a device may have no end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unusable(path, SPECIAL.partition(";")[0])
        with Image.open(path, formats=FORMATS) as opened:
            if not 0 < min(opened.size) <= max(opened.size) <= LARGEST:
                wide, high = opened.size
                raise _unusable(path, f"{wide} x {high} pixels, limit {LARGEST} per side")
            opened.load()
            return opened
    except UnusableError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads to
        raise _unusable(path, _diagnosis(path, error)) from error


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    """Convert an opaque RGBA image to RGB; refuse other modes than RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "RGBA":
        opaque = image.getchannel("A").histogram()[255] / (image.width * image.height)
        if opaque == 1:
            return image.convert("RGB")
        raise _unusable(
            path,
            f"RGBA image, {1 - opaque:.2%} of its pixels are not opaque",
            remedy="paste it on black and save it as 8-bit RGB",
        )
    raise _unusable(
        path,
        f"{image.mode} image, expected 8-bit RGB",
        remedy="convert it to 8-bit RGB" if image.mode == "P" else "use the color image instead",
    )


def _frame_box(
    image: Image.Image, frame: Frame, square: tuple[int, int, int, int]
) -> tuple[float, float, float, float]:
    """Return the edges of the frame from the square around the cell; can exceed the image."""
    if frame.framing == "full":
        return (0, 0, *image.size)
    if frame.framing == "crop300":
        return _centered(*image.size, _CROP300 * image.width, _CROP300 * image.height)
    left, upper, right, _ = square
    side = right - left
    if frame.framing == "cell":
        wide = side + 2 * round(_MARGIN * side)
    else:
        least = round(_CENTERED * max(image.size))
        wide = max(least, side + 2 * math.ceil(_CENTERED_MARGIN * side))
    left, upper = left - (wide - side) // 2, upper - (wide - side) // 2
    return (left, upper, left + wide, upper + wide)


def _resized(
    image: Image.Image, frame: Frame, box: tuple[float, float, float, float]
) -> npt.NDArray[np.uint8]:
    """Resize a box of the image to ``(R, R, 3)``, black beyond the image."""
    size = (frame.resolution, frame.resolution)
    if frame.framing == "crop300":  # its edges can be fractions of pixels
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    left, upper, right, lower = (round(edge) for edge in box)
    cropped = image.crop((left, upper, right, lower))
    return np.asarray(cropped.resize(size, Image.Resampling.BILINEAR))


def _centered(
    width: int, height: int, wide: float, high: float
) -> tuple[float, float, float, float]:
    """Return the edges of a centered box of ``wide`` by ``high`` pixels."""
    left, upper = (width - wide) / 2, (height - high) / 2
    return (left, upper, left + wide, upper + high)


def _square(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the smallest square around a box with the same center; can exceed the image."""
    left, upper, right, lower = box
    side = max(right - left, lower - upper)
    x, y = left - (side - (right - left)) // 2, upper - (side - (lower - upper)) // 2
    return (x, y, x + side, y + side)


SKIP = " or set data.on_corrupt=skip"
"""End of messages about a single image, which can be omitted."""


def _unusable(
    path: Path,
    problem: str,
    kind: type[UnusableError] = UnusableError,
    remedy: str = "replace the file",
) -> UnusableError:
    error = kind(f"{path}: {problem}; {remedy}{SKIP}")
    error.problem, error.remedy = problem, remedy
    return error


def _diagnosis(path: Path, error: Exception) -> str:
    """Describe why a file is unreadable; a BMP states its length, which shows truncation."""
    try:
        with path.open("rb") as file:
            head = file.read(6)
        found = path.stat().st_size
    except OSError as unreadable:
        return str(unreadable.strerror)
    expected = int.from_bytes(head[2:6], "little")
    if head[:2] == b"BM" and found < expected:
        return f"truncated BMP (expected {expected} bytes, found {found})"
    return f"cannot be read ({error})"

"""One image file to the pixels that are kept, and to what tells it from every other image."""

import hashlib
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from leuk.data.walk import SPECIAL
from leuk.errors import DataError

Framing = Literal["full", "centered", "crop300", "cell"]

NATIVE = 450
"""Pixels a side of C-NMC's images; those of the final test set are larger, and black around it."""

FINAL_SIZE = (600, 600)
LARGEST = 4096
"""Most pixels a side. Cells have a few hundred; a file of some kilobytes can claim so many that
decoding them takes all memory."""

LIT = 10
"""A pixel belongs to the cell when it is brighter than this (0-255); compression blurs the black
around it by less."""

_LIT_TABLE = [255 * (value > LIT) for value in range(256)]

THUMB = 64
"""Pixels a side of a thumbnail."""

DIGEST = 16
"""Bytes of a digest."""

FORMATS = ("BMP", "PNG")
"""No other reader is tried, whatever a file is called: some of Pillow's start programs."""

_CROP300 = 300 / NATIVE
_CENTERED = 360 / NATIVE
_CENTERED_MARGIN = 0.02
_MARGIN = 0.05


class UnusableError(DataError):
    """An image file that cannot be used.

    Attributes:
        what: what is wrong with it, without its path and without advice.
        remedy: change to the file that would make it usable.
    """

    what = ""
    remedy = ""


class NoCellError(UnusableError):
    """An image that can be read and shows nothing."""


@dataclass(frozen=True)
class Frame:
    """What part of each image is kept, and at what size.

    ``full`` and ``crop300`` keep the scale the same for all cells, so that the size of a cell keeps
    its meaning, and ``centered`` for all but the largest; ``cell`` gives it up for detail.

    C-NMC's cells are seldom in the middle of their image: ``crop300`` cuts more than 0.5 % of the
    area off 5.6 % of the leukemic and 2.0 % of the healthy images of folds 0 and 1, which leaves a
    straight edge that a classifier can learn. It is kept for runs that name it. ``centered`` cuts
    nothing in any image; where a cell would not fit (0.8 % of the leukemic, 0.5 % of the healthy
    images), the square grows to hold it.

    Attributes:
        resolution: pixels per side after resizing.
        framing: ``full``; ``centered`` for 360 of C-NMC's 450 pixels (four fifths of the longer
            side of another image) around the middle of the cell, or more if it is larger;
            ``crop300`` for the central 300 pixels (two thirds); or ``cell`` for the square around
            the cell.
        canvas: side in pixels of the square that every image is first cropped or filled up to with
            black, so that images of one pixel size show the same field of view.
        share: the same as a share of the image's longer side. Where neither is given, the square
            is the central 450 pixels of C-NMC's final images, and the longer side of others, so
            that no image is squashed.
    """

    resolution: int
    framing: Framing = "full"
    canvas: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Decoded:
    """One image.

    Attributes:
        pixels: ``uint8 (R, R, 3)`` RGB, the frame.
        digest: hash of all pixels of the image as it is; equal for identical images.
        thumb: ``uint8 (64, 64)`` gray, the square around the cell, for finding near-duplicates.
        area: share of the square canvas that the cell covers.
        size: width and height of the image.
        outside: share of the cell's area, 0 to 1, that the frame cuts off.
        at_border: whether the cell touches the border of the image or exceeds the canvas, which
            may have cut it.
        filled: true where the canvas is larger than the image.
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
    """Read one RGB image and resize its frame with an antialiased triangle filter.

    The filter has no negative lobes, so the black around a cell stays black. The image is brought
    to a square canvas first, cropped about its middle without cutting the cell, or padded. An alpha
    channel that is opaque everywhere, as image editors add it, is dropped.

    Raises:
        NoCellError: all of it is black.
        UnusableError: the file is missing, truncated, no BMP or PNG, far too large, not 8-bit
            RGB, transparent in places, or of a field of view that would be far too large.
    """
    image = _rgb(path, _opened(path))
    size = image.size
    gray = image.convert("L")
    mask = gray.point(_LIT_TABLE)
    whole = mask.histogram()[255]
    box = mask.getbbox()
    side = _side(size, frame)
    if side > LARGEST:
        what = f"its field of view would be {side} pixels wide, where {LARGEST} are the most"
        raise _unusable(path, what)
    if box is not None:
        wide, high = box[2] - box[0], box[3] - box[1]
        at_border = max(wide, high) > side or _touches(box, size)
        canvas = _canvas(size, box, side)
        if canvas != (0, 0, *size):
            image, gray, mask = image.crop(canvas), gray.crop(canvas), mask.crop(canvas)
            box = mask.getbbox()
    if box is None:
        raise _unusable(path, "no cell in it, all pixels are black", NoCellError)
    square = _square(box)
    thumb = gray.crop(square).resize((THUMB, THUMB), Image.Resampling.BOX)
    framed = _frame_of(image, frame, square)
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
    """Pixels a side of the square canvas of an image."""
    if frame.canvas is not None:
        return frame.canvas
    if frame.share is not None:
        return max(1, round(frame.share * max(size)))
    return NATIVE if size == FINAL_SIZE else max(size)


def _canvas(
    size: tuple[int, int], box: tuple[int, int, int, int], side: int
) -> tuple[int, int, int, int]:
    """Edges of the canvas: about the middle of the image, moved as far as the cell needs it."""
    corner = []
    for length, low, high in zip(size, box[:2], box[2:], strict=True):
        corner.append(min(max((length - side) // 2, high - side), low))
    left, upper = corner
    return (left, upper, left + side, upper + side)


def _touches(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Tell if a box reaches the border of an image."""
    return min(box[:2]) == 0 or box[2] == size[0] or box[3] == size[1]


def _opened(path: Path) -> Image.Image:
    """The image of a file, read whole."""
    try:
        # A pipe would be waited for, and a device read without end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unusable(path, SPECIAL.partition(";")[0])
        with Image.open(path, formats=FORMATS) as opened:
            if not 0 < min(opened.size) <= max(opened.size) <= LARGEST:
                wide, high = opened.size
                raise _unusable(path, f"{wide} x {high} pixels, where a cell has {LARGEST} at most")
            opened.load()
            return opened
    except UnusableError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads to
        raise _unusable(path, _what_is_wrong(path, error)) from error


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    """The image without an alpha channel that changes nothing."""
    if image.mode == "RGB":
        return image
    if image.mode == "RGBA":
        opaque = image.getchannel("A").histogram()[255] / (image.width * image.height)
        if opaque == 1:
            return image.convert("RGB")
        raise _unusable(
            path,
            f"RGBA image that is not opaque in {1 - opaque:.2%} of its pixels, which have no "
            "definite color",
            remedy="paste it on black and save it as 8-bit RGB",
        )
    raise _unusable(
        path,
        f"{image.mode} image where 8-bit RGB was expected",
        remedy="convert it to 8-bit RGB" if image.mode == "P" else "replace it by the color image",
    )


def _frame_of(
    image: Image.Image, frame: Frame, square: tuple[int, int, int, int]
) -> tuple[float, float, float, float]:
    """Edges of the frame in the image, from the square around the cell; they may lie outside."""
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
    """The pixels of a box ``(R, R, 3)``, black beyond the image."""
    size = (frame.resolution, frame.resolution)
    if frame.framing == "crop300":  # of other sizes than C-NMC's its edges lie within pixels
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    left, upper, right, lower = (round(edge) for edge in box)
    cropped = image.crop((left, upper, right, lower))
    return np.asarray(cropped.resize(size, Image.Resampling.BILINEAR))


def _centered(
    width: int, height: int, wide: float, high: float
) -> tuple[float, float, float, float]:
    """Edges of a box of ``wide`` by ``high`` in the middle of an image."""
    left, upper = (width - wide) / 2, (height - high) / 2
    return (left, upper, left + wide, upper + high)


def _square(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The smallest square around a box, about its middle; it may reach out of the image."""
    left, upper, right, lower = box
    side = max(right - left, lower - upper)
    x, y = left - (side - (right - left)) // 2, upper - (side - (lower - upper)) // 2
    return (x, y, x + side, y + side)


SKIP = " or set data.on_corrupt=skip"
"""End of the message about one image, where others may be used without it."""


def _unusable(
    path: Path,
    what: str,
    kind: type[UnusableError] = UnusableError,
    remedy: str = "replace the file",
) -> UnusableError:
    error = kind(f"{path}: {what}; {remedy}{SKIP}")
    error.what, error.remedy = what, remedy
    return error


def _what_is_wrong(path: Path, error: Exception) -> str:
    """Name the fault; a BMP carries its own length, so a truncated one can be told."""
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

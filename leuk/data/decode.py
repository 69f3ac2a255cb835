"""Decoding of an image file: mask, frame, digest, thumbnail and area of the cell."""

import hashlib
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from leuk.errors import DataError

NATIVE = 450
"""Pixels per side of C-NMC's images; those of the final test set have a wider black margin."""

FINAL_SIZE = (600, 600)
LARGEST = 4096
"""Maximum pixels per side. Cell images have a few hundred; a small file can claim enough to
exhaust the memory."""

LIT = 10
"""Gray value (0-255) above which a pixel belongs to the cell; compression changes the black around
the cell by less."""

THUMB = 64
"""Pixels per side of a thumbnail."""

DIGEST = 16
"""Length of a digest in bytes."""

FORMATS = ("BMP", "PNG")
"""Readers of Pillow to try, whatever the suffix of the file; some others start programs."""

SPECIAL = "a pipe, device or socket, not a file"
SKIP = " or set data.on_corrupt=skip"
"""End of messages about a single image, which can be omitted."""

Framing = Literal["full", "centered", "crop300", "cell"]

_CROP300 = 300 / NATIVE
_CENTERED = 360 / NATIVE
_CENTERED_MARGIN = 0.02
_MARGIN = 0.05


@overload
def cell_mask(images: Tensor) -> Tensor: ...


@overload
def cell_mask(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]: ...


def cell_mask(images: Tensor | npt.NDArray[np.uint8]) -> Tensor | npt.NDArray[np.bool_]:
    """Mask of the cell: pixels with a channel brighter than :data:`LIT` of 255.

    ``bool (B, R, R)`` for a tensor ``float (B, 3, R, R)`` in [0, 1], on its device; ``bool (..., R,
    R)`` for an array ``uint8 (..., R, R, 3)``.
    """
    if isinstance(images, Tensor):
        return images.amax(dim=1) > LIT / 255
    return np.asarray(images.max(axis=-1) > LIT)


class UnusableError(DataError):
    """An image file that cannot be used: its problem, and a change that would make it usable."""

    def __init__(self, path: Path, problem: str, remedy: str = "replace the file") -> None:
        super().__init__(f"{path}: {problem}; {remedy}{SKIP}")
        self.problem, self.remedy = problem, remedy


class NoCellError(UnusableError):
    """A readable image without a cell."""


@dataclass(frozen=True)
class Frame:
    """Crop and size of decoded images.

    ``full`` and ``crop300`` keep the scale of all cells, so that their size remains meaningful, and
    ``centered`` that of all but the largest; ``cell`` loses the scale for more detail.

    C-NMC's cells are often off center: ``crop300`` cuts more than 0.5 % of the cell's area in 5.6 %
    of the leukemic and 2.0 % of the healthy images of folds 0 and 1, which leaves straight edges
    that classifiers can learn; it remains for runs that choose it.

    Attributes:
        resolution: pixels per side after resizing.
        framing: ``full``; ``centered`` for 360 of C-NMC's 450 pixels (four fifths of the longer
            side of other images) around the center of the cell, or more for larger cells;
            ``crop300`` for the central 300 pixels (two thirds); or ``cell`` for the square around
            the cell.
        canvas: side in pixels of the square to which images are first cropped or padded with black;
            by default the longer side of the image, or the central 450 pixels of final images.
        share: side of that square as a share of the image's longer side, in place of ``canvas``.
    """

    resolution: int
    framing: Framing = "full"
    canvas: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Decoded:
    """A decoded image."""

    pixels: npt.NDArray[np.uint8]  # (R, R, 3), RGB, the resized frame
    digest: bytes  # hash of the pixels before framing; equal for identical images
    thumb: npt.NDArray[np.uint8]  # (64, 64), gray, the square around the cell
    area: float  # share of the square canvas that the cell covers
    size: tuple[int, int]  # width and height of the image
    outside: float  # share of the cell's area that the frame cuts off
    at_border: bool  # the cell touches the image border or exceeds the canvas, which may cut it
    filled: bool  # the canvas is larger than the image


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
    mask = gray.point([255 * (value > LIT) for value in range(256)])
    whole = mask.histogram()[255]
    box = mask.getbbox()

    if frame.canvas is not None:
        side = frame.canvas
    elif frame.share is not None:
        side = max(1, round(frame.share * max(size)))
    else:
        side = NATIVE if size == FINAL_SIZE else max(size)
    if side > LARGEST:
        raise UnusableError(path, f"its field of view would be {side} pixels wide, limit {LARGEST}")
    if box is None:
        raise NoCellError(path, "no cell, all pixels are black")
    left, upper, right, lower = box
    touches = min(left, upper) == 0 or right == size[0] or lower == size[1]
    at_border = touches or max(right - left, lower - upper) > side
    # The canvas is centered on the image, but moved to contain the cell.
    x = min(max((size[0] - side) // 2, right - side), left)
    y = min(max((size[1] - side) // 2, lower - side), upper)
    canvas = (x, y, x + side, y + side)
    image, gray, mask = image.crop(canvas), gray.crop(canvas), mask.crop(canvas)
    box = mask.getbbox()
    if box is None:
        raise NoCellError(path, "no cell, all pixels are black")

    # The smallest square around the cell with the same center can exceed the canvas.
    left, upper, right, lower = box
    edge = max(right - left, lower - upper)
    left, upper = left - (edge - (right - left)) // 2, upper - (edge - (lower - upper)) // 2
    thumb = gray.crop((left, upper, left + edge, upper + edge))

    resolution = (frame.resolution, frame.resolution)
    if frame.framing == "crop300":  # its edges can be fractions of pixels
        wide = _CROP300 * side
        x0 = y0 = (side - wide) / 2
        exact = (x0, y0, x0 + wide, y0 + wide)
        resized = image.resize(resolution, Image.Resampling.BILINEAR, box=exact)
        square = (round(x0), round(y0), round(x0 + wide), round(y0 + wide))
    else:
        wide, x, y = side, 0, 0
        if frame.framing != "full":
            wide = edge + 2 * round(_MARGIN * edge)
            if frame.framing == "centered":
                margin = math.ceil(_CENTERED_MARGIN * edge)
                wide = max(round(_CENTERED * side), edge + 2 * margin)
            x, y = left - (wide - edge) // 2, upper - (wide - edge) // 2
        square = (x, y, x + wide, y + wide)
        resized = image.crop(square).resize(resolution, Image.Resampling.BILINEAR)
    return Decoded(
        pixels=np.asarray(resized),
        digest=hashlib.sha256(image.tobytes()).digest()[:DIGEST],
        thumb=np.asarray(thumb.resize((THUMB, THUMB), Image.Resampling.BOX)),
        area=mask.histogram()[255] / side**2,
        size=size,
        outside=1 - mask.crop(square).histogram()[255] / whole,
        at_border=at_border,
        filled=side > max(size),
    )


def _open(path: Path) -> Image.Image:
    """Read an image completely, with BMP and PNG readers only."""
    try:
        # Opening a pipe would block, and a device may have no end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnusableError(path, SPECIAL)
        with Image.open(path, formats=FORMATS) as opened:
            if not 0 < min(opened.size) <= max(opened.size) <= LARGEST:
                wide, high = opened.size
                raise UnusableError(path, f"{wide} x {high} pixels, limit {LARGEST} per side")
            opened.load()
            return opened
    except UnusableError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads to
        raise UnusableError(path, _diagnosis(path, error)) from error


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


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    """Convert an opaque RGBA image to RGB; refuse other modes than RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "RGBA":
        opaque = image.getchannel("A").histogram()[255] / (image.width * image.height)
        if opaque == 1:
            return image.convert("RGB")
        problem = f"RGBA image, {1 - opaque:.2%} of its pixels are not opaque"
        raise UnusableError(path, problem, "paste it on black and save it as 8-bit RGB")
    raise UnusableError(
        path,
        f"{image.mode} image, expected 8-bit RGB",
        "convert it to 8-bit RGB" if image.mode == "P" else "use the color image instead",
    )

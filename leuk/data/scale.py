"""Field of view of a data set's images, and the part of another image that shows the same field.

The size of a cell in pixels is what classifiers learn first. An image of another size may be a
resized copy of the same field of view, or show more or less of the slide; its pixels cannot tell.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from leuk.data.decode import FINAL_SIZE, FORMATS, NATIVE, Frame
from leuk.data.labels import UNLABELED
from leuk.data.layouts import read_folder
from leuk.errors import ConfigError, DataError

Size = tuple[int, int]
"""Width and height in pixels."""

SAME = "same"
"""Value of ``frame=`` for images that show the field of view of the training images."""
SIZE_UNKNOWN = (
    "the size of the run's training images is unknown, so these images are taken to show the same "
    "field of view; check that, and say so with frame=same"
)
"""Warning of a run from before sizes were recorded, whose training images are gone."""


@dataclass(frozen=True)
class Scale:
    """Sizes and field of view of a run's training images.

    Attributes:
        sizes: widths and heights of their files in pixels; empty where unknown.
        frame: side of the field they show, in pixels of the microscope's frame or in µm; None
            where unknown.
        canvas: side in pixels of the square that every file is cropped or filled up to; None for
            the longer side of each file.
        areas: smallest and largest share of the field that a training cell covers, 0 to 1; None
            where unknown.
    """

    sizes: tuple[Size, ...] = ()
    frame: float | None = None
    canvas: int | None = None
    areas: tuple[float, float] | None = None

    @classmethod
    def of_sizes(cls, sizes: Iterable[Size]) -> "Scale":
        """Scale of C-NMC files; their field is known only where none was resized."""
        found = tuple(sorted({framed(size) for size in sizes}))
        return cls(found, float(NATIVE) if found == ((NATIVE, NATIVE),) else None)

    @classmethod
    def of_record(cls, values: Mapping[str, Any]) -> "Scale":
        """Scale in ``data.scale`` of a record."""
        sizes = tuple((int(width), int(height)) for width, height in values["sizes"])
        areas = values.get("areas")
        return cls(
            sizes,
            values.get("frame"),
            values.get("canvas"),
            None if areas is None else (float(areas[0]), float(areas[1])),
        )

    @property
    def shown(self) -> str:
        """Training sizes in words."""
        return ", ".join(f"{width} x {height} px" for width, height in self.sizes) or "unknown"

    def view(self, trained: Frame, frame: str | None, pixel_size: float | None) -> "View":
        """View of images whose field is stated, or known from their size.

        Args:
            trained: frame of the training images.
            frame: :data:`SAME`, or the side of the field that each image shows along its longer
                side, in the unit of :attr:`frame`; None where not stated.
            pixel_size: side of one pixel of the images in the same unit; None where not stated.

        Raises:
            ConfigError: not a field of view, or the run does not know its own.
        """
        if frame is None and pixel_size is None:
            return View(self, trained, stated=False)
        if frame is not None and pixel_size is not None:
            raise ConfigError(
                f"frame={frame} and pixel_size={pixel_size:g}: each states the field of view; give "
                "one of them"
            )
        if frame == SAME:
            return View(self, replace(trained, canvas=None, share=1.0), stated=True)
        key, value = ("frame", frame) if frame is not None else ("pixel_size", pixel_size)
        try:
            number = float(str(value))
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            allowed = "same or a number above 0" if key == "frame" else "a number above 0"
            raise ConfigError(f"{key}={value}: not a field of view; set {allowed}")
        if self.frame is None:
            raise ConfigError(
                f"{key}={value}: the run does not know the field of view of its training images "
                f"({self.shown}); crop the images to that field and set frame=same, or train "
                "again with data.frame=N"
            )
        if key == "frame":
            changed = replace(trained, canvas=None, share=self.frame / number)
        else:
            changed = replace(trained, canvas=max(1, round(self.frame / number)))
        return View(self, changed, stated=True)


@dataclass(frozen=True)
class View:
    """Frame that brings images to the scale of a run's training images.

    Attributes:
        scale: of the training images.
        frame: that the images are decoded with.
        stated: true where the user states their field of view.
    """

    scale: Scale
    frame: Frame
    stated: bool

    def covers(self, size: Size) -> bool:
        """Tell if the field of view of an image of this size is known."""
        # A square around the cell has the same scale in every image.
        if self.stated or not self.scale.sizes or self.frame.framing == "cell":
            return True
        side = self.scale.frame if self.scale.canvas is None else None
        return framed(size) in self.scale.sizes or framed(size) == (side, side)

    def unknown(self, sizes: Mapping[Size, int]) -> str:
        """Problem and remedy of images that it does not cover; empty where there are none."""
        others = {size: number for size, number in sizes.items() if not self.covers(size)}
        if not others:
            return ""
        return (
            f"{sum(others.values())} of {sum(sizes.values())} images ({counted(others)}) do not "
            f"have the size of the training images ({self.scale.shown}), so their scale is "
            "unknown; say what they show: frame=same (the field of view of the training images), "
            "frame=N (N pixels of the original frame) or pixel_size=P (1 for images never resized)"
        )

    def unlike(self, area: float) -> str:
        """Reason to doubt the scale of an image; empty where there is none.

        Args:
            area: share of the field of view that its cell covers, 0 to 1.
        """
        if self.scale.areas is None or self.frame.framing == "cell":
            return ""
        low, high = self.scale.areas
        if low <= area <= high:
            return ""
        return (
            f"its cell covers {area:.1%} of the field of view, those of the training images "
            f"{low:.1%} to {high:.1%}: check its scale"
        )


def framed(size: Size) -> Size:
    """Size of the field that is kept of an image of C-NMC."""
    return (NATIVE, NATIVE) if size == FINAL_SIZE else size


def file_sizes(paths: Iterable[Path]) -> Counter[Size]:
    """Count images by size, from their headers; files without a readable header are passed over."""
    sizes: Counter[Size] = Counter()
    for path in paths:
        try:
            # A pipe would be waited for.
            if path.is_file():
                with Image.open(path, formats=FORMATS) as image:
                    sizes[image.size] += 1
        except Exception:  # Pillow's readers raise whatever a damaged header leads to
            continue
    return sizes


def training_sizes(root: Path) -> Counter[Size]:
    """Count the labeled images below a data set's folder by size."""
    cells = read_folder(root).table
    return file_sizes(root / path for path in cells.loc[cells["label"] != UNLABELED, "path"])


def counted(sizes: Mapping[Size, int]) -> str:
    """``width x height: number`` of each size, the most frequent first."""
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{width} x {height}: {number}" for (width, height), number in ordered)


def mixed_sizes(root: Path, sizes: Mapping[Size, int], framing: str) -> str:
    """Problem and remedy of training images of several sizes; empty where there is one size."""
    if framing == "cell" or len({framed(size) for size in sizes}) < 2:
        return ""
    return (
        f"data.root={root}: images of {len(sizes)} sizes ({counted(sizes)}), so that the size of a "
        "cell depends on its file; set data.frame=N if all show the same field of view of N "
        "pixels of the original frame, set data.pixel_size=1 if none was resized, or move the "
        "fewer images out"
    )


def check_field(frame: float | None, pixel_size: float | None) -> None:
    """Refuse two statements of one field of view.

    Raises:
        ConfigError: both are given.
    """
    if frame is not None and pixel_size is not None:
        raise ConfigError(
            f"data.frame={frame:g} and data.pixel_size={pixel_size:g}: each states the field of "
            "view; give one of them"
        )


def check_sizes(root: Path, framing: str, frame: float | None, pixel_size: float | None) -> None:
    """Refuse training images whose scale differs from file to file.

    Args:
        root: folder of the data set.
        framing: part of each image that is kept.
        frame: side of the field that every image shows, where it is stated.
        pixel_size: side of one pixel of every image, where it is stated.

    Raises:
        ConfigError: both are given.
        DataError: images of several sizes, and neither is given.
    """
    check_field(frame, pixel_size)
    stated = frame is not None or pixel_size is not None
    if not stated and (problem := mixed_sizes(root, training_sizes(root), framing)):
        raise DataError(problem)

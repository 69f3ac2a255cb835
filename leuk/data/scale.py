"""Field of view of a data set's images, and the part of another image that shows the same field.

The size of a cell in pixels is what classifiers learn first. An image of another size may be a
resized copy of the same field of view, or show more or less of the slide; its pixels do not show
which.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from leuk.data.decode import FINAL_SIZE, FORMATS, LIT, NATIVE, Frame
from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import read_cnmc, shortened
from leuk.errors import ConfigError, DataError

Size = tuple[int, int]
"""Width and height in pixels."""

SAME = "same"
"""Value of ``frame=`` for images that show the field of view of the training images."""
SIZE_UNKNOWN = (
    "the size of the run's training images is unknown, so these images are assumed to show the "
    "same field of view; check this, and confirm with frame=same"
)
"""Warning for runs that did not record sizes and whose training images are missing."""


@dataclass(frozen=True)
class Scale:
    """Sizes and field of view of a run's training images; None where unknown."""

    sizes: tuple[Size, ...] = ()  # of the image files
    frame: float | None = None  # side of the field of view, in pixels of the microscope or in µm
    canvas: int | None = None  # see Frame
    areas: tuple[float, float] | None = None  # range of the cells' shares of the field of view

    @classmethod
    def of_sizes(cls, sizes: Iterable[Size]) -> "Scale":
        """Create the scale of C-NMC files; the field of view is known only if none was resized."""
        found = tuple(sorted(set(map(framed, sizes))))
        return cls(found, float(NATIVE) if found == ((NATIVE, NATIVE),) else None)

    @classmethod
    def of_record(cls, values: Mapping[str, Any]) -> "Scale":
        """Create the scale from ``data.scale`` of a record."""
        sizes = tuple((int(width), int(height)) for width, height in values["sizes"])
        areas = values.get("areas")
        bounds = None if areas is None else (float(areas[0]), float(areas[1]))
        return cls(sizes, values.get("frame"), values.get("canvas"), bounds)

    @property
    def sizes_text(self) -> str:
        """Sizes of the training images for messages."""
        return ", ".join(f"{width} x {height} px" for width, height in self.sizes) or "unknown"

    def view(self, trained: Frame, frame: str | None, pixel_size: float | None) -> "View":
        """Derive the frame that decodes images at the scale of the training images.

        Args:
            trained: frame of the training images.
            frame: :data:`SAME`, or the field of view of each image along its longer side; or None.
            pixel_size: side of one pixel of the images in the same unit, or None.

        Raises:
            ConfigError: a value is not a field of view, or that of the training images is unknown.
        """
        if not is_stated(frame, pixel_size):
            return View(self, trained, stated=False)
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
                f"{key}={value}: the field of view of the run's training images is unknown "
                f"({self.sizes_text}); crop the images to that field and set frame=same, or train "
                "again with data.frame=N"
            )
        sides = self.frame / number
        if key == "frame":
            return View(self, replace(trained, canvas=None, share=sides), stated=True)
        return View(self, replace(trained, canvas=max(1, round(sides))), stated=True)


@dataclass(frozen=True)
class View:
    """Frame that brings images to the scale of a run's training images."""

    scale: Scale  # of the training images
    frame: Frame  # to decode the images with
    stated: bool  # by the user: the field of view

    def covers(self, size: Size) -> bool:
        """Return True if the field of view of an image of this size is known."""
        # A square around the cell has the same scale in every image.
        if self.stated or not self.scale.sizes or self.frame.framing == "cell":
            return True
        side = self.scale.frame if self.scale.canvas is None else None
        return framed(size) in self.scale.sizes or framed(size) == (side, side)

    def unknown_scale(self, sizes: Mapping[Size, int]) -> str:
        """Describe problem and remedy for images of unknown scale; empty without such images."""
        others = {size: number for size, number in sizes.items() if not self.covers(size)}
        if not others:
            return ""
        return (
            f"{sum(others.values())} of {sum(sizes.values())} images ({format_sizes(others)}) do "
            f"not have the size of the training images ({self.scale.sizes_text}): their scale is "
            "unknown; set frame=same (the field of view of the training images), frame=N "
            "(N pixels of the original frame) or pixel_size=P (1 for images never resized)"
        )

    def area_warning(self, area: float) -> str:
        """Warn of a share of the field of view that no training cell covers; empty if plausible."""
        low, high = self.scale.areas or (0.0, np.inf)
        if self.frame.framing == "cell" or low <= area <= high:
            return ""
        return (
            f"its cell covers {area:.1%} of the field of view, cells of the training images "
            f"{low:.1%} to {high:.1%}; check its scale"
        )


def framed(size: Size) -> Size:
    """Return the size of a C-NMC image after cropping to the field of view."""
    return (NATIVE, NATIVE) if size == FINAL_SIZE else size


def file_sizes(paths: Iterable[Path]) -> Counter[Size]:
    """Count images by size, from their headers; unreadable files are ignored."""
    sizes: Counter[Size] = Counter()
    for path in paths:
        try:
            # Opening a pipe would block.
            if path.is_file():
                with Image.open(path, formats=FORMATS) as image:
                    sizes[image.size] += 1
        except Exception:  # Pillow's readers raise whatever a damaged header leads to
            continue
    return sizes


def training_sizes(root: Path) -> Counter[Size]:
    """Count the labeled images below a data set's folder by size."""
    table = read_cnmc(root).table
    return file_sizes(root / path for path in table.loc[table["label"] != UNLABELED, "path"])


def format_sizes(sizes: Mapping[Size, int]) -> str:
    """Format as ``width x height: number``, the most frequent size first."""
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{width} x {height}: {number}" for (width, height), number in ordered)


def mixed_sizes(root: Path, sizes: Mapping[Size, int], framing: str) -> str:
    """Describe problem and remedy for training images of several sizes; empty for one size."""
    if framing == "cell" or len(set(map(framed, sizes))) < 2:
        return ""
    return (
        f"data.root={root}: images of {len(sizes)} sizes ({format_sizes(sizes)}) and unknown "
        "scale; set data.frame=N if all show the same field of view of N "
        "pixels of the original frame, set data.pixel_size=1 if none was resized, or remove the "
        "images of the rarer size"
    )


def is_stated(frame: float | str | None, pixel_size: float | None, node: str = "") -> bool:
    """Return True if the field of view is given, by the key ``frame`` or ``pixel_size`` of a node.

    Raises:
        ConfigError: both are given.
    """
    if frame is not None and pixel_size is not None:
        shown = frame if isinstance(frame, str) else f"{frame:g}"
        raise ConfigError(
            f"{node}frame={shown} and {node}pixel_size={pixel_size:g}: both define the field of "
            "view; set only one"
        )
    return frame is not None or pixel_size is not None


def check_sizes(root: Path, framing: str, frame: float | None, pixel_size: float | None) -> None:
    """Refuse training images of several sizes, unless the field of view is given.

    Raises:
        ConfigError: it is given twice.
        DataError: images of several sizes.
    """
    stated = is_stated(frame, pixel_size, "data.")
    if not stated and (problem := mixed_sizes(root, training_sizes(root), framing)):
        raise DataError(problem)


# --- Detection of images with a background that is not black, which breaks the mask of the cell

OUTLINE = 0.6
"""Lit share of the border of the box around all lit pixels, from which the background counts as not
black: a round cell touches that box in few places. Maximum on folds 0 and 1 of C-NMC: 0.47."""

REMEDY = "set everything but the cell to black (0, 0, 0), as C-NMC does"


def has_background(thumbs: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Find images with a background that is not black, or without any background: ``bool (N,)``.

    ``thumbs`` are the squares around the lit pixels of each image, ``uint8 (N, 64, 64)``.
    """
    found = np.zeros(len(thumbs), np.bool_)
    for number, lit in enumerate(thumbs > LIT):
        rows, columns = np.nonzero(lit)
        if len(rows):
            # The border of the smallest box around the lit pixels.
            box = lit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            border = np.concatenate([box[0], box[-1], box[1:-1, 0], box[1:-1, -1]])
            found[number] = border.mean() >= OUTLINE
    return found


def background_warning(names: Sequence[str], count: int) -> str:
    """Warn of the named ones of ``count`` images, whose background is not black; empty if none."""
    if not names:
        return ""
    return (
        f"background: {len(names)} of {count} images have a background that is not black, so that "
        f"all of it counts as the cell: {shortened(names, 10)}; {REMEDY}"
    )


def check_background(stages: dict[str, pd.DataFrame], thumbs: npt.NDArray[np.uint8]) -> str:
    """Refuse to train on data without black backgrounds; return a warning about single images.

    Args:
        stages: table of images by stage, whose index holds the rows of ``thumbs``.
        thumbs: ``uint8 (N, 64, 64)``, thumbnails of the data set.

    Raises:
        DataError: in a stage, more than half of the images of a class have another background.
    """
    of_path: dict[str, bool] = {}  # in the thesis split, the same images are in two stages
    counts: list[str] = []
    for stage, table in stages.items():
        found = has_background(thumbs[table.index.to_numpy()])
        of_path |= zip(table["path"], found.tolist(), strict=True)
        for label in table["label"].unique().tolist():
            own = found[table["label"] == label]
            if own.mean() > 0.5:
                name = Label(label).folder
                counts.append(f"{own.sum()} of {len(own)} {name} images of {stage}")
    warning = background_warning([path for path, bad in of_path.items() if bad], len(of_path))
    if counts:
        raise DataError(
            f"{warning} ({', '.join(counts)}); cell areas, baselines, links between subjects and "
            "explanations would refer to the whole image"
        )
    return warning

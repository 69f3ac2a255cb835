"""Stand-in cells in C-NMC's layout, for tests and for a first look without the data set.

Made, not measured: they look like segmented lymphocytes and blasts, and their classes overlap in
size and chromatin as the real ones do, but nothing found on them says anything about leukemia.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field
from scipy.ndimage import gaussian_filter

from leuk.config.ranges import Count, CountOrZero
from leuk.data.augment import Transforms
from leuk.data.cnmc import Label
from leuk.data.datamodule import CNMCDataModule
from leuk.data.pixels import Framing
from leuk.data.splits import Folds
from leuk.store.artefacts import make_once

FORMAT = 1
"""Part of every phantom's key: raise it when the pictures change."""

FOLDS = ("fold_0", "fold_1")
SUBJECTS = {Label.ALL: 10, Label.HEM: 8}
"""Subjects of each class in each fold."""
SHARE = {Label.ALL: 2 / 3, Label.HEM: 1 / 3}
"""Shares of the classes, as in C-NMC."""

MINIMUM = 54
"""Cells a fold, so that each subject has one."""

Plane = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """What the cells of one made person share.

    Attributes:
        key: number and class in C-NMC's file names, such as ``H3``.
        label: the class.
        stain: ``(3,)`` mean colour, 0-255.
        size: relative size of the cells.
        maturity: how clumped the chromatin is; higher in healthy cells.
    """

    key: str
    label: Label
    stain: Plane
    size: float
    maturity: float


class PhantomDataModule(CNMCDataModule):
    """:class:`CNMCDataModule` over stand-in cells, made on first use.

    Args:
        split: from a table of cells to its stages.
        cells_per_fold: images in each of the two folds, two thirds of them leukemic.
        size: pixels a side of the pictures.
        phantom_seed: decides the pictures; independent of the cell's seed.
        resolution: pixels a side after resizing.
        framing: the part of each image that is kept, see :class:`leuk.data.pixels.Frame`.
        batch_size: cells a batch.
        workers: loader processes.
        seed: decides the order of the training cells.
        transforms: conventional augmentation of training batches.
        cache: folder of artefacts, where pictures and pixel store are kept.
    """

    def __init__(
        self,
        split: Folds,
        cells_per_fold: Annotated[int, Field(ge=MINIMUM)] = 1200,
        size: Annotated[int, Field(ge=32)] = 128,
        phantom_seed: CountOrZero = 0,
        resolution: Count = 64,
        framing: Framing = "full",
        batch_size: Count = 32,
        workers: CountOrZero = 0,
        seed: int = 0,
        transforms: Transforms | None = None,
        cache: str = "outputs/artefacts",
    ) -> None:
        root = make_phantom(Path(cache), cells_per_fold, size, phantom_seed)
        super().__init__(
            str(root),
            split,
            resolution=resolution,
            framing=framing,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            transforms=transforms,
            cache=cache,
        )


def make_phantom(cache: Path, cells_per_fold: int, size: int, seed: int) -> Path:
    """Make stand-in cells once, or find them.

    Args:
        cache: folder of artefacts.
        cells_per_fold: images in each fold.
        size: pixels a side.
        seed: the same seed makes the same pictures.

    Returns:
        The folder above ``C-NMC_training_data``.
    """
    key = {"format": FORMAT, "cells_per_fold": cells_per_fold, "size": size, "seed": seed}

    def write(folder: Path) -> None:
        generator = np.random.default_rng(seed)
        for number, fold in enumerate(FOLDS):
            _write_fold(folder / "C-NMC_training_data" / fold, number, key, generator)

    return make_once(cache, "phantom", key, write)


def _write_fold(
    folder: Path, number: int, key: dict[str, int], generator: np.random.Generator
) -> None:
    for label in Label:
        target = folder / label.folder
        target.mkdir(parents=True)
        subjects = [
            _draw_subject(label, 1 + number * SUBJECTS[label] + i, generator)
            for i in range(SUBJECTS[label])
        ]
        for cell in range(round(key["cells_per_fold"] * SHARE[label])):
            subject = subjects[cell % len(subjects)]
            picture = draw_cell(subject, key["size"], generator)
            name = f"UID_{subject.key}_{cell // len(subjects) + 1}_1_{label.folder}.png"
            Image.fromarray(picture).save(target / name)


def _draw_subject(label: Label, number: int, generator: np.random.Generator) -> Subject:
    sick = label is Label.ALL
    return Subject(
        key=f"{number}" if sick else f"H{number}",
        label=label,
        stain=np.array([96.0, 47.0, 112.0]) * generator.normal(1, [0.05, 0.06, 0.05]),
        size=(1.05 if sick else 0.95) * generator.normal(1, 0.03),
        maturity=(-0.75 if sick else 0.75) + generator.normal(0, 0.25),
    )


def draw_cell(subject: Subject, size: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one cell on black.

    Returns:
        ``uint8 (size, size, 3)``.
    """
    maturity = subject.maturity + generator.normal(0, 0.8)
    radius = 0.215 * size * subject.size * generator.normal(1, 0.095)
    distance = _outline(size, radius, generator)
    inside = distance < 0
    texture = _chromatin(size, radius, maturity, generator)
    rim = np.exp(-((distance + 0.06 * radius) ** 2) / (2 * (0.05 * radius) ** 2))
    light = (1 + texture) * generator.normal(1, 0.06)
    colour = subject.stain * generator.normal(1, 0.03, 3)
    picture = light[..., None] * colour + rim[..., None] * np.array([4.0, 10.0, 26.0])
    picture = np.clip(picture, 12, 255) * inside[..., None]
    drawn: npt.NDArray[np.uint8] = picture.round().astype(np.uint8)
    return drawn


def _outline(size: int, radius: float, generator: np.random.Generator) -> Plane:
    """Distance to the cell's border in pixels, negative inside: a wobbly, sometimes bitten oval."""
    middle = size / 2 + generator.normal(0, 0.02 * size, 2)
    y, x = np.mgrid[:size, :size] - middle[:, None, None]
    angle = np.arctan2(y, x)
    border = np.full((size, size), radius)
    for order, share in ((2, 0.07), (3, 0.035), (4, 0.02), (7, 0.01)):
        wobble, phase = generator.normal(0, share), generator.uniform(0, 2 * np.pi)
        border += radius * wobble * np.cos(order * angle + phase)
    distance: Plane = np.hypot(x, y) - border
    if generator.random() < 0.15:  # a neighbour cut away
        towards = generator.uniform(0, 2 * np.pi)
        far = radius * generator.uniform(1.05, 1.2)
        bite = np.hypot(x - far * np.cos(towards), y - far * np.sin(towards))
        distance = np.maximum(distance, 0.35 * radius - bite)
    return distance


def _chromatin(size: int, radius: float, maturity: float, generator: np.random.Generator) -> Plane:
    """Relative brightness: fine and even in immature cells, coarse and clumped in mature ones."""
    white = generator.standard_normal((2, size, size))
    coarse = gaussian_filter(white[0], 0.16 * radius)
    fine = gaussian_filter(white[1], 0.05 * radius)
    clumped = 1 / (1 + np.exp(-1.2 * maturity))
    strength = 0.03 + 0.22 * clumped
    texture: Plane = strength * coarse / coarse.std()
    texture += (0.09 - 0.05 * clumped) * fine / fine.std()
    return texture

"""Phantom data set in C-NMC's layout, for tests and for trying leuk without the real data.

It has the difficulties of C-NMC: subjects with different stain and size, overlapping classes, a
healthy subject with a lower-case ``h``, subject numbers that occur in both classes, a label table
for the preliminary set, larger unlabeled final images, a stray file, and in each class a patient
with two subject numbers in two folds.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from leuk.config.schema import Count, CountOrZero
from leuk.data.augment import Transforms
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import FINAL_SIZE, NATIVE, Framing
from leuk.data.labels import Label
from leuk.data.layouts import FINAL, LABELS_CSV, PRELIM
from leuk.data.splits import Rule
from leuk.store import make_once, write_text

# --- Drawing of phantom images: a segmented lymphocyte or blast on black

Plane = npt.NDArray[Any]
"""``float (side, side)``."""
Picture = npt.NDArray[np.uint8]

_PATCH = 0.62
"""Side of the central square with the cell, as a share of the image's side."""
_RADIUS = 0.2
"""Mean radius of a cell, as a share of the side."""

_STAIN = np.array([80.0, 31.0, 91.0])
_CYTOPLASM = np.array([104.0, 80.0, 130.0])
_DEBRIS = np.array([112.0, 48.0, 106.0])
_RIM = np.array([2.0, 8.0, 22.0])
_WITH_CYTOPLASM = {Label.HEM: 0.3, Label.ALL: 0.2}
"""Share of the cells of each class with visible cytoplasm."""


@dataclass(frozen=True)
class Subject:
    """Parameters common to all cells of a simulated patient."""

    key: str  # class letter and number in C-NMC's file names, such as H3
    label: Label
    stain: npt.NDArray[np.float64]  # (3,), color of the nucleus relative to the mean color
    size: float  # relative size of the cells
    maturity: float  # degree of chromatin clumping; higher in healthy cells

    @classmethod
    def draw(cls, label: Label, key: str, generator: np.random.Generator) -> "Subject":
        """Draw the parameters of a patient of a class."""
        mean_size, mean_maturity = {Label.ALL: (1.04, -1.0), Label.HEM: (0.96, 1.0)}[label]
        stain = generator.normal(1, [0.05, 0.08, 0.05])
        size = mean_size * generator.normal(1, 0.03)
        return cls(key, label, stain, size, mean_maturity + generator.normal(0, 0.25))


def draw_cell(subject: Subject, size: int, generator: np.random.Generator) -> Picture:
    """Draw a cell of a patient on black, ``uint8 (size, size, 3)``, RGB."""
    side = round(_PATCH * size)
    radius = _RADIUS * size * subject.size * generator.normal(1, 0.09)
    # Pixel positions relative to the center of the cell, in radii.
    middle = (side - 1) / 2 + generator.normal(0, 0.03 * side, 2)
    steps = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid((steps - middle[0]) / radius, (steps - middle[1]) / radius)
    x, y = x.astype(np.float32), y.astype(np.float32)

    # Distance from an irregular border, negative inside.
    distance = np.hypot(x, y) - _border(np.arctan2(y, x), generator)
    # Some cells end at a neighbor, along an arc or a straight edge.
    kind, towards = generator.random(), generator.uniform(0, 2 * np.pi)
    if kind < 0.12:
        far = generator.uniform(1.05, 1.2)
        bite = np.hypot(x - far * np.cos(towards), y - far * np.sin(towards))
        distance = np.maximum(distance, np.float32(generator.uniform(0.2, 0.4)) - bite)
    elif kind < 0.2:
        along = x * np.cos(towards) + y * np.sin(towards)
        distance = np.maximum(distance, along - np.float32(generator.uniform(0.8, 0.95)))
    distance = distance.astype(np.float32)

    # Chromatin: fine and even in immature cells, clumped in mature cells.
    maturity = subject.maturity + generator.normal(0, 0.8)
    clumped = 1 / (1 + np.exp(-1.2 * maturity))
    light = (0.02 + 0.13 * clumped) * _noise(side, 0.4 * radius, generator)
    light = light + (0.08 - 0.045 * clumped) * _noise(side, 0.13 * radius, generator)
    light = light + 0.05 * _noise(side, 1.2 * radius, generator) + _clefts(x, y, generator)
    stain = _STAIN * subject.stain * generator.normal(1, 0.04) * generator.normal(1, 0.02, 3)
    picture = (1 + light)[..., None] * stain

    # In some cells, a crescent of cytoplasm on one side.
    cytoplasm = np.zeros_like(x)
    if generator.random() <= _WITH_CYTOPLASM[subject.label]:
        towards, shift = generator.uniform(0, 2 * np.pi), generator.uniform(0.06, 0.2)
        nucleus = distance + shift * (1 + x * np.cos(towards) + y * np.sin(towards)) / 2
        cytoplasm = (1 / (1 + np.exp(-nucleus / 0.02))).astype(np.float32)
    picture += cytoplasm[..., None] * (_CYTOPLASM * generator.normal(1, 0.06) - picture)
    rim = np.exp(-((distance + 0.04) ** 2) / (2 * 0.035**2))
    picture += rim[..., None] * _RIM
    picture = np.clip(picture, 14, 255) * (distance < 0)[..., None]

    # Sometimes debris at the border of the cell that the segmentation included.
    if generator.random() < 0.12:
        towards, far = generator.uniform(0, 2 * np.pi), generator.uniform(1.0, 1.15)
        from_x, from_y = x - far * np.cos(towards), y - far * np.sin(towards)
        border = generator.uniform(0.08, 0.25) * _border(np.arctan2(from_y, from_x), generator)
        scrap = (np.hypot(from_x, from_y) < border) & (distance >= 0)
        picture[scrap] = _DEBRIS * generator.normal(1, 0.1)

    start = (size - side) // 2
    drawn = np.zeros((size, size, 3), np.uint8)
    drawn[start : start + side, start : start + side] = picture.round().clip(0, 255)
    return drawn


def rephotograph(picture: Picture, generator: np.random.Generator) -> Picture:
    """Return another photograph of the same cell: other light and focus, slightly shifted."""
    lit = picture.max(axis=2, keepdims=True) > 0
    gain = generator.normal(1, 0.05) * generator.normal(1, 0.01, 3)
    height, width = picture.shape[:2]
    shift = tuple(generator.integers(-height // 50, height // 50 + 1, 2))
    again = np.roll((picture * gain).clip(14, 255) * lit, shift, axis=(0, 1)).astype(np.uint8)
    half = (round(0.9 * width), round(0.9 * height))
    softer = Image.fromarray(again).resize(half, Image.Resampling.BOX)
    soft = np.asarray(softer.resize((width, height), Image.Resampling.BICUBIC))
    photograph: Picture = soft * np.roll(lit, shift, axis=(0, 1))
    return photograph


def _border(angle: Plane, generator: np.random.Generator) -> Plane:
    """Draw the distance of an irregular border from the center at each angle, in radii."""
    border = np.ones_like(angle)
    for order, share in ((2, 0.06), (3, 0.035), (4, 0.02), (7, 0.012), (17, 0.006)):
        wobble, phase = generator.normal(0, share), generator.uniform(0, 2 * np.pi)
        border += np.float32(wobble) * np.cos(order * angle + np.float32(phase))
    return border


def _noise(side: int, grain: float, generator: np.random.Generator) -> Plane:
    """Draw smooth noise of unit variance with patches ``grain`` pixels wide."""
    patches = max(3, round(side / max(grain, 1)))
    coarse = Image.fromarray(generator.standard_normal((patches, patches), np.float32))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    return smooth / max(float(smooth.std()), 1e-6)


def _clefts(x: Plane, y: Plane, generator: np.random.Generator) -> Plane:
    """Draw the additional brightness of pale folds and spots of the nucleus."""
    light = np.zeros_like(x)
    for _ in range(generator.poisson(0.5)):
        turn, bend = generator.uniform(0, np.pi), generator.normal(0, 0.5)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        line = across - bend * along**2 - generator.normal(0, 0.4)
        ends = np.exp(-((along - generator.normal(0, 0.4)) ** 2) / 0.18)
        light += 0.2 * ends * np.exp(-(line**2) / 0.003)
    for _ in range(generator.poisson(2)):
        spot_x, spot_y = generator.normal(0, 0.45, 2)
        width = generator.uniform(0.004, 0.015)
        light += 0.22 * np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / width)
    return light


# --- Data set of phantom images

FORMAT = 2
"""Version in the cache key; increase it when the images change."""

FOLDS = ("fold_0", "fold_1", "fold_2")
SUBJECTS = {Label.ALL: 10, Label.HEM: 8}
"""Subjects of each class per source fold."""
SHARE = {Label.ALL: 2 / 3, Label.HEM: 1 / 3}
"""Shares of the classes, as in C-NMC."""
FINAL_SHARE = 0.05
"""Number of final images, as a share of the images of a fold."""
MINIMUM = 54
"""Minimum images per fold, so that each subject has an image."""

_SHARED = 3
"""Cells of a patient that occur under both subject numbers: the first image is copied, the others
are photographed again."""


class PhantomDataModule(CNMCDataModule):
    """:class:`CNMCDataModule` of phantom images, which are drawn on first use.

    Args:
        images_per_fold: images in each of the three folds and in the preliminary set, two thirds
            of them leukemic.
        size: pixels per side of the image files.
        phantom_seed: seed of the images; independent of the run's seed.
        others: see :class:`CNMCDataModule`.
    """

    def __init__(
        self,
        split: Rule,
        images_per_fold: Annotated[int, Field(ge=MINIMUM)] = 600,
        size: Annotated[int, Field(ge=32)] = NATIVE,
        phantom_seed: CountOrZero = 0,
        resolution: Count = 64,
        framing: Framing = "full",
        batch_size: Count = 32,
        workers: CountOrZero = 0,
        seed: int = 0,
        transforms: Transforms | None = None,
        cache: str = "outputs/artifacts",
    ) -> None:
        root = str(make_phantom(Path(cache), images_per_fold, size, phantom_seed))
        same = (resolution, framing, batch_size, workers, seed, transforms, cache)
        super().__init__(root, split, *same, frame=size)


def make_phantom(cache: Path, images_per_fold: int, size: int, seed: int) -> Path:
    """Write a phantom data set, unless it exists; return its folder, see PhantomDataModule."""
    key = {"format": FORMAT, "images_per_fold": images_per_fold, "size": size, "seed": seed}

    def write(target: Path) -> None:
        planned = list(_plan(images_per_fold, seed))

        def save(image: _Planned) -> None:
            path = target / "C-NMC" / image.path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.draw(size)).save(path, compress_level=1)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(save, planned))
        rows = [
            f"{image.name}.bmp,{Path(image.path).stem}.bmp,{int(image.subject.label)}"
            for image in planned
            if image.fold == PRELIM
        ]
        table = "\n".join([",".join(LABELS_CSV), *rows, ""])
        write_text(target / "C-NMC/C-NMC_test_prelim_phase_data_labels.csv", table)
        stray = target / "C-NMC/C-NMC_training_data/fold_0/all/Thumbs.db"
        write_text(stray, "a stray file\n")

    return make_once(cache, "phantom", key, write) / "C-NMC"


@dataclass(frozen=True)
class _Planned:
    """An image to draw."""

    subject: Subject
    fold: str
    name: str  # C-NMC's name of the image, or its number in the final set
    path: str
    seed: tuple[int, ...]  # equal seeds show the same cell
    again: bool = False  # another photograph of the cell

    def draw(self, size: int) -> Picture:
        generator = np.random.default_rng(self.seed)
        picture = draw_cell(self.subject, size, generator)
        if self.again:
            return rephotograph(picture, generator)
        if self.fold == FINAL and size == NATIVE:
            edge = (FINAL_SIZE[0] - size) // 2
            return np.pad(picture, ((edge, edge), (edge, edge), (0, 0)))
        return picture


def _plan(images_per_fold: int, seed: int) -> Iterator[_Planned]:
    """Yield all images of a phantom data set.

    In each class, the last patient of fold_0 is also the first of fold_1, with another number.
    """
    generator = np.random.default_rng(seed)
    twins: dict[Label, Subject] = {}
    for fold, fold_name in enumerate((*FOLDS, PRELIM)):
        number = 0
        for label in Label:
            count = SUBJECTS[label]
            prefix = "H" if label is Label.HEM else ""
            keys = [f"{prefix}{1 + fold * count + position}" for position in range(count)]
            # C-NMC has a healthy subject with a lower-case letter.
            keys = ["h3" if key == "H3" else key for key in keys]
            subjects = [Subject.draw(label, key, generator) for key in keys]
            if fold == 0:
                twins[label] = subjects[-1]
            if fold == 1:
                subjects[0] = replace(twins[label], key=keys[0])
            for image in range(round(images_per_fold * SHARE[label])):
                number += 1
                turn, position = divmod(image, count)
                source, again = (seed, fold, int(label), image), False
                if fold == 1 and position == 0 and turn < _SHARED:
                    # The image with the same turn of this patient in fold_0.
                    source, again = (seed, 0, int(label), (turn + 1) * count - 1), turn > 0
                name = f"UID_{keys[position]}_{turn + 1}_1_{label.folder}"
                path = f"C-NMC_training_data/{fold_name}/{label.folder}/{name}.png"
                if fold_name == PRELIM:
                    path = f"C-NMC_test_prelim_phase_data/{number}.png"
                yield _Planned(subjects[position], fold_name, name, path, source, again)
    for number in range(1, 1 + max(2, round(images_per_fold * FINAL_SHARE))):
        label = Label(int(generator.random() < SHARE[Label.ALL]))
        path = f"C-NMC_test_final_phase_data/{number}.png"
        subject = Subject.draw(label, "", generator)
        yield _Planned(subject, FINAL, str(number), path, (seed, 9, 0, number))

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
from leuk.data.layouts import LABELS_CSV, PRELIM
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


@dataclass(frozen=True)
class Subject:
    """Parameters common to all cells of a simulated patient.

    Attributes:
        key: class letter and number in C-NMC's file names, such as ``H3``.
        label: class of the patient.
        stain: ``(3,)``, color of the nucleus relative to the mean color.
        size: relative size of the cells.
        maturity: degree of chromatin clumping; higher in healthy cells.
    """

    key: str
    label: Label
    stain: npt.NDArray[np.float64]
    size: float
    maturity: float

    @classmethod
    def draw(cls, label: Label, key: str, generator: np.random.Generator) -> "Subject":
        """Draw the parameters of a patient of a class."""
        sick = label is Label.ALL
        return cls(
            key=key,
            label=label,
            stain=generator.normal(1, [0.05, 0.08, 0.05]),
            size=(1.04 if sick else 0.96) * generator.normal(1, 0.03),
            maturity=(-1.0 if sick else 1.0) + generator.normal(0, 0.25),
        )

    def renamed(self, key: str) -> "Subject":
        """Return the same patient with another subject number."""
        return replace(self, key=key)


def draw_cell(subject: Subject, size: int, generator: np.random.Generator) -> Picture:
    """Draw a cell of a patient on black.

    Returns:
        ``uint8 (size, size, 3)``, RGB.
    """
    side = round(_PATCH * size)
    radius = _RADIUS * size * subject.size * generator.normal(1, 0.09)
    x, y = _coordinates(side, radius, generator)
    border = _border(np.arctan2(y, x), generator)
    inside = _bitten(np.hypot(x, y) - border, x, y, generator)
    maturity = subject.maturity + generator.normal(0, 0.8)
    light = _chromatin(side, radius, maturity, generator) + _clefts(x, y, generator)
    stain = _STAIN * subject.stain * generator.normal(1, 0.04) * generator.normal(1, 0.02, 3)
    picture = (1 + light)[..., None] * stain
    cytoplasm = _cytoplasm(inside, x, y, subject.label, generator)[..., None]
    picture += cytoplasm * (_CYTOPLASM * generator.normal(1, 0.06) - picture)
    rim = np.exp(-((inside + 0.04) ** 2) / (2 * 0.035**2))
    picture += rim[..., None] * np.array([2.0, 8.0, 22.0])
    picture = np.clip(picture, 14, 255) * (inside < 0)[..., None]
    if generator.random() < 0.12:
        _add_satellite(picture, inside, x, y, generator)
    start = (size - side) // 2
    drawn = np.zeros((size, size, 3), np.uint8)
    drawn[start : start + side, start : start + side] = picture.round().clip(0, 255)
    return drawn


def rephotograph(picture: Picture, generator: np.random.Generator) -> Picture:
    """Return another photograph of the same cell: other light and focus, slightly shifted."""
    lit = picture.max(axis=2, keepdims=True) > 0
    gain = generator.normal(1, 0.05) * generator.normal(1, 0.01, 3)
    height, width = picture.shape[:2]
    down, right = generator.integers(-height // 50, height // 50 + 1, 2)
    again = np.roll((picture * gain).clip(14, 255) * lit, (down, right), axis=(0, 1))
    softer = Image.fromarray(again.astype(np.uint8)).resize(
        (round(0.9 * width), round(0.9 * height)), Image.Resampling.BOX
    )
    soft = np.asarray(softer.resize((width, height), Image.Resampling.BICUBIC))
    photograph: Picture = soft * np.roll(lit, (down, right), axis=(0, 1))
    return photograph


def _coordinates(side: int, radius: float, generator: np.random.Generator) -> tuple[Plane, Plane]:
    """Return pixel positions relative to the center of the cell, in radii."""
    middle = (side - 1) / 2 + generator.normal(0, 0.03 * side, 2)
    steps = np.arange(side, dtype=np.float32)
    x, y = np.meshgrid((steps - middle[0]) / radius, (steps - middle[1]) / radius)
    return x.astype(np.float32), y.astype(np.float32)


def _border(angle: Plane, generator: np.random.Generator) -> Plane:
    """Return the distance of an irregular border from the center at each angle, in radii."""
    border = np.ones_like(angle)
    for order, share in ((2, 0.06), (3, 0.035), (4, 0.02), (7, 0.012), (17, 0.006)):
        wobble, phase = generator.normal(0, share), generator.uniform(0, 2 * np.pi)
        border += np.float32(wobble) * np.cos(order * angle + np.float32(phase))
    return border


def _bitten(distance: Plane, x: Plane, y: Plane, generator: np.random.Generator) -> Plane:
    """Cut away a neighboring cell from some cells, along an arc or a straight edge."""
    kind = generator.random()
    towards = generator.uniform(0, 2 * np.pi)
    along = x * np.cos(towards) + y * np.sin(towards)
    if kind < 0.12:
        far = generator.uniform(1.05, 1.2)
        bite = np.hypot(x - far * np.cos(towards), y - far * np.sin(towards))
        distance = np.maximum(distance, np.float32(generator.uniform(0.2, 0.4)) - bite)
    elif kind < 0.2:
        distance = np.maximum(distance, along - np.float32(generator.uniform(0.8, 0.95)))
    return distance.astype(np.float32)


def _chromatin(side: int, radius: float, maturity: float, generator: np.random.Generator) -> Plane:
    """Draw relative brightness: fine and even in immature cells, clumped in mature cells."""
    clumped = 1 / (1 + np.exp(-1.2 * maturity))
    clumps: Plane = (0.02 + 0.13 * clumped) * _noise(side, 0.4 * radius, generator)
    grains: Plane = (0.08 - 0.045 * clumped) * _noise(side, 0.13 * radius, generator)
    return clumps + grains + 0.05 * _noise(side, 1.2 * radius, generator)


def _noise(side: int, grain: float, generator: np.random.Generator) -> Plane:
    """Draw smooth noise of unit variance with patches ``grain`` pixels wide."""
    patches = max(3, round(side / max(grain, 1)))
    coarse = Image.fromarray(generator.standard_normal((patches, patches), np.float32))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    scaled: Plane = smooth / max(float(smooth.std()), 1e-6)
    return scaled


def _clefts(x: Plane, y: Plane, generator: np.random.Generator) -> Plane:
    """Draw pale folds and spots of the nucleus."""
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


def _cytoplasm(
    distance: Plane, x: Plane, y: Plane, label: Label, generator: np.random.Generator
) -> Plane:
    """Draw the share of cytoplasm of each pixel: in some cells, a crescent on one side."""
    if generator.random() > (0.3 if label is Label.HEM else 0.2):
        return np.zeros_like(x)
    towards = generator.uniform(0, 2 * np.pi)
    shift = generator.uniform(0.06, 0.2)
    nucleus = distance + shift * (1 + x * np.cos(towards) + y * np.sin(towards)) / 2
    share: Plane = (1 / (1 + np.exp(-nucleus / 0.02))).astype(np.float32)
    return share


def _add_satellite(
    picture: npt.NDArray[np.float64],
    distance: Plane,
    x: Plane,
    y: Plane,
    generator: np.random.Generator,
) -> None:
    """Draw debris at the border of the cell that the segmentation included."""
    towards, far = generator.uniform(0, 2 * np.pi), generator.uniform(1.0, 1.15)
    from_x, from_y = x - far * np.cos(towards), y - far * np.sin(towards)
    scrap_border = generator.uniform(0.08, 0.25) * _border(np.arctan2(from_y, from_x), generator)
    scrap = (np.hypot(from_x, from_y) < scrap_border) & (distance >= 0)
    picture[scrap] = _DEBRIS * generator.normal(1, 0.1)


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

_FOLDER = "C-NMC"
_TRAINING = "C-NMC_training_data"
_PRELIM = "C-NMC_test_prelim_phase_data"
_FINAL = "C-NMC_test_final_phase_data"


class PhantomDataModule(CNMCDataModule):
    """:class:`CNMCDataModule` of phantom images, which are drawn on first use.

    Args:
        split: rule that assigns images to stages.
        images_per_fold: images in each of the three folds and in the preliminary set, two thirds
            of them leukemic.
        size: pixels per side of the image files.
        phantom_seed: seed of the images; independent of the run's seed.
        resolution: pixels per side after resizing.
        framing: crop of each image, see :class:`leuk.data.decode.Frame`.
        batch_size: images per batch.
        workers: loader processes.
        seed: seed of the order of the training images.
        transforms: conventional augmentation of training batches.
        cache: folder of artifacts, which holds image files and pixel store.
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
        root = make_phantom(Path(cache), images_per_fold, size, phantom_seed)
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
            frame=size,
        )


@dataclass(frozen=True)
class PlannedImage:
    """An image to draw.

    Attributes:
        subject: subject of the cell.
        name: C-NMC's name of the image; empty for final images.
        path: relative path of the file.
        seed: seed of the image; equal seeds show the same cell.
        again: True for another photograph of the cell.
    """

    subject: Subject
    name: str
    path: str
    seed: tuple[int, ...]
    again: bool = False


def make_phantom(cache: Path, images_per_fold: int, size: int, seed: int) -> Path:
    """Write a phantom data set, unless it exists.

    Args:
        cache: folder of artifacts.
        images_per_fold: images in each fold and in the preliminary set.
        size: pixels per side.
        seed: seed of the images.

    Returns:
        The parent folder of ``C-NMC_training_data``.
    """
    key = {"format": FORMAT, "images_per_fold": images_per_fold, "size": size, "seed": seed}

    def write(target: Path) -> None:
        folder = target / _FOLDER
        planned = list(plan(images_per_fold, seed))
        for parent in {(folder / image.path).parent for image in planned}:
            parent.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda image: _save(folder / image.path, _draw(image, size)), planned))
        rows = [
            f"{image.name}.bmp,{Path(image.path).stem}.bmp,{int(image.subject.label)}"
            for image in planned
            if image.path.startswith(_PRELIM)
        ]
        write_text(folder / f"{_PRELIM}_labels.csv", "\n".join([",".join(LABELS_CSV), *rows, ""]))
        write_text(folder / _TRAINING / "fold_0" / "all" / "Thumbs.db", "a stray file\n")

    return make_once(cache, "phantom", key, write) / _FOLDER


def plan(images_per_fold: int, seed: int) -> Iterator[PlannedImage]:
    """Yield all images of a phantom data set.

    In each class, the last patient of fold_0 is also the first of fold_1, with another number.
    """
    generator = np.random.default_rng(seed)
    twins: dict[Label, Subject] = {}
    for fold, name in enumerate((*FOLDS, PRELIM)):
        number = 0
        for label in Label:
            subjects = _draw_subjects(fold, label, generator)
            if fold == 0:
                twins[label] = subjects[-1]
            if fold == 1:
                subjects[0] = twins[label].renamed(subjects[0].key)
            for image in range(round(images_per_fold * SHARE[label])):
                number += 1
                turn, position = divmod(image, len(subjects))
                subject = subjects[position]
                source, again = (seed, fold, int(label), image), False
                if fold == 1 and position == 0 and turn < _SHARED:
                    # The image with the same turn of this patient in fold_0.
                    last = (turn + 1) * len(subjects) - 1
                    source, again = (seed, 0, int(label), last), turn > 0
                path = _path(name, subject, turn, number)
                yield PlannedImage(subject, _uid(subject, turn), path, source, again)
    for number in range(1, 1 + max(2, round(images_per_fold * FINAL_SHARE))):
        label = Label(int(generator.random() < SHARE[Label.ALL]))
        subject = Subject.draw(label, "", generator)
        yield PlannedImage(subject, "", f"{_FINAL}/{number}.png", (seed, 9, 0, number))


def _draw_subjects(fold: int, label: Label, generator: np.random.Generator) -> list[Subject]:
    first = 1 + fold * SUBJECTS[label]
    prefix = "" if label is Label.ALL else "H"
    keys = [f"{prefix}{first + number}" for number in range(SUBJECTS[label])]
    # C-NMC has a healthy subject with a lower-case letter.
    keys = ["h3" if key == "H3" else key for key in keys]
    return [Subject.draw(label, key, generator) for key in keys]


def _uid(subject: Subject, turn: int) -> str:
    return f"UID_{subject.key}_{turn + 1}_1_{subject.label.folder}"


def _path(fold: str, subject: Subject, turn: int, number: int) -> str:
    if fold == PRELIM:
        return f"{_PRELIM}/{number}.png"
    return f"{_TRAINING}/{fold}/{subject.label.folder}/{_uid(subject, turn)}.png"


def _draw(image: PlannedImage, size: int) -> Picture:
    generator = np.random.default_rng(image.seed)
    picture = draw_cell(image.subject, size, generator)
    if image.again:
        return rephotograph(picture, generator)
    if image.path.startswith(_FINAL) and size == NATIVE:
        whole = np.zeros((*FINAL_SIZE, 3), np.uint8)
        edge = (FINAL_SIZE[0] - size) // 2
        whole[edge : edge + size, edge : edge + size] = picture
        return whole
    return picture


def _save(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, compress_level=1)

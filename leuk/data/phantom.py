"""Phantom data set in C-NMC's layout, for tests and for trying leuk without the real data.

It has the difficulties of C-NMC: subjects with different stain and size, overlapping classes, a
healthy subject with a lower-case ``h``, subject numbers that occur in both classes, a label table
for the preliminary set, larger unlabeled final images, a stray file, and in each class a patient
with two subject numbers in two folds.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from leuk.config.ranges import Count, CountOrZero
from leuk.data.augment import Transforms
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import FINAL_SIZE, NATIVE, Framing
from leuk.data.drawing import Picture, Subject, draw_cell, rephotograph
from leuk.data.labels import Label
from leuk.data.layouts import LABELS_CSV, PRELIM
from leuk.data.splits import Rule
from leuk.store.artifacts import make_once
from leuk.store.atomic import write_text

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

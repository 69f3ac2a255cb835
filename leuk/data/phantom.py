"""Stand-in cells in C-NMC's layout, for tests and for a first look without the data set.

They come with what makes the real set hard: subjects that differ in stain and size, classes that
overlap, a healthy subject with a small ``h``, numbers that two subjects share, a table of labels
for the preliminary set, larger final images without labels, a stray file, and one person of each
class under two numbers in two folds.
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
from leuk.data.drawing import Picture, Subject, draw_cell, photographed_again
from leuk.data.labels import Label
from leuk.data.layouts import LABELS_CSV, PRELIM
from leuk.data.splits import Rule
from leuk.store.artifacts import make_once
from leuk.store.atomic import write_text

FORMAT = 2
"""Part of every phantom's key: raise it when the pictures change."""

FOLDS = ("fold_0", "fold_1", "fold_2")
SUBJECTS = {Label.ALL: 10, Label.HEM: 8}
"""Subjects of each class in each part."""
SHARE = {Label.ALL: 2 / 3, Label.HEM: 1 / 3}
"""Shares of the classes, as in C-NMC."""
FINAL_SHARE = 0.05
"""Final images, as a share of the cells of a fold."""

MINIMUM = 54
"""Cells a part, so that each subject has one."""

_SHARED = 3
"""Cells of one person under two numbers that show twice: first copied, then photographed again."""

_FOLDER = "C-NMC"
_TRAINING = "C-NMC_training_data"
_PRELIM = "C-NMC_test_prelim_phase_data"
_FINAL = "C-NMC_test_final_phase_data"


class PhantomDataModule(CNMCDataModule):
    """:class:`CNMCDataModule` over stand-in cells, made on first use.

    Args:
        split: from a table of cells to its stages.
        images_per_fold: images in each of the three folds and in the preliminary set, two thirds
            of them leukemic.
        size: pixels a side of the pictures.
        phantom_seed: decides the pictures; independent of the cell's seed.
        resolution: pixels a side after resizing.
        framing: the part of each image that is kept, see :class:`leuk.data.decode.Frame`.
        batch_size: cells a batch.
        workers: loader processes.
        seed: decides the order of the training cells.
        transforms: conventional augmentation of training batches.
        cache: folder of artifacts, where pictures and pixel store are kept.
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
class Planned:
    """One picture to be made.

    Attributes:
        subject: whose cell it is.
        name: C-NMC's name of the image.
        path: where the picture goes, relative.
        seed: of the picture; two with the same seed show the same cell.
        again: whether it is another photograph of the cell that the seed makes.
    """

    subject: Subject
    name: str
    path: str
    seed: tuple[int, ...]
    again: bool = False


def make_phantom(cache: Path, images_per_fold: int, size: int, seed: int) -> Path:
    """Make stand-in cells once, or find them.

    Args:
        cache: folder of artifacts.
        images_per_fold: images in each fold and in the preliminary set.
        size: pixels a side.
        seed: the same seed makes the same pictures.

    Returns:
        The folder above ``C-NMC_training_data``.
    """
    key = {"format": FORMAT, "images_per_fold": images_per_fold, "size": size, "seed": seed}

    def write(target: Path) -> None:
        folder = target / _FOLDER
        planned = list(plan(images_per_fold, seed))
        for parent in {(folder / cell.path).parent for cell in planned}:
            parent.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda cell: _save(folder / cell.path, _picture(cell, size)), planned))
        rows = [
            f"{cell.name}.bmp,{Path(cell.path).stem}.bmp,{int(cell.subject.label)}"
            for cell in planned
            if cell.path.startswith(_PRELIM)
        ]
        write_text(folder / f"{_PRELIM}_labels.csv", "\n".join([",".join(LABELS_CSV), *rows, ""]))
        write_text(folder / _TRAINING / "fold_0" / "all" / "Thumbs.db", "a stray file\n")

    return make_once(cache, "phantom", key, write) / _FOLDER


def plan(images_per_fold: int, seed: int) -> Iterator[Planned]:
    """Every picture of a phantom, and whose cell it shows.

    The last person of each class in fold_0 is the first in fold_1 too, under another number.
    """
    generator = np.random.default_rng(seed)
    twins: dict[Label, Subject] = {}
    for part, name in enumerate((*FOLDS, PRELIM)):
        number = 0
        for label in Label:
            subjects = _draw_subjects(part, label, generator)
            if part == 0:
                twins[label] = subjects[-1]
            if part == 1:
                subjects[0] = twins[label].renamed(subjects[0].key)
            for cell in range(round(images_per_fold * SHARE[label])):
                number += 1
                turn, who = divmod(cell, len(subjects))
                source, again = (seed, part, int(label), cell), False
                if part == 1 and who == 0 and turn < _SHARED:
                    last = (turn + 1) * len(subjects) - 1
                    source, again = (seed, 0, int(label), last), turn > 0
                subject, path = subjects[who], _path(name, subjects[who], turn, number)
                yield Planned(subject, _uid(subject, turn), path, source, again)
    for number in range(1, 1 + max(2, round(images_per_fold * FINAL_SHARE))):
        label = Label(int(generator.random() < SHARE[Label.ALL]))
        subject = Subject.draw(label, "", generator)
        yield Planned(subject, "", f"{_FINAL}/{number}.png", (seed, 9, 0, number))


def _draw_subjects(part: int, label: Label, generator: np.random.Generator) -> list[Subject]:
    first = 1 + part * SUBJECTS[label]
    prefix = "" if label is Label.ALL else "H"
    keys = [f"{prefix}{first + number}" for number in range(SUBJECTS[label])]
    # As in C-NMC, one healthy subject is written with a small letter.
    keys = ["h3" if key == "H3" else key for key in keys]
    return [Subject.draw(label, key, generator) for key in keys]


def _uid(subject: Subject, turn: int) -> str:
    return f"UID_{subject.key}_{turn + 1}_1_{subject.label.folder}"


def _path(part: str, subject: Subject, turn: int, number: int) -> str:
    if part == PRELIM:
        return f"{_PRELIM}/{number}.png"
    return f"{_TRAINING}/{part}/{subject.label.folder}/{_uid(subject, turn)}.png"


def _picture(cell: Planned, size: int) -> Picture:
    generator = np.random.default_rng(cell.seed)
    picture = draw_cell(cell.subject, size, generator)
    if cell.again:
        return photographed_again(picture, generator)
    if cell.path.startswith(_FINAL) and size == NATIVE:
        whole = np.zeros((*FINAL_SIZE, 3), np.uint8)
        edge = (FINAL_SIZE[0] - size) // 2
        whole[edge : edge + size, edge : edge + size] = picture
        return whole
    return picture


def _save(path: Path, picture: Picture) -> None:
    Image.fromarray(picture).save(path, compress_level=1)

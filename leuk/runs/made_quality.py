"""How good a GAN's made cells are: what they are held against, and what is kept of it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import DataError, StoreError
from leuk.evaluate.collapse import near_exact
from leuk.evaluate.distances import FEWEST, Patients
from leuk.evaluate.features import Extractor
from leuk.evaluate.image_quality import Quality, RealCells, judge
from leuk.evaluate.memorisation import copied
from leuk.evaluate.morphology import MEASURES, CellMeasures
from leuk.evaluate.vectors import Images
from leuk.grid.record import MADE
from leuk.runs.synthesis import Synthetic
from leuk.store.artefacts import make_once
from leuk.store.atomic import write_json
from leuk.store.digest import digest

log = logging.getLogger(__name__)

FILE = "quality.json"
HELD_OUT = "val"
"""Stage that a sweep holds made cells against; test cells are for the classifiers."""

SHOWN = 12
"""Cells, and pairs of cells, that are kept to be looked at."""

FORMAT = 2
"""Part of the key: raise it when a figure changes its meaning."""


def made_labels(made: Synthetic) -> list[Label]:
    """The classes that cells were made of."""
    there = set(made.origin["label"])
    return [label for label in Label if label in there]


def judge_class(
    made: Synthetic, label: Label, real: RealCells, extractor: Extractor, seed: int
) -> Quality:
    """Judge the made cells of one class."""
    own, others = made.of(label), made.of(_other(label))
    log.info("judging %d made %s cells by %s", len(own), label.folder, extractor.name)
    return judge(own, real, extractor, seed, others if len(others) else None)


def _other(label: Label) -> Label:
    return next(one for one in Label if one != label)


def real_cells(data: CNMCDataModule, label: Label, held_out: str) -> RealCells:
    """What made cells of a class are held against: of the training part and of a held-out stage.

    Raises:
        DataError: one of the stages lacks a class.
    """
    other = _other(label)
    sets = {"train": ("train", label), "train_other": ("train", other)}
    sets |= {"reference": (held_out, label), "reference_other": (held_out, other)}
    return RealCells(
        train=_cells(data, "train", label),
        train_other=_cells(data, "train", other),
        reference=_cells(data, held_out, label),
        reference_other=_cells(data, held_out, other),
        patients={name: _patients(data, *of) for name, of in sets.items()},
    )


def _patients(data: CNMCDataModule, stage: str, label: Label) -> Patients:
    """The patient of each image of :func:`_cells`."""
    cells = data.part(stage)
    return cells["group"].to_numpy().astype(str)[(cells["label"] == label).to_numpy()]


def _cells(data: CNMCDataModule, stage: str, label: Label) -> Images:
    cells = data.part(stage)
    rows = cells.index.to_numpy()[(cells["label"] == label).to_numpy()]
    if not len(rows):
        raise DataError(
            f"split: no {label.folder} cells in the {stage} part to compare made cells with; "
            "choose other parts, or another stage with held_out"
        )
    return np.asarray(data.dataset.data[rows])


def shown_pair(made: Synthetic, label: Label, real: RealCells) -> dict[str, Images]:
    """A few cells of either kind to look at, not chosen: ``real`` held-out ones, and ``made``."""
    spread = np.linspace(0, len(real.reference) - 1, SHOWN).astype(int)
    return {"real": real.reference[spread], "made": made.of(label)[:SHOWN]}


def save_pair(folder: Path, label: Label, shown: Mapping[str, Images]) -> None:
    """Write ``cells_<class>.npz``, which reports read."""
    np.savez(folder / f"cells_{label.folder}.npz", real=shown["real"], made=shown["made"])


def judged_once(cfg: DictConfig, data: CNMCDataModule, made: Synthetic) -> dict[str, Any]:
    """What a cell's record says of its made cells' quality, without a network to download.

    Found by whoever asks next. In the features of :class:`leuk.evaluate.morphology.CellMeasures`;
    ``leuk synthesize`` judges in those of a network.

    Returns:
        ``judged``, the artefact, ``held_out``, and for each class in ``quality`` a
        :class:`leuk.evaluate.image_quality.Quality`. Where there are too few images for that,
        ``copies`` alone: for each class the number of copies of training images.

    Raises:
        StoreError: what was kept of it is not that.
    """
    if _fewest(data, made) < FEWEST:
        log.warning("made cells are not judged: fewer than %d of a kind", FEWEST)
        train = np.asarray(data.dataset.data[data.split.train])
        labels = made_labels(made)
        return {"copies": {one.folder: int(copied(made.of(one), train).sum()) for one in labels}}
    seed = int(cfg.seed)
    paths = {stage: data.part(stage)["path"].tolist() for stage in ("train", HELD_OUT)}
    patients = {stage: data.part(stage)["group"].astype(str).tolist() for stage in paths}
    key = {
        "format": FORMAT,
        "cells": made.folder.name,
        "pixels": data.dataset.store.fingerprint,
        "paths": digest(paths),
        "patients": digest(patients),
        "measures": list(MEASURES),
        "seed": seed,
    }
    folder = make_once(
        Path(cfg.outputs) / "artefacts",
        "quality",
        key,
        lambda target: _judge_all(data, made, seed, target),
    )
    return _read(folder)


def _read(folder: Path) -> dict[str, Any]:
    try:
        quality = json.loads((folder / FILE).read_text(encoding="utf-8"))
        told = {"judged": folder.name, "held_out": HELD_OUT, "quality": quality}
        if not quality:
            raise ValueError("empty")
        told_of(told, "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder}: no judgement of made cells ({error!r}); remove it") from error
    return told


def _fewest(data: CNMCDataModule, made: Synthetic) -> int:
    """Size of the smallest set that is compared."""
    sizes = list(made.origin["label"].value_counts())
    for stage in ("train", HELD_OUT):
        labels = data.part(stage)["label"].to_numpy()
        sizes += [int((labels == label).sum()) for label in Label]
    return min(sizes)


def _judge_all(data: CNMCDataModule, made: Synthetic, seed: int, target: Path) -> None:
    found = {}
    for label in made_labels(made):
        cells = real_cells(data, label, HELD_OUT)
        extractor = CellMeasures(cells.train)
        found[label.folder] = asdict(judge_class(made, label, cells, extractor, seed))
        save_pair(target, label, shown_pair(made, label, cells))
    write_json(target / FILE, found)


def told_of(synthetic: Mapping[str, Any], augmentation: str) -> list[str]:
    """What is wrong with a cell's made cells, for its warnings.

    Args:
        synthetic: ``data.synthetic`` of a record.
        augmentation: which GAN.
    """
    if not synthetic.get("quality"):
        found = synthetic.get("copies", {})
        return [
            f"{MADE}{augmentation}: not judged, too few real or made cells to compare",
            *(
                f"{MADE}{augmentation} {name}: {text}"
                for name, count in found.items()
                for text in near_exact(count)
            ),
        ]
    return [
        f"{MADE}{augmentation} {name}: {text}"
        for name, quality in synthetic["quality"].items()
        for text in quality["warnings"]
    ]

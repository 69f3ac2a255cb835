"""What is added to a training part: a GAN's cells, repeated cells, or weights of the classes."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from omegaconf import DictConfig

from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import ConfigError
from leuk.runs.gan_fit import FORMAT, fitted_gan, form_of, load_gan
from leuk.store.artefacts import make_once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synthetic:
    """Cells made for a training part.

    Attributes:
        pixels: ``uint8 (N, R, R, 3)``.
        origin: one row a cell: ``label``, ``gan`` (artefact of the GAN that made it), ``seed`` and
            ``position`` (of the draw; the same three make the same cell).
        folder: artefact of the cells.
    """

    pixels: npt.NDArray[np.uint8]
    origin: pd.DataFrame
    folder: Path

    def of(self, label: Label) -> npt.NDArray[np.uint8]:
        """The cells of one class, none if none were made."""
        return self.pixels[(self.origin["label"] == label).to_numpy()]


def classes_of(cfg: DictConfig) -> list[Label]:
    """The classes that cells are added of.

    Raises:
        ConfigError: a name that is no class, or none at all.
    """
    known = {label.folder: label for label in Label}
    names = list(cfg.augmentation.classes)
    if not names or set(names) - set(known) or len(set(names)) < len(names):
        raise ConfigError(f"augmentation.classes={names}: name hem, all or both, each once")
    return sorted(known[name] for name in names)


def wanted(cfg: DictConfig, data: CNMCDataModule) -> dict[Label, int]:
    """How many cells of each class are to be added; empty where healthy ones are not the fewer."""
    count = cfg.augmentation.count
    if count is None:
        labels = data.part("train")["label"]
        count = int((labels == Label.ALL).sum() - (labels == Label.HEM).sum())
    if count <= 0:
        log.warning("augmentation: healthy cells are not the fewer here; nothing is added")
        return {}
    return dict.fromkeys(classes_of(cfg), count)


def fits_of(cfg: DictConfig, labels: Iterable[Label]) -> dict[Label, tuple[Label, ...]]:
    """The classes that a GAN is fitted on to make each class."""
    conditional = form_of(cfg).CONDITIONAL
    return {label: tuple(Label) if conditional else (label,) for label in labels}


def synthesise(cfg: DictConfig, data: CNMCDataModule) -> Synthetic | None:
    """Make the cells that the config asks for, or find them made.

    A GAN sees the training part's cells of the classes it makes and nothing else; one that is not
    told the class is fitted once for each.

    Returns:
        None where nothing is to be made.
    """
    counts = wanted(cfg, data)
    if not counts:
        return None
    labels = list(counts)
    fits = fits_of(cfg, labels)
    fitted = {seen: fitted_gan(cfg, data, seen) for seen in dict.fromkeys(fits.values())}
    gans = {label: fitted[seen] for label, seen in fits.items()}
    key = {
        "format": FORMAT,
        "cells": {label.folder: [gans[label].name, counts[label]] for label in labels},
        "seed": int(cfg.seed),
    }
    root = Path(cfg.outputs) / "artefacts"
    folder = make_once(root, "synthetic", key, lambda target: _sample(cfg, gans, counts, target))
    pixels = np.load(folder / "cells.npy", mmap_mode="c")
    origin = pd.read_csv(folder / "origin.csv")
    for label in labels:
        log.info("%d %s cells from %s", counts[label], label.folder, gans[label])
    return Synthetic(pixels, origin, folder)


def _sample(
    cfg: DictConfig, gans: Mapping[Label, Path], counts: Mapping[Label, int], target: Path
) -> None:
    seed = int(cfg.seed)
    cells, origins = [], []
    for label, gan in gans.items():
        cells.append(load_gan(cfg, gan).sample(counts[label], label, seed))
        position = np.arange(counts[label])
        origins.append(
            pd.DataFrame({"label": int(label), "gan": gan.name, "seed": seed, "position": position})
        )
    np.save(target / "cells.npy", np.concatenate(cells))
    pd.concat(origins).to_csv(target / "origin.csv", index=False)


def repeated_rows(cfg: DictConfig, data: CNMCDataModule) -> dict[Label, npt.NDArray[np.int64]]:
    """Training rows to show again; within a class no cell is shown twice more than another."""
    of_part = data.part("train")["label"].to_numpy()
    random = np.random.default_rng(int(cfg.seed))
    rows = {}
    for label, count in wanted(cfg, data).items():
        own = data.split.train[of_part == label]
        rounds = [random.permutation(own) for _ in range(-(-count // len(own)))]
        rows[label] = np.concatenate(rounds)[:count]
    return rows


def class_weights(data: CNMCDataModule) -> list[float]:
    """Weights of the classes' losses, so that both weigh the same: N / (2 N of the class)."""
    labels = data.part("train")["label"].to_numpy()
    counts = np.bincount(labels, minlength=len(Label))
    return [float(len(labels) / (len(Label) * count)) for count in counts]

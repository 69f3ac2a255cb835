"""Balancing of the training stage: synthetic images, repeated images, or class weights."""

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
from leuk.store.artifacts import make_once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synthetic:
    """Synthetic images for a training stage.

    Attributes:
        pixels: ``uint8 (N, R, R, 3)``.
        origin: a row per image: ``label``, ``gan`` (name of the GAN's artifact), ``seed`` and
            ``position`` of the draw; GAN, seed and position determine the image.
        folder: artifact of the images.
    """

    pixels: npt.NDArray[np.uint8]
    origin: pd.DataFrame
    folder: Path

    def of(self, label: Label) -> npt.NDArray[np.uint8]:
        """Images of a class, ``uint8 (n, R, R, 3)``; n can be 0."""
        return self.pixels[(self.origin["label"] == label).to_numpy()]


def classes_of(cfg: DictConfig) -> list[Label]:
    """Classes of the images to add.

    Raises:
        ConfigError: a name is not a class, a class is repeated, or the list is empty.
    """
    known = {label.folder: label for label in Label}
    names = list(cfg.augmentation.classes)
    if not names or set(names) - set(known) or len(set(names)) < len(names):
        raise ConfigError(f"augmentation.classes={names}: choose hem, all or both, each once")
    return sorted(known[name] for name in names)


def images_to_add(cfg: DictConfig, data: CNMCDataModule) -> dict[Label, int]:
    """Count the images to add per class; empty if the healthy images are not the minority."""
    count = cfg.augmentation.count
    if count is None:
        labels = data.stage("train")["label"]
        count = int((labels == Label.ALL).sum() - (labels == Label.HEM).sum())
    if count <= 0:
        log.warning("augmentation: no healthy images are missing; nothing is added")
        return {}
    return dict.fromkeys(classes_of(cfg), count)


def gan_classes(cfg: DictConfig, labels: Iterable[Label]) -> dict[Label, tuple[Label, ...]]:
    """Training classes of the GAN for each class to generate: both if the GAN is conditional."""
    conditional = form_of(cfg).CONDITIONAL
    return {label: tuple(Label) if conditional else (label,) for label in labels}


def synthesize(cfg: DictConfig, data: CNMCDataModule) -> Synthetic | None:
    """Generate the configured synthetic images, or find them if they exist.

    A GAN is trained on training images only. An unconditional GAN is trained once per class, on
    images of this class.

    Args:
        cfg: config of the run.
        data: data module with the training stage.

    Returns:
        The images, or None if nothing is to be added.
    """
    counts = images_to_add(cfg, data)
    if not counts:
        return None
    labels = list(counts)
    fits = gan_classes(cfg, labels)
    fitted = {classes: fitted_gan(cfg, data, classes) for classes in dict.fromkeys(fits.values())}
    gans = {label: fitted[classes] for label, classes in fits.items()}
    key = {
        "format": FORMAT,
        "images": {label.folder: [gans[label].name, counts[label]] for label in labels},
        "seed": int(cfg.seed),
    }
    root = Path(cfg.outputs) / "artifacts"
    folder = make_once(root, "synthetic", key, lambda target: _sample(cfg, gans, counts, target))
    pixels = np.load(folder / "cells.npy", mmap_mode="c")
    origin = pd.read_csv(folder / "origin.csv")
    for label in labels:
        log.info("%d synthetic %s images from %s", counts[label], label.folder, gans[label])
    return Synthetic(pixels, origin, folder)


def _sample(
    cfg: DictConfig, gans: Mapping[Label, Path], counts: Mapping[Label, int], target: Path
) -> None:
    seed = int(cfg.seed)
    images, origins = [], []
    for label, gan in gans.items():
        images.append(load_gan(cfg, gan).sample(counts[label], label, seed))
        position = np.arange(counts[label])
        origins.append(
            pd.DataFrame({"label": int(label), "gan": gan.name, "seed": seed, "position": position})
        )
    np.save(target / "cells.npy", np.concatenate(images))
    pd.concat(origins).to_csv(target / "origin.csv", index=False)


def repeated_rows(cfg: DictConfig, data: CNMCDataModule) -> dict[Label, npt.NDArray[np.int64]]:
    """Sample rows of training images to repeat, per class as evenly as possible."""
    stage = data.stage("train")["label"].to_numpy()
    random = np.random.default_rng(int(cfg.seed))
    rows = {}
    for label, count in images_to_add(cfg, data).items():
        own = data.split.train[stage == label]
        rounds = [random.permutation(own) for _ in range(-(-count // len(own)))]
        rows[label] = np.concatenate(rounds)[:count]
    return rows


def class_weights(data: CNMCDataModule) -> list[float]:
    """Loss weights that give both classes the same influence: N / (2 * images of the class)."""
    labels = data.stage("train")["label"].to_numpy()
    counts = np.bincount(labels, minlength=len(Label))
    return [float(len(labels) / (len(Label) * count)) for count in counts]

"""Quality of synthetic images: the real images they are compared with, and the stored results."""

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
from leuk.evaluate.image_quality import Quality, RealImages, assess_quality
from leuk.evaluate.memorization import copied
from leuk.evaluate.morphology import MEASURES, MorphologyExtractor
from leuk.evaluate.vectors import Images
from leuk.runs.synthesis import Synthetic
from leuk.store.artifacts import make_once
from leuk.store.atomic import write_json
from leuk.store.digest import digest

log = logging.getLogger(__name__)

FILE = "quality.json"
HELD_OUT = "val"
"""Stage that a sweep compares synthetic images with; test images are reserved for classifiers."""

SHOWN = 12
"""Number of images, and of image pairs, stored for figures."""

FORMAT = 2
"""Version in the cache key; increase it when a metric changes its meaning."""


def synthetic_labels(synthetic: Synthetic) -> list[Label]:
    """Classes of the synthetic images."""
    present = set(synthetic.origin["label"])
    return [label for label in Label if label in present]


def evaluate_class(
    synthetic: Synthetic, label: Label, real: RealImages, extractor: Extractor, seed: int
) -> Quality:
    """Measure the quality of the synthetic images of a class.

    Args:
        synthetic: synthetic images.
        label: the class.
        real: real images, from :func:`real_images`.
        extractor: computes features of images.
        seed: seed of subsampling.
    """
    own, others = synthetic.of(label), synthetic.of(_other(label))
    log.info("evaluating %d synthetic %s images by %s", len(own), label.folder, extractor.name)
    return assess_quality(own, real, extractor, seed, others if len(others) else None)


def _other(label: Label) -> Label:
    return next(other for other in Label if other != label)


def real_images(data: CNMCDataModule, label: Label, held_out: str) -> RealImages:
    """Real images to compare synthetic images of a class with.

    Args:
        data: data module with its stages.
        label: class of the synthetic images.
        held_out: stage without training images, ``val`` or ``test``.

    Returns:
        Images of the training stage and of the held-out stage, of both classes.

    Raises:
        DataError: a stage lacks a class.
    """
    other = _other(label)
    sets = {"train": ("train", label), "train_other": ("train", other)}
    sets |= {"reference": (held_out, label), "reference_other": (held_out, other)}
    return RealImages(
        train=_images(data, "train", label),
        train_other=_images(data, "train", other),
        reference=_images(data, held_out, label),
        reference_other=_images(data, held_out, other),
        patients={name: _patients(data, *chosen) for name, chosen in sets.items()},
    )


def _patients(data: CNMCDataModule, stage: str, label: Label) -> Patients:
    """List the patient of each image of :func:`_images`."""
    table = data.stage(stage)
    return table["patient"].to_numpy().astype(str)[(table["label"] == label).to_numpy()]


def _images(data: CNMCDataModule, stage: str, label: Label) -> Images:
    table = data.stage(stage)
    rows = table.index.to_numpy()[(table["label"] == label).to_numpy()]
    if not len(rows):
        raise DataError(
            f"split: no {label.folder} images in stage {stage} to compare synthetic images with; "
            "choose other folds, or another stage with held_out"
        )
    return np.asarray(data.dataset.data[rows])


def shown_pair(synthetic: Synthetic, label: Label, real: RealImages) -> dict[str, Images]:
    """Sample :data:`SHOWN` images for figures, unselected: held-out ``real`` and ``synthetic``."""
    spread = np.linspace(0, len(real.reference) - 1, SHOWN).astype(int)
    return {"real": real.reference[spread], "synthetic": synthetic.of(label)[:SHOWN]}


def save_pair(folder: Path, label: Label, shown: Mapping[str, Images]) -> None:
    """Write ``images_<class>.npz`` for the report."""
    np.savez(
        folder / f"images_{label.folder}.npz", real=shown["real"], synthetic=shown["synthetic"]
    )


def cached_quality(cfg: DictConfig, data: CNMCDataModule, synthetic: Synthetic) -> dict[str, Any]:
    """Quality of a run's synthetic images for its record, computed once per set of images.

    Uses :class:`leuk.evaluate.morphology.MorphologyExtractor` as features, which needs no download;
    ``leuk synthesize`` uses those of a network.

    Args:
        cfg: config of the run.
        data: data module with its stages.
        synthetic: synthetic images.

    Returns:
        ``quality_artifact`` (name of the artifact), ``held_out``, and by class ``quality``, a
        :class:`leuk.evaluate.image_quality.Quality`. With too few images, only ``copies``: by class
        the number of copies of training images.

    Raises:
        StoreError: the stored quality cannot be read.
    """
    if _fewest(data, synthetic) < FEWEST:
        log.warning("synthetic images are not evaluated: fewer than %d images of a class", FEWEST)
        train = np.asarray(data.dataset.data[data.split.train])
        return {
            "copies": {
                label.folder: int(copied(synthetic.of(label), train).sum())
                for label in synthetic_labels(synthetic)
            }
        }
    seed = int(cfg.seed)
    paths = {stage: data.stage(stage)["path"].tolist() for stage in ("train", HELD_OUT)}
    patients = {stage: data.stage(stage)["patient"].astype(str).tolist() for stage in paths}
    key = {
        "format": FORMAT,
        "images": synthetic.folder.name,
        "pixels": data.dataset.store.fingerprint,
        "paths": digest(paths),
        "patients": digest(patients),
        "measures": list(MEASURES),
        "seed": seed,
    }
    folder = make_once(
        Path(cfg.outputs) / "artifacts",
        "quality",
        key,
        lambda target: _evaluate_all(data, synthetic, seed, target),
    )
    return _read(folder)


def _read(folder: Path) -> dict[str, Any]:
    try:
        quality = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = {"quality_artifact": folder.name, "held_out": HELD_OUT, "quality": quality}
        if not quality:
            raise ValueError("empty")
        quality_warnings(found, "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{folder}: no readable quality of synthetic images ({error!r}); remove it"
        ) from error
    return found


def _fewest(data: CNMCDataModule, synthetic: Synthetic) -> int:
    """Size of the smallest set of images to compare."""
    sizes = list(synthetic.origin["label"].value_counts())
    for stage in ("train", HELD_OUT):
        labels = data.stage(stage)["label"].to_numpy()
        sizes += [int((labels == label).sum()) for label in Label]
    return min(sizes)


def _evaluate_all(data: CNMCDataModule, synthetic: Synthetic, seed: int, target: Path) -> None:
    found = {}
    for label in synthetic_labels(synthetic):
        real = real_images(data, label, HELD_OUT)
        extractor = MorphologyExtractor(real.train)
        found[label.folder] = asdict(evaluate_class(synthetic, label, real, extractor, seed))
        save_pair(target, label, shown_pair(synthetic, label, real))
    write_json(target / FILE, found)


def quality_warnings(synthetic: Mapping[str, Any], augmentation: str) -> list[str]:
    """Warnings about the quality of a run's synthetic images.

    Args:
        synthetic: ``data.synthetic`` of a record.
        augmentation: name of the augmentation.
    """
    if not synthetic.get("quality"):
        found = synthetic.get("copies", {})
        return [
            f"{augmentation}: not evaluated, too few real or synthetic images to compare",
            *(
                f"{augmentation} {name}: {text}"
                for name, count in found.items()
                for text in near_exact(count)
            ),
        ]
    return [
        f"{augmentation} {name}: {text}"
        for name, quality in synthetic["quality"].items()
        for text in quality["warnings"]
    ]

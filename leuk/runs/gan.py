"""Synthetic images, in order: GAN, samples, quality, images for a run, ``leuk synthesize``."""

import json
import logging
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from hydra.utils import get_class
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from leuk.config.targets import instantiate
from leuk.data.audit import image_warnings
from leuk.data.datamodule import CNMCDataModule, ImageBatches
from leuk.data.labels import Label
from leuk.errors import ConfigError, DataError, StoreError
from leuk.gans.base import Adversarial, SampleGrids
from leuk.metrics.baselines import MEASURES
from leuk.metrics.synthetic.distances import FEWEST
from leuk.metrics.synthetic.features import Extractor, MorphologyExtractor
from leuk.metrics.synthetic.memorization import copied
from leuk.metrics.synthetic.quality import (
    Quality,
    RealImages,
    assess_quality,
    near_exact,
    save_rows,
)
from leuk.runs.record import RunWarning
from leuk.runs.run import (
    NEUTRAL,
    choice_of,
    current_hydra,
    listing_of,
    settings_of,
    synthesis_folder,
    uses_gan,
)
from leuk.runs.trainer import (
    assign_devices,
    build_named,
    build_trainer,
    clock,
    describe,
    last_readable,
    memory_errors,
    older_arguments,
    read_checkpoint,
)
from leuk.store import (
    csv_text,
    digest,
    make_once,
    refuse_loss,
    unfinished,
    whole_folder,
    write_json,
    write_text,
)

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]

# --- A GAN, trained once per architecture, training images and seed

GAN_FORMAT = 3
"""Version in every GAN's key; increase it when training or sampling changes."""

SYNTHETIC_FORMAT = 2
"""Version in the key of synthetic images; increase it when their files change."""

WEIGHTS = "gan.ckpt"

FACTS = "fit.json"
"""Facts of the training: ``seconds``, ``device``, ``images`` (their number), generator
``updates``, and ``whole`` (never resumed)."""


def form_of(cfg: DictConfig) -> type[Adversarial]:
    """Class of the configured GAN."""
    form = get_class(cfg.gan._target_)
    assert issubclass(form, Adversarial)
    return form


def gan_key(cfg: DictConfig, content: str) -> dict[str, object]:
    """Key of a trained GAN: architecture, training settings, digest of the images, and seed."""
    trainer = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(trainer, dict)
    # The number of epochs is that of gan_fit.
    neutral = {name.removeprefix("trainer.") for name in NEUTRAL} | {"max_epochs"}
    return {
        "format": GAN_FORMAT,
        "gan": OmegaConf.to_container(cfg.gan, resolve=True),
        "gan_fit": {key: cfg.gan_fit[key] for key in ("epochs", "batch_size", "compile")},
        "trainer": {str(name): value for name, value in trainer.items() if name not in neutral},
        "channels_last": OmegaConf.select(cfg, "callbacks.channels_last.enabled"),
        "images": content,
        "seed": int(cfg.seed),
    }


def gan_rows(cfg: DictConfig, data: CNMCDataModule, labels: Sequence[Label]) -> Rows:
    """Rows of the training images of some classes, which a GAN is trained on."""
    stage = data.stage("train")["label"].to_numpy()
    for label in labels:
        if not (stage == label).any():
            raise DataError(
                f"split: no {label.folder} images for training, so {cfg.gan._target_} cannot be "
                "trained; choose other folds with split.train, or augmentation=none"
            )
    rows: Rows = data.split.train[np.isin(stage, labels)]
    if len(rows) < cfg.gan_fit.batch_size:
        raise DataError(
            f"gan_fit.batch_size={cfg.gan_fit.batch_size}: only {len(rows)} training images for "
            f"the GAN; set gan_fit.batch_size={len(rows)} or lower"
        )
    return rows


def fitted_gan(cfg: DictConfig, data: CNMCDataModule, labels: Sequence[Label]) -> Path:
    """Find or train the configured GAN on training images of ``labels`` only.

    Stopped training resumes from its last complete checkpoint.

    Returns:
        Folder of the artifact, with ``gan.ckpt``, ``fit.json``, ``samples/`` and ``log/``.
    """
    rows = gan_rows(cfg, data, labels)
    root = Path(cfg.outputs) / "artifacts"
    key = gan_key(cfg, data.content(rows))
    scratch = unfinished(root, "gan", key)

    def train(target: Path) -> None:
        names = " and ".join(label.folder for label in labels)
        log.info("training %s on %d images of %s", cfg.gan._target_, len(rows), names)
        seed_everything(cfg.seed, workers=True, verbose=False)
        gan: Adversarial = instantiate(cfg.gan)
        if cfg.gan_fit.compile:
            gan.compile_networks()
        batches = ImageBatches(
            data.bank,
            # An epoch shows each image once per adversary update of a round, so that the number of
            # generator updates per epoch does not depend on the number of adversary updates.
            np.tile(rows, gan.fitting.adversary_steps),
            batch_size=cfg.gan_fit.batch_size,
            workers=cfg.data.workers,
            seed=cfg.seed,
        )
        callbacks = [
            *build_named(cfg.callbacks, ("progress", "channels_last", "tf32")).values(),
            SampleGrids(scratch / "samples", labels, cfg.gan_fit.sample_every),
            ModelCheckpoint(
                scratch / "checkpoints",
                filename="{epoch:05d}",
                every_n_epochs=cfg.gan_fit.checkpoint_every,
                enable_version_counter=False,
            ),
        ]
        # Each resumed start logs to its own file, so that no curve is lost.
        logger, epochs = CSVLogger(scratch, name="log"), cfg.gan_fit.epochs
        trainer = build_trainer(cfg, scratch, callbacks, max_epochs=epochs, logger=logger)
        limit_epochs(trainer, gan, len(batches.train) // cfg.gan_fit.batch_size)
        stopped = last_readable(scratch / "checkpoints")
        started = time.perf_counter()
        with memory_errors("gan_fit.batch_size", cfg.gan_fit.batch_size):
            trainer.fit(gan, datamodule=batches, ckpt_path=stopped, weights_only=True)
        facts = {
            "seconds": round(time.perf_counter() - started, 3),
            "whole": stopped is None,
            "device": describe(trainer, False)["name"],
            "images": len(rows),
            "updates": gan.done_updates,
        }
        write_json(target / FACTS, facts)
        trainer.save_checkpoint(target / WEIGHTS, weights_only=True)
        for name in ("samples", "log"):
            shutil.copytree(scratch / name, target / name)

    folder = make_once(root, "gan", key, train)
    shutil.rmtree(scratch, ignore_errors=True)
    return folder


def limit_epochs(trainer: Trainer, gan: Adversarial, batches: int) -> None:
    """Lower ``max_epochs`` to the updates of a GAN with ``batches`` per epoch."""
    if gan.fitting.updates is not None:
        rounds = math.ceil(gan.fitting.updates / gan.fitting.generator_steps)
        needed = math.ceil(rounds * gan.fitting.adversary_steps / max(1, batches))
        trainer.fit_loop.max_epochs = min(trainer.max_epochs or needed, needed)


def load_gan(cfg: DictConfig, folder: Path) -> Adversarial:
    """Load the GAN of an artifact, on the CPU."""
    form = form_of(cfg)
    older = older_arguments(form, read_checkpoint(folder / WEIGHTS, {}))
    gan = form.load_from_checkpoint(
        folder / WEIGHTS, map_location="cpu", weights_only=True, **older
    )
    assert isinstance(gan, Adversarial)
    return gan.eval()


# --- Synthetic images, sampled once


@dataclass(frozen=True)
class Synthetic:
    """Synthetic images for a training stage.

    ``origin`` has a row per image: ``label``, ``gan`` (name of the GAN's artifact), ``seed`` and
    ``position`` of the draw; GAN, seed and position determine the image.
    """

    pixels: npt.NDArray[np.uint8]  # (N, R, R, 3)
    origin: pd.DataFrame
    folder: Path  # artifact of the images

    def of(self, label: Label) -> npt.NDArray[np.uint8]:
        """Images of a class, ``uint8 (n, R, R, 3)``; n can be 0."""
        return self.pixels[(self.origin["label"] == label).to_numpy()]

    @property
    def labels(self) -> list[Label]:
        """Classes of the images."""
        return [label for label in Label if label in set(self.origin["label"])]


def classes_of(cfg: DictConfig) -> list[Label]:
    """Classes of the images to add."""
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

    Returns:
        The images, or None if nothing is to be added.
    """
    counts = images_to_add(cfg, data)
    if not counts:
        return None
    seed, fits = int(cfg.seed), gan_classes(cfg, counts)
    fitted = {classes: fitted_gan(cfg, data, classes) for classes in dict.fromkeys(fits.values())}
    gans = {label: fitted[classes] for label, classes in fits.items()}

    def sample(target: Path) -> None:
        images, origins = [], []
        for label, count in counts.items():
            images.append(load_gan(cfg, gans[label]).sample(count, label, seed))
            origin = {"label": int(label), "gan": gans[label].name, "seed": seed}
            origins.append(pd.DataFrame({**origin, "position": np.arange(count)}))
        np.save(target / "images.npy", np.concatenate(images))
        pd.concat(origins).to_csv(target / "origin.csv", index=False)

    key = {
        "format": [GAN_FORMAT, SYNTHETIC_FORMAT],
        "images": {label.folder: [gans[label].name, count] for label, count in counts.items()},
        "seed": seed,
    }
    folder = make_once(Path(cfg.outputs) / "artifacts", "synthetic", key, sample)
    for label, count in counts.items():
        log.info("%d synthetic %s images from %s", count, label.folder, gans[label])
    pixels = np.load(folder / "images.npy", mmap_mode="c")
    return Synthetic(pixels, pd.read_csv(folder / "origin.csv"), folder)


# --- Quality of synthetic images, compared with real ones

QUALITY = "quality.json"
HELD_OUT = "val"
"""Stage that a sweep compares synthetic images with; test images are reserved for classifiers."""

SHOWN = 12
"""Number of images, and of image pairs, stored for figures."""

QUALITY_FORMAT = 2
"""Version in the cache key; increase it when a metric changes its meaning."""


def real_images(data: CNMCDataModule, label: Label, held_out: str) -> RealImages:
    """Real images of both classes to compare synthetic images of ``label`` with.

    ``held_out`` is the stage without training images, ``val`` or ``test``.
    """
    other = Label(1 - label)
    images, patients = {}, {}
    for name, stage, wanted in (
        ("train", "train", label),
        ("train_other", "train", other),
        ("reference", held_out, label),
        ("reference_other", held_out, other),
    ):
        table = data.stage(stage)
        table = table[table["label"] == wanted]
        if table.empty:
            raise DataError(
                f"split: no {wanted.folder} images in stage {stage} to compare synthetic images "
                "with; choose other folds, or another stage with held_out"
            )
        images[name] = np.asarray(data.dataset.data[table.index.to_numpy()])
        patients[name] = table["patient"].to_numpy().astype(str)
    return RealImages(**images, patients=patients)


def evaluate_class(
    folder: Path,
    synthetic: Synthetic,
    label: Label,
    real: RealImages,
    extractor: Extractor,
    seed: int,
) -> Quality:
    """Measure the quality of the synthetic images of a class; the seed is that of subsampling.

    Writes :data:`SHOWN` unselected images, ``real`` and ``synthetic``, for the report, to
    ``images_<class>.npz`` in ``folder``.
    """
    own, others = synthetic.of(label), synthetic.of(Label(1 - label))
    log.info("evaluating %d synthetic %s images by %s", len(own), label.folder, extractor.name)
    found = assess_quality(own, real, extractor, seed, others if len(others) else None)
    spread = np.linspace(0, len(real.reference) - 1, SHOWN).astype(int)
    path = folder / f"images_{label.folder}.npz"
    np.savez(path, real=real.reference[spread], synthetic=own[:SHOWN])
    return found


def cached_quality(cfg: DictConfig, data: CNMCDataModule, synthetic: Synthetic) -> dict[str, Any]:
    """Quality of a run's synthetic images for its record, computed once per set of images.

    Uses :class:`.features.MorphologyExtractor` as features, which needs no download;
    ``leuk synthesize`` uses those of a network.

    Returns:
        ``quality_artifact`` (name of the artifact), ``held_out``, and by class ``quality``, a
        :class:`.quality.Quality`. With too few images, only ``copies``: by class the number of
        copies of training images.

    Raises:
        StoreError: the stored quality cannot be read.
    """
    stages = {stage: data.stage(stage) for stage in ("train", HELD_OUT)}
    of_class = {label: synthetic.of(label) for label in synthetic.labels}
    sizes = [len(own) for own in of_class.values()]
    sizes += [int((table["label"] == label).sum()) for table in stages.values() for label in Label]
    if min(sizes) < FEWEST:
        log.warning("synthetic images are not evaluated: fewer than %d images of a class", FEWEST)
        train = np.asarray(data.dataset.data[data.split.train])
        copies = {label.folder: int(copied(own, train).sum()) for label, own in of_class.items()}
        return {"copies": copies}
    seed = int(cfg.seed)

    def measure(target: Path) -> None:
        found = {}
        for label in of_class:
            real = real_images(data, label, HELD_OUT)
            extractor = MorphologyExtractor(real.train)
            quality = evaluate_class(target, synthetic, label, real, extractor, seed)
            found[label.folder] = asdict(quality)
        write_json(target / QUALITY, found)

    key = {
        "format": QUALITY_FORMAT,
        "images": synthetic.folder.name,
        "pixels": data.dataset.store.fingerprint,
        "paths": digest({stage: table["path"].tolist() for stage, table in stages.items()}),
        "patients": digest(
            {stage: table["patient"].astype(str).tolist() for stage, table in stages.items()}
        ),
        "measures": list(MEASURES),
        "seed": seed,
    }
    folder = make_once(Path(cfg.outputs) / "artifacts", "quality", key, measure)
    try:
        quality = json.loads((folder / QUALITY).read_text(encoding="utf-8"))
        found = {"quality_artifact": folder.name, "held_out": HELD_OUT, "quality": quality}
        if not quality:
            raise ValueError("empty")
        quality_warnings(found, "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{folder}: no readable quality of synthetic images ({error!r}); remove it"
        ) from error
    return found


def quality_warnings(synthetic: Mapping[str, Any], augmentation: str) -> list[str]:
    """Warnings about the quality of a run's synthetic images, ``data.synthetic`` of its record."""
    if quality := synthetic.get("quality"):
        texts = {name: found["warnings"] for name, found in quality.items()}
        first = []
    else:
        texts = {name: near_exact(count) for name, count in synthetic.get("copies", {}).items()}
        first = [f"{augmentation}: not evaluated, too few real or synthetic images to compare"]
    return first + [f"{augmentation} {name}: {text}" for name in texts for text in texts[name]]


# --- Images added to the training stage of a run, or class weights


def add_images(cfg: DictConfig, data: CNMCDataModule) -> tuple[dict[str, Any], list[RunWarning]]:
    """Add the augmentation's synthetic or repeated images to the training rows of ``data``.

    Returns:
        Entry of ``data`` in the record, ``synthetic`` or ``oversampled``, empty if nothing was
        added; and warnings such as low quality of the synthetic images.
    """
    name = cfg.augmentation.name
    if uses_gan(cfg):
        if synthetic := synthesize(cfg, data):
            data.add_synthetic(synthetic.pixels, synthetic.origin["label"].to_numpy(np.int64))
            facts = {
                "counts": {label.folder: len(synthetic.of(label)) for label in synthetic.labels},
                "gans": sorted(set(synthetic.origin["gan"])),
                "artifact": synthetic.folder.name,
                **cached_quality(cfg, data, synthetic),
            }
            texts = quality_warnings(facts, name)
            return {"synthetic": facts}, [RunWarning("synthetic", text) for text in texts]
    elif name == "oversample":
        if repeated := repeated_rows(cfg, data):
            data.repeat(np.concatenate(list(repeated.values())))
            counts = {label.folder: len(rows) for label, rows in repeated.items()}
            return {"oversampled": counts}, []
    else:
        return {}, []
    nothing = "augmentation: no healthy images are missing; nothing was added"
    return {}, [RunWarning("other", nothing)]


def repeated_rows(cfg: DictConfig, data: CNMCDataModule) -> dict[Label, Rows]:
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


# --- ``leuk synthesize``: balanced set of images, and their quality

SUBFOLDER = "C-NMC_training_data/fold_0"
"""Subfolder of the images, so that ``data=cnmc data.root=FOLDER`` reads them."""

MANIFEST = "manifest.csv"

_SYNTHETIC = 9_000_000
"""Subject number of synthetic images for seed 0, beyond C-NMC's own; the seed is added."""

_LOST = ["images of other data or settings"]


def check_kept(cfg: DictConfig) -> None:
    """Refuse to replace synthetic images of other data or settings.

    Images of the same data and settings are reproduced exactly.
    """
    path = synthesis_folder(cfg, cfg.hydra) / QUALITY
    if cfg.replace or not path.exists():
        return
    expected = {"settings": digest(settings_of(cfg))}
    if (files := listing_of(cfg)) is not None:
        expected["files"] = files
    try:
        kept = json.loads(path.read_text("utf-8"))
        same = all(kept.get(key) == value for key, value in expected.items())
    except (OSError, ValueError, AttributeError):
        same = False
    refuse_loss(path.parent, [] if same else _LOST, cfg.replace)


def run_synthesis(cfg: DictConfig) -> None:
    """Generate images with a GAN, balance the training stage with them, measure their quality."""
    folder = synthesis_folder(cfg, current_hydra())
    assign_devices(cfg, current_hydra())
    started = time.perf_counter()
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    data.prepare_data()
    data.setup()
    for text in image_warnings(data):
        log.warning("%s: %s", folder.name, text)
    synthetic = synthesize(cfg, data)
    if synthetic is None:
        raise DataError(
            "augmentation.count=null: no healthy training images are missing; set the number of "
            "images to generate per class: augmentation.count=N"
        )
    _write_balanced(folder / "balanced", data, synthetic, cfg.replace)
    extractor = _extractor(OmegaConf.to_yaml(cfg.extractor, resolve=True))
    quality = {}
    for label in synthetic.labels:
        real = real_images(data, label, cfg.held_out)
        found = evaluate_class(folder, synthetic, label, real, extractor, int(cfg.seed))
        for warning in found.warnings:
            log.warning("%s: %s", folder.name, warning)
        with np.load(folder / f"images_{label.folder}.npz") as shown:
            save_rows(folder / f"images_{label.folder}.png", dict(shown))
        near = found.closest[:SHOWN]
        pairs = {
            "synthetic": synthetic.of(label)[[pair[0] for pair in near]],
            "nearest\ntraining": real.train[[pair[1] for pair in near]],
        }
        save_rows(folder / f"closest_{label.folder}.png", pairs)
        quality[label.folder] = asdict(found)
    report = {
        "gan": choice_of("gan", cfg),
        "recipe": str(cfg.recipe),
        "seed": int(cfg.seed),
        "held_out": str(cfg.held_out),
        "artifacts": sorted(set(synthetic.origin["gan"])),
        "artifact": str(synthetic.folder),
        "quality": quality,
        # The settings and the data determine the output, see check_kept.
        "settings": digest(settings_of(cfg)),
        "files": data.listing(),
    }
    write_json(folder / QUALITY, report)
    log.info("%s: done in %s", folder, clock(time.perf_counter() - started))


@cache
def _extractor(node: str) -> Extractor:
    """Build the extractor of a config node, shared by all jobs of a sweep in this process."""
    cfg = OmegaConf.create(node)
    assert isinstance(cfg, DictConfig)
    extractor: Extractor = instantiate(cfg)
    return extractor


def _write_balanced(
    target: Path, data: CNMCDataModule, synthetic: Synthetic, replace: bool
) -> None:
    """Write real training images and synthetic images as one folder, unless it already has them.

    ``manifest.csv`` has a row per image: ``file``, ``label``, ``origin`` (``real`` or
    ``synthetic``); for real images ``source`` (the file under the data's root) and ``subject``; for
    synthetic images ``gan`` (the artifact), ``seed`` and ``position`` (of the draw, and the row of
    ``synthetic.npy``, which holds them as ``uint8 (N, R, R, 3)``).
    """
    real, drawn = data.stage("train"), synthetic.origin
    of_real = pd.DataFrame(
        {
            "file": [
                f"{SUBFOLDER}/{Label(label).folder}/{Path(name).stem}.png"
                for name, label in zip(real["name"], real["label"], strict=True)
            ],
            "label": real["label"].to_numpy(),
            "origin": "real",
            "source": real["path"].to_numpy(),
            "subject": real["subject"].to_numpy(),
        }
    )
    names = []
    for label, seed, position in drawn[["label", "seed", "position"]].itertuples(index=False):
        name = Label(label).folder
        subject = f"{'H' if label == Label.HEM else ''}{_SYNTHETIC + seed}"
        names.append(f"{SUBFOLDER}/{name}/UID_{subject}_{position + 1}_1_{name}.png")
    of_synthetic = drawn.assign(origin="synthetic", file=names)
    manifest = pd.concat([of_real, of_synthetic], ignore_index=True)
    if target.exists():
        path = target / MANIFEST
        if path.is_file() and path.read_text("utf-8") == csv_text(manifest):
            log.info("%d images, real and synthetic, already in %s", len(manifest), target)
            return
        refuse_loss(target, _LOST, replace)
        shutil.rmtree(target)
    with whole_folder(target) as folder:
        for label in Label:
            (folder / SUBFOLDER / label.folder).mkdir(parents=True)
        pixels = chain(data.dataset.data[real.index.to_numpy()], synthetic.pixels)
        for file, image in zip(manifest["file"], pixels, strict=True):
            Image.fromarray(image).save(folder / file)
        np.save(folder / "synthetic.npy", synthetic.pixels)
        write_text(folder / MANIFEST, csv_text(manifest))
    log.info("%d images, real and synthetic, in %s", len(manifest), target)

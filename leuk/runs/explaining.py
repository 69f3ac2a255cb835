"""Explanations of a finished cell of the grid, made later, without training."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.data.background import background_warning, has_background
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import Decoded, Frame, UnusableError, decode
from leuk.data.scale import SIZE_UNKNOWN, View, file_sizes
from leuk.data.unlabeled import Image, find_images
from leuk.errors import ConfigError, DataError, StoreError
from leuk.explain.choice import choose_background, possible_explainers
from leuk.explain.cohort import Cohort, unlabeled_cohort
from leuk.explain.study import COHORT
from leuk.grid.state import LOCK
from leuk.runs.device import check_device
from leuk.runs.evaluation import EXPLANATIONS, explain_callback, warnings_of
from leuk.runs.finished import Finished
from leuk.runs.fitting import build_named, build_trainer
from leuk.runs.paths import resolved
from leuk.store.atomic import ensure_writable, write_json

log = logging.getLogger(__name__)

_BATCH = 64


def explanations_folder(cfg: DictConfig) -> Path:
    """Where ``leuk explain`` writes.

    ``explanations`` below the run for its own test cells, ``explanations-<folder>`` for a folder
    of images or a list of them, ``explanations-<name>`` where a name is given.
    """
    run = Path(str(cfg.run)).expanduser().resolve()
    name = str(cfg.name)
    if name == EXPLANATIONS and cfg.images is not None:
        name = Path(str(cfg.images)).expanduser().resolve().name
    return run / (name if name == EXPLANATIONS else f"{EXPLANATIONS}-{name}")


def check_explaining(cfg: DictConfig) -> None:
    """Refuse what cannot be explained, before anything is written.

    Raises:
        ConfigError: no finished run, no method, or one that its classifier does not allow.
        DataError: no images to explain, or some of an unknown scale.
        StoreError: nothing can be written there, or the run's checkpoint is not its own.
    """
    finished = Finished.read(cfg.run)
    check_device(cfg)
    _trainer(cfg, finished.folder, [])
    explainers = build_named(cfg.explain)
    if not explainers:
        raise ConfigError("explain=none: nothing would be explained; choose a method")
    possible_explainers(explainers, finished.classifier())
    if cfg.images is not None:
        view = _view(cfg, finished)
        files = _files(cfg.images)
        if text := view.unknown_scale(file_sizes(one.path for one in files)):
            others = (
                one.name for one in files if not all(map(view.covers, file_sizes([one.path])))
            )
            raise DataError(f"images={cfg.images}: {text}; the first such image: {next(others)}")
    elif cfg.frame is not None or cfg.pixel_size is not None:
        key = "frame" if cfg.frame is not None else "pixel_size"
        raise ConfigError(
            f"{key}={cfg[key]}: it is of other images than the run's own; name them with images=DIR"
        )
    ensure_writable(finished.folder, "run")
    folder = explanations_folder(cfg)
    if not cfg.replace and (lost := _lost(cfg, folder, set(explainers))):
        raise StoreError(
            f"{folder}: {', '.join(lost)} would be lost; write beside it with name=NAME, or "
            "replace it with replace=true"
        )


def _lost(cfg: DictConfig, folder: Path, methods: set[str]) -> list[str]:
    """Results in a folder of explanations that a new set of explanations would not contain."""
    before = _summary(folder)
    kept = {name: values for name, values in before.items() if "arrays" in values}
    lost = sorted(set(kept) - methods)
    # Two folders of one name, or a list that names other files now.
    of = before.get(COHORT, {}).get("images")
    if cfg.images is not None and of not in (None, str(resolved(cfg.images))):
        lost.append(f"explanations of {of}")
    if not cfg.checks and any("measures" in values for values in kept.values()):
        lost.append("the checks")
    images = int(before.get(COHORT, {}).get("images", 0))
    number = max(int(cfg.explain_images), int(cfg.checked_images) if cfg.checks else 0)
    if number < images:
        lost.append(f"{images - number} of {images} explained images")
    return lost


def _summary(folder: Path) -> dict[str, Any]:
    """Contents of a folder of explanations by method, empty where it holds none."""
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text("utf-8"))
        return {str(name): dict(values) for name, values in summary.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: cannot be read as a summary of explanations; move the folder away, or write "
            "beside it with name=NAME"
        ) from error


def explain_run(cfg: DictConfig) -> None:
    """Explain a finished run's own test cells, or the images of a folder.

    Explanations of its own cells, under the usual name, become those of its record.

    Raises:
        DataError: images that cannot be read, or data that is no longer there.
        StoreError: another process works in the run's folder.
    """
    finished = Finished.read(cfg.run)
    try:
        held = FileLock(finished.folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise StoreError(f"{finished.folder}: another process works there; wait for it") from error
    with held:
        folder = explanations_folder(cfg)
        before = _summary(folder)
        summary = _explained(cfg, finished, folder)
        # Arrays and pictures of other images than the new manifest lists.
        for name in set(before) - set(summary):
            for ending in ("npz", "png"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
        if cfg.images is not None:
            summary[COHORT]["images"] = str(resolved(cfg.images))
            write_json(folder / "summary.json", summary)
        if folder.name == EXPLANATIONS:
            _take_down(finished, summary)
    log.info("%s: explained, look in %s", finished.folder.name, folder)


def _explained(cfg: DictConfig, finished: Finished, folder: Path) -> dict[str, Any]:
    data, classifier = finished.data(cfg.root), finished.classifier()
    callbacks = build_named(cfg.callbacks, ("channels_last",))
    explain = explain_callback(cfg, folder, finished.folder.name)
    trainer = _trainer(cfg, finished.folder, [*callbacks.values(), explain])
    if cfg.images is None:
        trainer.test(classifier, datamodule=data, verbose=False)
        return explain.summary
    classifier.to(trainer.strategy.root_device)
    for callback in callbacks.values():
        callback.setup(trainer, classifier, "test")
    view = _view(cfg, finished)
    cohort = _cohort_of(cfg, view, explain.count, data, classifier, trainer)
    return explain.study(trainer).of(classifier, cohort)


def _view(cfg: DictConfig, finished: Finished) -> View:
    return finished.scale(cfg.root).view(finished.frame, cfg.frame, cfg.pixel_size)


def _trainer(cfg: DictConfig, folder: Path, callbacks: list[Any]) -> Trainer:
    """One that asks, with gradients possible, and writes nothing."""
    changes = {"logger": False, "enable_checkpointing": False, "inference_mode": False}
    return build_trainer(cfg, folder, callbacks, **changes)


def _take_down(finished: Finished, summary: dict[str, Any]) -> None:
    """Put new explanations in the place of the record's."""
    record = finished.record
    before = record.explanations
    record.explanations = {key: before[key] for key in ("prototypes",) if key in before} | summary
    old = warnings_of(before)
    kept = [warning for warning in record.warnings if warning not in old]
    record.warnings = kept + warnings_of(summary)
    record.write(finished.folder)


def _files(images: str) -> list[Image]:
    """The images to explain, none of which may be something else."""
    found = find_images(images).images
    for one in found:
        if one.problem:
            raise DataError(f"images={images}: {one.name}: {one.problem}")
    return found


def _cohort_of(
    cfg: DictConfig,
    view: View,
    most: int,
    data: CNMCDataModule,
    classifier: Classifier,
    trainer: Trainer,
) -> Cohort:
    """The first of the images, as the run sees its own cells, and its scores of them."""
    files = _files(cfg.images)
    if len(files) > most:
        log.warning(
            "the first %d of %d images are explained; set explain_images for more", most, len(files)
        )
        files = files[:most]
    decoded = [_decoded(one.path, view.frame) for one in files]
    if not view.stated and not view.scale.sizes:
        log.warning(SIZE_UNKNOWN)
    found = has_background(np.stack([one.thumb for one in decoded]))
    names = [file.name for file, there in zip(files, found, strict=True) if there]
    if text := background_warning(names, len(files)):
        log.warning("%s", text)
    for file, one in zip(files, decoded, strict=True):
        if doubt := view.area_warning(one.area):
            log.warning("%s: %s", file.path.name, doubt)
    pixels = torch.from_numpy(np.stack([one.pixels for one in decoded]))
    images = pixels.permute(0, 3, 1, 2).float().div(255)
    behind = choose_background(data.stage("train"), cfg.explain_background, data.seed)
    return unlabeled_cohort(
        [one.name for one in files],
        images,
        _scores(classifier, trainer, images),
        data.bank.gather(torch.tensor(behind), torch.device("cpu"))["images"],
        cfg.explain_images,
    )


def _decoded(path: Path, frame: Frame) -> Decoded:
    try:
        return decode(path, frame)
    except UnusableError as error:
        advice = f"{error.remedy} or take it out of the folder"
        raise DataError(f"{path}: {error.problem}; {advice}") from error


@torch.no_grad()
def _scores(classifier: Classifier, trainer: Trainer, images: Tensor) -> list[float]:
    """Probabilities of leukemia, as test cells are judged."""
    scores = []
    for part in images.split(_BATCH):
        with trainer.precision_plugin.forward_context():
            logits = classifier.predict_logits(part.to(classifier.device))
        scores += logits.double().softmax(dim=1)[:, 1].tolist()
    return scores

"""Grad-CAM of new images, drawn over them: a file per image, and a sheet with the color bar."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from leuk.classifiers.base import Classifier
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import Decoded, Frame, UnusableError, decode
from leuk.data.labels import Label
from leuk.data.layouts import UnlabeledImage, find_images
from leuk.data.scale import SIZE_UNKNOWN, View, background_warning, file_sizes, has_background
from leuk.errors import ConfigError, DataError, StoreError
from leuk.explain.base import Attribution, possible_explainers
from leuk.explain.cohort import Cohort, choose_background, unlabeled_cohort
from leuk.explain.figures import drawn_of, save_overlays
from leuk.explain.gradcam import GradCAM
from leuk.explain.study import COHORT
from leuk.metrics.arrays import Images
from leuk.runs.evaluate import EXPLANATIONS, explain_callback, warnings_of
from leuk.runs.finished import FinishedRun, Predictor
from leuk.runs.run import resolved
from leuk.runs.state import LOCK
from leuk.runs.trainer import build_named, build_trainer, check_device
from leuk.store import ensure_writable, whole_file, write_json

FOLDER = "overlays"
SHEET = "overlays.png"

_ON_SHEET = 48
"""Maximum number of images on the sheet, so that viewers can open it."""

_SIDE = 224
"""Minimum side of an overlay in pixels."""


def save_maps(
    folder: Path,
    predictor: Predictor,
    images: Mapping[int, Images],
    captions: Mapping[int, str],
    title: str,
) -> dict[int, str]:
    """Explain images by Grad-CAM for leukemia and draw the maps.

    Args:
        folder: output folder.
        predictor: classifier with its device and precision.
        images: pixels ``uint8 (R, R, 3)``, by number from 0.
        captions: captions of the images, by the same numbers.
        title: title of the sheet.

    Returns:
        File of each image, relative to the folder.
    """
    if not images:
        return {}
    batch = predictor.images(np.stack(list(images.values())))
    parts = [
        GradCAM().attribute(predictor.classifier, part, Label.ALL)
        for part in batch.split(predictor.batch_size)
    ]
    drawn = drawn_of(Attribution.join(parts))
    files = {number: f"{FOLDER}/{number + 1:05d}.png" for number in images}
    for position, (file, image) in enumerate(zip(files.values(), batch, strict=True)):
        inked = (drawn.over(position, image) * 255).round().astype(np.uint8)
        times = max(1, -(-_SIDE // len(inked)))
        with whole_file(folder / file) as temporary:
            Image.fromarray(inked.repeat(times, axis=0).repeat(times, axis=1)).save(temporary)
    numbered = [f"{number + 1}: {captions[number]}" for number in images][:_ON_SHEET]
    save_overlays(folder / SHEET, batch[:_ON_SHEET], drawn, numbered, title)
    return files


# --- Explanations of a finished run, for its test images or for new images, without training

log = logging.getLogger(__name__)

_BATCH = 64


def explanations_folder(cfg: DictConfig) -> Path:
    """Output folder of ``leuk explain``, in the folder of the run.

    ``explanations`` for the run's test images, ``explanations-<stem>`` for a folder or a list of
    images, ``explanations-<name>`` if a name is set.
    """
    run = Path(str(cfg.run)).expanduser().resolve()
    name = str(cfg.name)
    if name == EXPLANATIONS and cfg.images is not None:
        name = Path(str(cfg.images)).expanduser().resolve().name
    return run / (name if name == EXPLANATIONS else f"{EXPLANATIONS}-{name}")


def check_explaining(cfg: DictConfig) -> None:
    """Refuse what cannot be explained, before anything is written.

    Raises:
        ConfigError: no finished run, no method, or a method that does not suit the classifier.
        DataError: no images to explain, or images of unknown scale.
        StoreError: the folder cannot be written, or the checkpoint belongs to another run.
    """
    finished = FinishedRun.read(cfg.run)
    check_device(cfg)
    _trainer(cfg, finished.folder, [])
    explainers = build_named(cfg.explain)
    if not explainers:
        raise ConfigError("explain=none: no method to explain with; choose at least one")
    possible_explainers(explainers, finished.classifier())
    if cfg.images is not None:
        view = finished.view(cfg)
        files = _files(cfg.images)
        if text := view.unknown_scale(file_sizes(file.path for file in files)):
            unknown = (
                file.name for file in files if not all(map(view.covers, file_sizes([file.path])))
            )
            raise DataError(f"images={cfg.images}: {text}; the first such image: {next(unknown)}")
    elif cfg.frame is not None or cfg.pixel_size is not None:
        key = "frame" if cfg.frame is not None else "pixel_size"
        raise ConfigError(f"{key}={cfg[key]}: only for new images; set images=DIR, or remove {key}")
    ensure_writable(finished.folder, "run")
    folder = explanations_folder(cfg)
    if not cfg.replace and (lost := _lost(cfg, folder, set(explainers))):
        raise StoreError(
            f"{folder}: {', '.join(lost)} would be lost; choose another folder with "
            "name=NAME, or allow it with replace=true"
        )


def _lost(cfg: DictConfig, folder: Path, methods: set[str]) -> list[str]:
    """Results in a folder of explanations that the new explanations would not replace."""
    before = _summary(folder)
    kept = {name: values for name, values in before.items() if "arrays" in values}
    lost = sorted(set(kept) - methods)
    # Two image folders can have the same name.
    source = before.get(COHORT, {}).get("source")
    if cfg.images is not None and source not in (None, str(resolved(cfg.images))):
        lost.append(f"explanations of {source}")
    if not cfg.checks and any("measures" in values for values in kept.values()):
        lost.append("the checks")
    images = int(before.get(COHORT, {}).get("images", 0))
    number = max(int(cfg.explain_images), int(cfg.checked_images) if cfg.checks else 0)
    if number < images:
        lost.append(f"{images - number} of {images} explained images")
    return lost


def _summary(folder: Path) -> dict[str, Any]:
    """Summary of existing explanations by method; empty if the folder has none."""
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text("utf-8"))
        return {str(name): dict(values) for name, values in summary.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path}: cannot be read as a summary of explanations; move the folder away, or "
            "choose another with name=NAME"
        ) from error


def explain_run(cfg: DictConfig) -> None:
    """Explain the test images of a finished run, or new images.

    Explanations of the test images under the default name replace those in the run's record.

    Raises:
        DataError: an image cannot be read, or the run's data no longer exist.
        StoreError: another process uses the run's folder.
    """
    finished = FinishedRun.read(cfg.run)
    try:
        held = FileLock(finished.folder / LOCK).acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"{finished.folder}: in use by another process; wait until it ends"
        ) from error
    with held:
        folder = explanations_folder(cfg)
        before = _summary(folder)
        summary = _explained(cfg, finished, folder)
        # Arrays and figures of methods that the new summary lacks are of other images.
        for name in set(before) - set(summary):
            for ending in ("npz", "png"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
        if cfg.images is not None:
            summary[COHORT]["source"] = str(resolved(cfg.images))
            write_json(folder / "summary.json", summary)
        if folder.name == EXPLANATIONS:
            _update_record(finished, summary)
    log.info("%s: explanations are in %s", finished.folder.name, folder)


def _explained(cfg: DictConfig, finished: FinishedRun, folder: Path) -> dict[str, Any]:
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
    view = finished.view(cfg)
    cohort = _image_cohort(cfg, view, explain.count, data, classifier, trainer)
    return explain.study(trainer).of(classifier, cohort)


def _trainer(cfg: DictConfig, folder: Path, callbacks: list[Any]) -> Trainer:
    """Trainer for predictions with gradients, without logs and checkpoints."""
    changes = {"logger": False, "enable_checkpointing": False, "inference_mode": False}
    return build_trainer(cfg, folder, callbacks, **changes)


def _update_record(finished: FinishedRun, summary: dict[str, Any]) -> None:
    """Replace the explanations in the record, and their warnings."""
    record = finished.record
    before = record.explanations
    record.explanations = {key: before[key] for key in ("prototypes",) if key in before} | summary
    old = warnings_of(before)
    kept = [warning for warning in record.warnings if warning not in old]
    record.warnings = kept + warnings_of(summary)
    record.write(finished.folder)


def _files(images: str) -> list[UnlabeledImage]:
    """List the images to explain; refuse files that cannot be read as images."""
    found = find_images(images).images
    for file in found:
        if file.problem:
            raise DataError(f"images={images}: {file.name}: {file.problem}")
    return found


def _image_cohort(
    cfg: DictConfig,
    view: View,
    most: int,
    data: CNMCDataModule,
    classifier: Classifier,
    trainer: Trainer,
) -> Cohort:
    """First images of the folder, at the run's scale, with their scores."""
    files = _files(cfg.images)
    if len(files) > most:
        log.warning(
            "explaining the first %d of %d images; set explain_images for more", most, len(files)
        )
        files = files[:most]
    decoded = [_decoded(file.path, view.frame) for file in files]
    if not view.stated and not view.scale.sizes:
        log.warning(SIZE_UNKNOWN)
    found = has_background(np.stack([image.thumb for image in decoded]))
    names = [file.name for file, present in zip(files, found, strict=True) if present]
    if text := background_warning(names, len(files)):
        log.warning("%s", text)
    for file, image in zip(files, decoded, strict=True):
        if doubt := view.area_warning(image.area):
            log.warning("%s: %s", file.path.name, doubt)
    pixels = torch.from_numpy(np.stack([image.pixels for image in decoded]))
    images = pixels.permute(0, 3, 1, 2).float().div(255)
    background = choose_background(data.stage("train"), cfg.explain_background, data.seed)
    return unlabeled_cohort(
        [file.name for file in files],
        images,
        _scores(classifier, trainer, images),
        data.bank.gather(torch.tensor(background), torch.device("cpu"))["images"],
        cfg.explain_images,
    )


def _decoded(path: Path, frame: Frame) -> Decoded:
    try:
        return decode(path, frame)
    except UnusableError as error:
        advice = f"{error.remedy} or remove it from the folder"
        raise DataError(f"{path}: {error.problem}; {advice}") from error


@torch.no_grad()
def _scores(classifier: Classifier, trainer: Trainer, images: Tensor) -> list[float]:
    """Probabilities of leukemia, computed as for test images."""
    scores = []
    for batch in images.split(_BATCH):
        with trainer.precision_plugin.forward_context():
            logits = classifier.predict_logits(batch.to(classifier.device))
        scores += logits.double().softmax(dim=1)[:, 1].tolist()
    return scores

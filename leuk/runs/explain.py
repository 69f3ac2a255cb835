"""Explanations: of a run's test images as a stage of ``leuk train``, and ``leuk explain``."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from leuk.classifiers.base import Predictions
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.decode import UnusableError, decode
from leuk.data.layouts import UnlabeledImage, find_images
from leuk.data.pixels import to_float
from leuk.data.scale import View, background_warning, file_sizes, has_background
from leuk.errors import ConfigError, DataError, StoreError
from leuk.explain.base import possible_explainers
from leuk.explain.cohort import Cohort, choose_background, unlabeled_cohort
from leuk.explain.study import COHORT, Explain
from leuk.runs.evaluate import Scorer
from leuk.runs.finished import FinishedRun
from leuk.runs.record import RunWarning
from leuk.runs.run import resolved
from leuk.runs.state import sole_use
from leuk.runs.trainer import build_named, check_device, memory_errors
from leuk.store import ensure_writable, refuse_loss, write_json

log = logging.getLogger(__name__)

EXPLANATIONS = "explanations"
"""Subfolder of a run."""

_BATCH = 64


def explain_test(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, scorer: Scorer, test: Predictions
) -> tuple[dict[str, Any], list[RunWarning]]:
    """Explain a sample of a run's test images; figures and arrays are in a subfolder.

    Returns:
        Entry of the record, see :meth:`leuk.explain.study.Study.of`, empty without methods; and
        warnings such as degenerate explanations.
    """
    with memory_errors("data.batch_size", cfg.data.batch_size):
        explain = _explain(cfg, folder / EXPLANATIONS, folder.name)
        summary = explain.explained(scorer.trainer, scorer.classifier, data, test)
    return summary, _warnings_of(summary)


def _explain(cfg: DictConfig, folder: Path, name: str) -> Explain:
    return Explain(
        build_named(cfg.explain),
        folder,
        shown=cfg.explain_images,
        checked=cfg.checked_images,
        background=cfg.explain_background,
        checks=instantiate(cfg.checks) if "_target_" in cfg.checks else None,
        name=name,
    )


def _warnings_of(summary: dict[str, Any]) -> list[RunWarning]:
    return [RunWarning(**warning) for warning in summary.get(COHORT, {}).get("warnings", [])]


# --- leuk explain


def explanations_folder(cfg: DictConfig) -> Path:
    """Output folder of ``leuk explain``, in the folder of the run.

    ``explanations`` for the run's test images, ``explanations-<stem>`` for a folder or a list of
    images, ``explanations-<name>`` if a name is set.
    """
    name = str(cfg.name)
    if name == EXPLANATIONS and cfg.images is not None:
        name = resolved(cfg.images).name
    return resolved(cfg.run) / (name if name == EXPLANATIONS else f"{EXPLANATIONS}-{name}")


def check_explaining(cfg: DictConfig) -> None:
    """Refuse what cannot be explained, before anything is written."""
    finished = FinishedRun.read(cfg.run)
    check_device(cfg)
    explainers = build_named(cfg.explain)
    if not explainers:
        raise ConfigError("explain=none: no method to explain with; choose at least one")
    possible_explainers(explainers, finished.scorer(cfg, _BATCH).classifier)
    if cfg.images is not None:
        view = finished.view(cfg)
        files = _files(cfg.images)
        if text := view.unknown_scale(file_sizes(file.path for file in files)):
            (first, *_) = (f.name for f in files if not all(map(view.covers, file_sizes([f.path]))))
            raise DataError(f"images={cfg.images}: {text}; the first such image: {first}")
    elif cfg.frame is not None or cfg.pixel_size is not None:
        key = "frame" if cfg.frame is not None else "pixel_size"
        raise ConfigError(f"{key}={cfg[key]}: only for new images; set images=DIR, or remove {key}")
    ensure_writable(finished.folder, "run")
    folder = explanations_folder(cfg)
    refuse_loss(folder, _lost(cfg, _summary(folder), set(explainers)), cfg.replace)


def _lost(cfg: DictConfig, before: dict[str, Any], methods: set[str]) -> list[str]:
    """Existing explanations, by their summary, that the new ones would not replace."""
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
    """
    finished = FinishedRun.read(cfg.run)
    folder = explanations_folder(cfg)
    with sole_use(finished.folder):
        before = _summary(folder)
        data, scorer = finished.data(cfg.root), finished.scorer(cfg, _BATCH)
        explain = _explain(cfg, folder, finished.folder.name)
        if cfg.images is None:
            summary = explain.explained(
                scorer.trainer, scorer.classifier, data, scorer.stage(data, "test")
            )
        else:
            cohort = image_cohort(cfg, finished.view(cfg), explain.count, data, scorer)
            summary = explain.study(scorer.trainer).of(scorer.classifier, cohort)
            summary[COHORT]["source"] = str(resolved(cfg.images))
            write_json(folder / "summary.json", summary)
        # Arrays and figures of methods that the new summary lacks are of other images.
        for name in set(before) - set(summary):
            for ending in ("npz", "png"):
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
        if folder.name == EXPLANATIONS:
            record = finished.record
            old, warned = record.explanations, _warnings_of(record.explanations)
            record.explanations = {k: old[k] for k in ("prototypes",) if k in old} | summary
            record.warnings = [one for one in record.warnings if one not in warned]
            record.warnings += _warnings_of(summary)
            record.write(finished.folder)
    log.info("%s: explanations are in %s", finished.folder.name, folder)


def _files(images: str) -> list[UnlabeledImage]:
    found = find_images(images).images
    for file in found:
        if file.problem:
            raise DataError(f"images={images}: {file.name}: {file.problem}")
    return found


def image_cohort(
    cfg: DictConfig, view: View, most: int, data: CNMCDataModule, scorer: Scorer
) -> Cohort:
    """First ``most`` images of ``cfg.images``, at the run's scale, with their scores.

    The background is of training images.
    """
    files = _files(cfg.images)
    if len(files) > most:
        log.warning(
            "explaining the first %d of %d images; set explain_images for more", most, len(files)
        )
        files = files[:most]
    decoded = []
    for file in files:
        try:
            decoded.append(decode(file.path, view.frame))
        except UnusableError as error:
            advice = f"{error.remedy} or remove it from the folder"
            raise DataError(f"{file.path}: {error.problem}; {advice}") from error
    found = has_background(np.stack([image.thumb for image in decoded]))
    names = [file.name for file, present in zip(files, found, strict=True) if present]
    if text := background_warning(names, len(files)):
        log.warning("%s", text)
    for file, image in zip(files, decoded, strict=True):
        if doubt := view.area_warning(image.area):
            log.warning("%s: %s", file.path.name, doubt)
    pixels = np.stack([image.pixels for image in decoded])
    background = choose_background(data.stage("train"), cfg.explain_background, data.seed)
    return unlabeled_cohort(
        [file.name for file in files],
        to_float(torch.from_numpy(pixels)),
        scorer.scores(pixels).tolist(),
        data.bank.gather(torch.tensor(background), torch.device("cpu"))["images"],
        cfg.explain_images,
    )

"""Execution of ``leuk synthesize``: data, GAN, synthetic images, balanced set, image quality."""

import json
import logging
import shutil
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.audit import count_cuts, framing_warning
from leuk.data.background import check_background
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.data.splits import STAGES
from leuk.errors import DataError, StoreError
from leuk.evaluate.features import CachedExtractor
from leuk.evaluate.image_quality import Quality
from leuk.evaluate.sheets import save_rows
from leuk.runs.balanced_set import MANIFEST, manifest_of, write_balanced_set
from leuk.runs.identity import choice_of, current_hydra, settings_of, synthesis_folder
from leuk.runs.launching import place
from leuk.runs.progress import clock
from leuk.runs.synthesis import Synthetic, synthesize
from leuk.runs.synthetic_quality import (
    FILE,
    SHOWN,
    evaluate_class,
    real_images,
    save_pair,
    shown_pair,
    synthetic_labels,
)
from leuk.store.artifacts import MissingArtifactError, read_only
from leuk.store.atomic import write_json
from leuk.store.digest import digest
from leuk.store.spreadsheet import csv_text

log = logging.getLogger(__name__)


def check_kept(cfg: DictConfig) -> None:
    """Refuse to lose synthetic images of other data or settings.

    Those of the same data and settings are the same again.

    Raises:
        StoreError: naming the folder.
    """
    path = synthesis_folder(cfg, cfg.hydra) / FILE
    if cfg.replace or not path.exists():
        return
    try:
        with read_only():
            data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
            expected = _origin(cfg, data)
    except MissingArtifactError:  # phantom images, which the settings determine
        expected = {"settings": digest(settings_of(cfg))}
    try:
        kept = json.loads(path.read_text("utf-8"))
        same = all(kept.get(key) == value for key, value in expected.items())
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise StoreError(_would_be_lost(path.parent))


def _origin(cfg: DictConfig, data: CNMCDataModule) -> dict[str, str]:
    """Hashes of everything that determines what is written."""
    return {"settings": digest(settings_of(cfg)), "files": data.listing()}


def _would_be_lost(folder: Path) -> str:
    return (
        f"{folder}: holds images of other data or settings; write beside them with name=NAME, or "
        "replace them with replace=true"
    )


def run_synthesis(cfg: DictConfig) -> None:
    """Generate images with a GAN, balance the training stage with them, and measure their quality.

    Args:
        cfg: composed config of the job.

    Raises:
        DataError: nothing is to be generated, or a stage lacks a class for the comparison.
    """
    folder = synthesis_folder(cfg, current_hydra())
    place(cfg, current_hydra())
    started = time.perf_counter()
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    data.prepare_data()
    data.setup()
    background = check_background(
        {stage: data.stage(stage) for stage in STAGES}, data.dataset.store.thumbs
    )
    cuts = count_cuts(data.dataset.index, data.dataset.store)
    for text in filter(None, (background, framing_warning(data.framing, cuts))):
        log.warning("%s: %s", folder.name, text)
    made = synthesize(cfg, data)
    if made is None:
        raise DataError(
            "augmentation.count=null: no healthy training images are missing; set the number of "
            "images to generate per class: augmentation.count=N"
        )
    _keep_balanced(folder / "balanced", data, made, cfg.replace)
    judged = {
        label.folder: _judge(cfg, data, made, label, folder) for label in synthetic_labels(made)
    }
    write_json(folder / FILE, _report(cfg, made, judged) | _origin(cfg, data))
    log.info("%s: done in %s", folder, clock(time.perf_counter() - started))


def _keep_balanced(target: Path, data: CNMCDataModule, made: Synthetic, replace: bool) -> None:
    """Write the balanced set, unless an earlier run has written the same."""
    manifest = manifest_of(data, made)
    if target.exists():
        path = target / MANIFEST
        if path.is_file() and path.read_text("utf-8") == csv_text(manifest):
            log.info("%d images, real and synthetic, were in %s", len(manifest), target)
            return
        if not replace:
            raise StoreError(_would_be_lost(target))
        shutil.rmtree(target)
    write_balanced_set(target, data, made, manifest)
    log.info("%d images, real and synthetic, in %s", len(manifest), target)


def _judge(
    cfg: DictConfig, data: CNMCDataModule, made: Synthetic, label: Label, folder: Path
) -> Quality:
    """Measure the quality of the synthetic images of a class, and write figures of them."""
    real = real_images(data, label, cfg.held_out)
    extractor = _extractor(OmegaConf.to_yaml(cfg.extractor, resolve=True))
    quality = evaluate_class(made, label, real, extractor, int(cfg.seed))
    for warning in quality.warnings:
        log.warning("%s: %s", folder.name, warning)
    shown = shown_pair(made, label, real)
    rows = {"real": shown["real"], "synthetic": shown["synthetic"]}
    save_rows(folder / f"images_{label.folder}.png", rows)
    near = quality.closest[:SHOWN]
    pairs = {
        "synthetic": made.of(label)[[pair[0] for pair in near]],
        "nearest\ntraining": real.train[[pair[1] for pair in near]],
    }
    save_rows(folder / f"closest_{label.folder}.png", pairs)
    save_pair(folder, label, shown)
    return quality


@cache
def _extractor(node: str) -> CachedExtractor:
    """Build the extractor of a config node, shared by all jobs of a sweep in this process."""
    cfg = OmegaConf.create(node)
    assert isinstance(cfg, DictConfig)
    return CachedExtractor(instantiate(cfg))


def _report(cfg: DictConfig, made: Synthetic, found: dict[str, Quality]) -> dict[str, Any]:
    """Content of ``quality.json``."""
    return {
        "gan": choice_of("gan", cfg),
        "recipe": str(cfg.recipe),
        "seed": int(cfg.seed),
        "held_out": str(cfg.held_out),
        "artifacts": sorted(set(made.origin["gan"])),
        "artifact": str(made.folder),
        "quality": {name: asdict(quality) for name, quality in found.items()},
    }

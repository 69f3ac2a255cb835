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
from leuk.data.audit import image_warnings
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import DataError, StoreError
from leuk.evaluate.features import CachedExtractor
from leuk.evaluate.image_quality import Quality
from leuk.evaluate.sheets import save_rows
from leuk.runs.balanced_set import MANIFEST, manifest_of, write_balanced_set
from leuk.runs.identity import choice_of, current_hydra, settings_of, synthesis_folder
from leuk.runs.launching import assign_devices
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
    """Refuse to replace synthetic images of other data or settings.

    Images of the same data and settings are reproduced exactly.

    Raises:
        StoreError: the folder has such images; the message names it.
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
    """Hashes of the settings and the data, which determine the output."""
    return {"settings": digest(settings_of(cfg)), "files": data.listing()}


def _would_be_lost(folder: Path) -> str:
    return (
        f"{folder}: holds images of other data or settings; choose another folder with "
        "name=NAME, or allow replacing them with replace=true"
    )


def run_synthesis(cfg: DictConfig) -> None:
    """Generate images with a GAN, balance the training stage with them, and measure their quality.

    Args:
        cfg: composed config of the job.

    Raises:
        DataError: nothing is to be generated, or a stage lacks a class for the comparison.
    """
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
    quality = {
        label.folder: _evaluate(cfg, data, synthetic, label, folder)
        for label in synthetic_labels(synthetic)
    }
    write_json(folder / FILE, _report(cfg, synthetic, quality) | _origin(cfg, data))
    log.info("%s: done in %s", folder, clock(time.perf_counter() - started))


def _write_balanced(
    target: Path, data: CNMCDataModule, synthetic: Synthetic, replace: bool
) -> None:
    """Write the balanced set, unless the folder already has it."""
    manifest = manifest_of(data, synthetic)
    if target.exists():
        path = target / MANIFEST
        if path.is_file() and path.read_text("utf-8") == csv_text(manifest):
            log.info("%d images, real and synthetic, already in %s", len(manifest), target)
            return
        if not replace:
            raise StoreError(_would_be_lost(target))
        shutil.rmtree(target)
    write_balanced_set(target, data, synthetic, manifest)
    log.info("%d images, real and synthetic, in %s", len(manifest), target)


def _evaluate(
    cfg: DictConfig, data: CNMCDataModule, synthetic: Synthetic, label: Label, folder: Path
) -> Quality:
    """Measure the quality of the synthetic images of a class, and write figures of them."""
    real = real_images(data, label, cfg.held_out)
    extractor = _extractor(OmegaConf.to_yaml(cfg.extractor, resolve=True))
    quality = evaluate_class(synthetic, label, real, extractor, int(cfg.seed))
    for warning in quality.warnings:
        log.warning("%s: %s", folder.name, warning)
    shown = shown_pair(synthetic, label, real)
    rows = {"real": shown["real"], "synthetic": shown["synthetic"]}
    save_rows(folder / f"images_{label.folder}.png", rows)
    near = quality.closest[:SHOWN]
    pairs = {
        "synthetic": synthetic.of(label)[[pair[0] for pair in near]],
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


def _report(cfg: DictConfig, synthetic: Synthetic, quality: dict[str, Quality]) -> dict[str, Any]:
    """Content of ``quality.json``."""
    return {
        "gan": choice_of("gan", cfg),
        "recipe": str(cfg.recipe),
        "seed": int(cfg.seed),
        "held_out": str(cfg.held_out),
        "artifacts": sorted(set(synthetic.origin["gan"])),
        "artifact": str(synthetic.folder),
        "quality": {name: asdict(found) for name, found in quality.items()},
    }

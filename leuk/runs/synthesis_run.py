"""One job of ``leuk synthesize``: data, GAN, made cells, balanced set, and how good they are."""

import logging
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
from leuk.errors import DataError
from leuk.evaluate.features import Remembering
from leuk.evaluate.image_quality import Quality
from leuk.evaluate.sheets import save_rows
from leuk.runs.balanced_set import write_balanced_set
from leuk.runs.identity import choice_of, current_hydra, synthesis_folder
from leuk.runs.launching import place
from leuk.runs.made_quality import (
    FILE,
    SHOWN,
    judge_class,
    made_labels,
    real_cells,
    save_pair,
    shown_pair,
)
from leuk.runs.progress import clock
from leuk.runs.synthesis import Synthetic, synthesise
from leuk.store.atomic import write_json

log = logging.getLogger(__name__)


def run_synthesis(cfg: DictConfig) -> None:
    """Make the cells of one GAN, balance the training part with them, and judge them.

    Raises:
        DataError: nothing is to be made, or a stage lacks a class to compare with.
    """
    folder = synthesis_folder(cfg, current_hydra())
    place(cfg, current_hydra())
    started = time.perf_counter()
    seed_everything(cfg.seed, workers=True, verbose=False)
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    data.prepare_data()
    data.setup()
    background = check_background(
        {stage: data.part(stage) for stage in STAGES}, data.dataset.store.thumbs
    )
    cuts = count_cuts(data.dataset.cells, data.dataset.store)
    for text in filter(None, (background, framing_warning(data.framing, cuts))):
        log.warning("%s: %s", folder.name, text)
    made = synthesise(cfg, data)
    if made is None:
        raise DataError(
            "healthy cells are not the fewer in the training part; say how many to make of each "
            "class: augmentation.count=N"
        )
    count = write_balanced_set(folder / "balanced", data, made)
    log.info("%d images, real and made, in %s", count, folder / "balanced")
    judged = {label.folder: _judge(cfg, data, made, label, folder) for label in made_labels(made)}
    write_json(folder / FILE, _report(cfg, made, judged))
    log.info("%s: done in %s", folder, clock(time.perf_counter() - started))


def _judge(
    cfg: DictConfig, data: CNMCDataModule, made: Synthetic, label: Label, folder: Path
) -> Quality:
    """Judge the made cells of one class, and leave pictures of them."""
    real = real_cells(data, label, cfg.held_out)
    extractor = _extractor(OmegaConf.to_yaml(cfg.extractor, resolve=True))
    quality = judge_class(made, label, real, extractor, int(cfg.seed))
    for warning in quality.warnings:
        log.warning("%s: %s", folder.name, warning)
    shown = shown_pair(made, label, real)
    save_rows(folder / f"cells_{label.folder}.png", shown)
    near = quality.closest[:SHOWN]
    pairs = {
        "made": made.of(label)[[pair[0] for pair in near]],
        "nearest\ntrained on": real.train[[pair[1] for pair in near]],
    }
    save_rows(folder / f"closest_{label.folder}.png", pairs)
    save_pair(folder, label, shown)
    return quality


@cache
def _extractor(node: str) -> Remembering:
    """The extractor of a config node, the same for all jobs of a sweep in this process."""
    cfg = OmegaConf.create(node)
    assert isinstance(cfg, DictConfig)
    return Remembering(instantiate(cfg))


def _report(cfg: DictConfig, made: Synthetic, judged: dict[str, Quality]) -> dict[str, Any]:
    """What ``quality.json`` holds."""
    return {
        "gan": choice_of("gan", cfg),
        "recipe": str(cfg.recipe),
        "seed": int(cfg.seed),
        "held_out": str(cfg.held_out),
        "artefacts": sorted(set(made.origin["gan"])),
        "cells": str(made.folder),
        "quality": {name: asdict(quality) for name, quality in judged.items()},
    }

"""One job of ``leuk synthesize``: data, GAN, made cells, balanced set, and how good they are."""

import logging
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import DataError
from leuk.evaluate.features import Remembering
from leuk.evaluate.image_quality import Quality, RealCells, judge
from leuk.evaluate.sheets import save_rows
from leuk.evaluate.vectors import Images
from leuk.runs.balanced_set import write_balanced_set
from leuk.runs.identity import choice_of, current_hydra, synthesis_folder
from leuk.runs.launching import place
from leuk.runs.progress import clock
from leuk.runs.synthesis import Synthetic, synthesise
from leuk.store.atomic import write_json

log = logging.getLogger(__name__)

FILE = "quality.json"
_SHOWN = 12


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
    made = synthesise(cfg, data)
    if made is None:
        raise DataError(
            "healthy cells are not the fewer in the training part; say how many to make of each "
            "class: augmentation.count=N"
        )
    count = write_balanced_set(folder / "balanced", data, made)
    log.info("%d images, real and made, in %s", count, folder / "balanced")
    judged = {
        label.folder: _judge(cfg, data, made, label, folder)
        for label in Label
        if (made.origin["label"] == label).any()
    }
    write_json(folder / FILE, _report(cfg, made, judged))
    log.info("%s: done in %s", folder, clock(time.perf_counter() - started))


def _judge(
    cfg: DictConfig, data: CNMCDataModule, made: Synthetic, label: Label, folder: Path
) -> Quality:
    """Judge the made cells of one class, and leave pictures of them."""
    of_label = (made.origin["label"] == label).to_numpy()
    own, others = made.pixels[of_label], made.pixels[~of_label]
    real = _real_cells(data, label, cfg.held_out)
    extractor = _extractor(OmegaConf.to_yaml(cfg.extractor, resolve=True))
    log.info("judging %d made %s cells by features of %s", len(own), label.folder, extractor.name)
    quality = judge(own, real, extractor, int(cfg.seed), others if len(others) else None)
    for warning in quality.warnings:
        log.warning("%s: %s", folder.name, warning)
    spread = np.linspace(0, len(real.reference) - 1, _SHOWN).astype(int)
    shown = {"real": real.reference[spread], "made": own[:_SHOWN]}
    save_rows(folder / f"cells_{label.folder}.png", shown)
    near = quality.closest[:_SHOWN]
    pairs = {
        "made": own[[pair[0] for pair in near]],
        "nearest\ntrained on": real.train[[pair[1] for pair in near]],
    }
    save_rows(folder / f"closest_{label.folder}.png", pairs)
    np.savez(folder / f"cells_{label.folder}.npz", **shown)
    return quality


@cache
def _extractor(node: str) -> Remembering:
    """The extractor of a config node, the same for all jobs of a sweep in this process."""
    cfg = OmegaConf.create(node)
    assert isinstance(cfg, DictConfig)
    return Remembering(instantiate(cfg))


def _real_cells(data: CNMCDataModule, label: Label, held_out: str) -> RealCells:
    other = next(one for one in Label if one != label)
    return RealCells(
        train=_cells(data, "train", label),
        train_other=_cells(data, "train", other),
        reference=_cells(data, held_out, label),
        reference_other=_cells(data, held_out, other),
    )


def _cells(data: CNMCDataModule, stage: str, label: Label) -> Images:
    cells = data.part(stage)
    rows = cells.index.to_numpy()[(cells["label"] == label).to_numpy()]
    if not len(rows):
        raise DataError(
            f"split: no {label.folder} cells in the {stage} part to compare made cells with; "
            "choose other parts, or another stage with held_out"
        )
    return np.asarray(data.dataset.data[rows])


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

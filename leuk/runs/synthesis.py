"""The GAN of a cell: fitted once per training part, kept as an artefact, and what it makes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from hydra.utils import get_class
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from torchvision.utils import save_image

from leuk.config.targets import instantiate
from leuk.data.datamodule import CellBatches, CNMCDataModule
from leuk.data.labels import Label
from leuk.gans.adversarial import Adversarial
from leuk.runs.fitting import build_named, build_trainer
from leuk.runs.identity import NEUTRAL
from leuk.store.artefacts import make_once

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of every GAN's key: raise it when fitting or sampling changes."""


_SHOWN = 64


@dataclass(frozen=True)
class Synthetic:
    """Cells made for a training part.

    Attributes:
        pixels: ``uint8 (N, R, R, 3)``.
        label: the class they were made of.
        gan: artefact of the GAN.
        folder: artefact of the cells.
    """

    pixels: npt.NDArray[np.uint8]
    label: Label
    gan: Path
    folder: Path


def balance(cfg: DictConfig, data: CNMCDataModule) -> Synthetic | None:
    """Make healthy cells until the training part has as many as leukemic ones.

    The GAN sees the training part's healthy cells and nothing else.

    Returns:
        None where healthy cells are not the fewer.
    """
    labels = data.part("train")["label"]
    missing = int((labels == Label.ALL).sum() - (labels == Label.HEM).sum())
    if missing <= 0:
        log.warning("augmentation: healthy cells are not the fewer here; nothing is made")
        return None
    artefacts = Path(cfg.outputs) / "artefacts"
    rows = data.split.train[labels.to_numpy() == Label.HEM]
    gan = make_once(
        artefacts, "gan", gan_key(cfg, data, rows), lambda to: _fit(cfg, data, rows, to)
    )
    key = {"format": FORMAT, "gan": gan.name, "count": missing, "seed": int(cfg.seed)}
    folder = make_once(artefacts, "synthetic", key, lambda to: _sample(cfg, gan, missing, to))
    pixels = np.load(folder / "cells.npy", mmap_mode="c")
    log.info("%d healthy cells from %s", missing, gan)
    return Synthetic(pixels, Label.HEM, gan, folder)


def gan_key(
    cfg: DictConfig, data: CNMCDataModule, rows: npt.NDArray[np.int64]
) -> dict[str, object]:
    """Everything that determines a fitted GAN: its form, its fitting, its cells and its seed."""
    return {
        "format": FORMAT,
        "gan": OmegaConf.to_container(cfg.gan, resolve=True),
        "gan_fit": OmegaConf.to_container(cfg.gan_fit, resolve=True),
        "trainer": _lasting(cfg.trainer),
        "channels_last": OmegaConf.select(cfg, "callbacks.channels_last.enabled"),
        "cells": data.content(rows),
        "seed": int(cfg.seed),
    }


def _lasting(trainer: DictConfig) -> dict[str, object]:
    """The settings of a trainer that change what is fitted; a GAN has epochs of its own."""
    values = OmegaConf.to_container(trainer, resolve=True)
    assert isinstance(values, dict)
    neutral = {name.removeprefix("trainer.") for name in NEUTRAL} | {"max_epochs"}
    return {str(name): value for name, value in values.items() if name not in neutral}


def _fit(cfg: DictConfig, data: CNMCDataModule, rows: npt.NDArray[np.int64], target: Path) -> None:
    """Fit a GAN on ``rows`` and leave its weights and loss curves in ``target``."""
    log.info("fitting %s on %d healthy training cells", cfg.gan._target_, len(rows))
    seed_everything(cfg.seed, workers=True, verbose=False)
    gan: Adversarial = instantiate(cfg.gan)
    batches = CellBatches(
        data.bank,
        rows,
        batch_size=cfg.gan_fit.batch_size,
        workers=cfg.data.workers,
        seed=cfg.seed,
    )
    trainer = build_trainer(
        cfg,
        target,
        list(build_named(cfg.callbacks, ("progress", "channels_last")).values()),
        max_epochs=cfg.gan_fit.epochs,
        enable_checkpointing=False,
        logger=CSVLogger(target, name="", version="log"),
    )
    trainer.fit(gan, datamodule=batches)
    trainer.save_checkpoint(target / "gan.ckpt", weights_only=True)


def _sample(cfg: DictConfig, gan_folder: Path, count: int, target: Path) -> None:
    form = get_class(cfg.gan._target_)
    assert issubclass(form, Adversarial)
    gan = form.load_from_checkpoint(gan_folder / "gan.ckpt", weights_only=True)
    cells = gan.sample(count, Label.HEM, seed=int(cfg.seed))
    np.save(target / "cells.npy", cells)
    shown = torch.from_numpy(cells[:_SHOWN]).permute(0, 3, 1, 2) / 255
    save_image(shown, target / "cells.png", nrow=_SHOWN // 8)

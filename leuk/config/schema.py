"""The keys that are leuk's own, with their types; nodes with a ``_target_`` are typed by it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from leuk.config.launchers import register_launchers
from leuk.config.nearest import hint
from leuk.config.used_later import ExportConfig, PredictConfig
from leuk.errors import ConfigError


@dataclass
class FitConfig:
    """How long a classifier is fitted, and which validation figure decides."""

    epochs: int = 30
    """Cap on passes over the training part."""
    patience: int = 5
    """Epochs without a better ``monitor`` before fitting stops."""
    monitor: str = "val/loss"
    """A logged validation figure."""
    mode: str = "min"
    """``min`` or ``max``: which direction of ``monitor`` is better."""
    equal_updates: bool = False
    """Whether an epoch draws as many images as there are real training images, whatever the
    augmentation adds, so that all augmentations get equally many optimizer updates; otherwise an
    epoch is a pass over all images, synthetic and repeated ones included."""
    standardise: bool = False
    """Whether images are standardised by the channel statistics of the training part."""
    compile: bool = False
    """Whether the network is compiled for training; meant for long fits on GPUs."""


@dataclass
class GANFitConfig:
    """How long a GAN is fitted, and on how many images at a time."""

    epochs: int = 225
    """Epochs of as many generator rounds as the training part has batches of the class.

    An epoch shows each image once per opponent step of a round.
    """
    batch_size: int = 32
    sample_every: int = 1
    """Epochs between two grids of made cells."""
    checkpoint_every: int = 1
    """Epochs between two checkpoints that a stopped fit goes on from."""
    compile: bool = False
    """Whether the networks are compiled; not worth it on a CPU (``tests/benchmarks/gans.py``)."""


@dataclass
class AugmentationConfig:
    """What is done about the smaller class."""

    name: str = "none"
    classes: list[str] = field(default_factory=lambda: ["hem"])
    """Of which classes cells are added: ``[hem]`` as in the thesis, or ``[hem,all]``, as many of
    each, so that being made says nothing of the class."""
    count: int | None = None
    """Cells added of each class; null for as many as healthy ones are missing."""


@dataclass
class GridConfig:
    """How a sweep treats its cells."""

    on_mismatch: str = "refuse"
    """What to do with a folder whose cell was made of other settings or data: ``refuse``, or
    ``rerun`` the cell and keep what was there under ``.replaced``."""
    fail_fast: bool = False
    """Whether no further cell is begun once one has failed."""


@dataclass
class TrainConfig:
    """One cell of the grid: ``leuk train``."""

    outputs: str = "outputs"
    """Everything written goes under this folder."""
    name: str = "single"
    """Folder of the sweep under ``outputs/runs``."""
    seed: int = 0
    """Decides initial weights, data order, dropout and sampling; 0 is a seed like any other."""
    grid: GridConfig = field(default_factory=GridConfig)
    recipe: str = MISSING
    """The form of model and GAN: ``thesis``, or ``small`` or ``strong`` at 64 px."""
    data: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    transforms: dict[str, Any] = field(default_factory=dict)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    gan: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    fit: FitConfig = field(default_factory=FitConfig)
    gan_fit: GANFitConfig = field(default_factory=GANFitConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    explain: dict[str, Any] = field(default_factory=dict)
    explain_cells: int = 16
    """How many test cells get pictures of their explanations."""
    checked_cells: int = 100
    """How many test cells are explained where explanations are checked, those among them."""
    explain_background: int = 64
    """How many training cells of both classes stand behind them, for methods that compare."""
    checks: dict[str, Any] = field(default_factory=dict)
    """What is measured of explanations, to tell whether they are right; it takes a while."""


@dataclass
class ExplainConfig:
    """Explanations of a finished cell of the grid, later: ``leuk explain``."""

    run: str = MISSING
    """Folder of the finished cell, below ``outputs/runs/<name>``."""
    images: str | None = None
    """Folder of cell images to explain, one image, or a text file with a path a line.

    Null for the test cells that the cell was judged on.
    """
    root: str | None = None
    """Where the images of the data set lie now, if they have moved since."""
    frame: str | None = None
    """Field of view that each image shows: ``same`` as the training images, or its longer side in
    pixels of the original frame or in µm, as ``data.frame``; null: of the training size."""
    pixel_size: float | None = None
    """Side of one pixel of the images, in pixels of the original frame (1 for images that were not
    resized) or in µm, as ``data.pixel_size``; in place of ``frame``."""
    name: str = "explanations"
    """Folder of the explanations, below ``run``; another name is put behind ``explanations-``."""
    replace: bool = False
    """Whether explanations of other methods, checks or images there may be lost."""
    outputs: str = "outputs"
    """Where Hydra notes a sweep; everything else is written below ``run``."""
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    explain: dict[str, Any] = field(default_factory=dict)
    explain_cells: int = 16
    """How many cells get pictures of their explanations."""
    checked_cells: int = 100
    """How many test cells are explained where explanations are checked, those among them."""
    explain_background: int = 64
    """How many training cells of both classes stand behind them, for methods that compare."""
    checks: dict[str, Any] = field(default_factory=dict)
    """What is measured of explanations, to tell whether they are right; it takes a while."""


@dataclass
class SynthesizeConfig:
    """The cells of one GAN, and how good they are: ``leuk synthesize``."""

    outputs: str = "outputs"
    """Everything written goes under this folder."""
    name: str = "single"
    """Folder of the sweep under ``outputs/synthetic``."""
    seed: int = 0
    """Decides initial weights, data order and sampling; 0 is a seed like any other."""
    recipe: str = MISSING
    """The form of the GAN: ``thesis``, ``small`` or ``strong``."""
    data: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    gan: dict[str, Any] = field(default_factory=dict)
    gan_fit: GANFitConfig = field(default_factory=GANFitConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    held_out: str = "test"
    """Stage whose subjects' cells made ones are compared with: ``test`` or ``val``."""
    extractor: dict[str, Any] = field(default_factory=dict)
    """What the features are that distances between sets of cells are measured in."""


@dataclass
class ReportConfig:
    """Tables of a finished or unfinished sweep: ``leuk report``."""

    outputs: str = "outputs"
    """Folder that the sweep wrote under."""
    name: str = "single"
    """The sweep: a folder under ``outputs/runs``."""
    latency_ms: float = 100.0
    """Milliseconds per image within which a model is fit for deployment; the hypothesis that claims
    efficiency is evaluated against it."""


@dataclass
class DataConfig:
    """What lies in a folder of cells: ``leuk data``."""

    outputs: str = "outputs"
    """Everything written goes under this folder."""
    name: str = MISSING
    """Folder of the audit under ``outputs/data``."""
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, Any] = field(default_factory=dict)
    """Recipes of conventional augmentation to show, by name."""


SMALLEST = {
    "seed": 0,
    "fit.epochs": 1,
    "fit.patience": 1,
    "gan_fit.epochs": 1,
    "gan_fit.sample_every": 1,
    "gan_fit.checkpoint_every": 1,
    "augmentation.count": 1,
    # Batch normalisation needs two.
    "data.batch_size": 2,
    "gan_fit.batch_size": 2,
    "explain_cells": 1,
    "checked_cells": 0,
    # One of each class.
    "explain_background": 2,
    "overlays": 0,
    "page_cells": 0,
    "batch_size": 1,
    "cells": 1,
}
"""The smallest value of each whole number of the schema."""

MONITORS = {"val/loss": "min", "val/prior_free_loss": "min", "val/auroc": "max"}
"""What a classifier logs of the validation part, and which direction of it is better."""

_LONGEST_NAME = 100

LARGEST_SEED = 2**32 - 1


def check_schema(cfg: DictConfig) -> None:
    """Refuse numbers out of range and names that are no folder's.

    Raises:
        ConfigError: naming the key, its value and what it takes.
    """
    for key, smallest in SMALLEST.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not isinstance(value, int):
            raise ConfigError(f"{key}={value}: it must be a whole number")
        if value is not None and value < smallest:
            raise ConfigError(f"{key}={value}: it must be {smallest} or more")
    if "seed" in cfg and cfg.seed > LARGEST_SEED:
        raise ConfigError(f"seed={cfg.seed}: it must be {LARGEST_SEED} or less")
    if len(cfg.name) > _LONGEST_NAME:
        raise ConfigError(f"name={cfg.name[:20]}...: at most {_LONGEST_NAME} letters")
    if not cfg.name or cfg.name != Path(cfg.name).name or cfg.name.startswith("."):
        raise ConfigError(f"name={cfg.name}: it names one folder, without / and not hidden")
    if cfg.get("grid") and cfg.grid.on_mismatch not in ("refuse", "rerun"):
        raise ConfigError(f"grid.on_mismatch={cfg.grid.on_mismatch}: it must be refuse or rerun")
    if cfg.get("held_out", "test") not in ("test", "val"):
        raise ConfigError(f"held_out={cfg.held_out}: it must be test or val")
    if cfg.get("fit") and cfg.fit.mode not in ("min", "max"):
        raise ConfigError(f"fit.mode={cfg.fit.mode}: it must be min or max")
    if cfg.get("fit") and cfg.fit.monitor not in MONITORS:
        raise ConfigError(f"fit.monitor={cfg.fit.monitor}: {hint(cfg.fit.monitor, MONITORS)}")
    if cfg.get("fit") and cfg.fit.mode != (better := MONITORS[cfg.fit.monitor]):
        raise ConfigError(
            f"fit.monitor={cfg.fit.monitor} and fit.mode={cfg.fit.mode}: the worst epoch would be "
            f"kept; set fit.mode={better}"
        )


def register() -> None:
    """Make the schemas known to Hydra as ``<command>_schema``, and the launchers."""
    register_launchers()
    store = ConfigStore.instance()
    store.store(name="data_schema", node=DataConfig)
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="explain_schema", node=ExplainConfig)
    store.store(name="synthesize_schema", node=SynthesizeConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="report_schema", node=ReportConfig)

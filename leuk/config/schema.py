"""Schemas of leuk's own config keys; nodes with a ``_target_`` have the types of its signature."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, DictConfig, OmegaConf
from pydantic import Field

from leuk.config import conf_dir
from leuk.config.options import register_options
from leuk.config.targets import hint
from leuk.errors import ConfigError

# --- Launchers for parallel runs, as options of ``hydra/launcher``

JOBLIB: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    # One run per GPU, or per core without GPUs.
    "n_jobs": "${leuk.jobs:${trainer.accelerator}}",
    "backend": None,
    "prefer": "processes",
    "require": None,
    "verbose": 0,
    "timeout": None,
    # Dispatch a run only when a process is free for it.
    "pre_dispatch": "n_jobs",
    "batch_size": 1,
    "temp_folder": None,
    "max_nbytes": None,
    "mmap_mode": "r",
}

_SUBMITIT: dict[str, Any] = {
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    # One day; a run that is cut off resumes from its last epoch when the sweep is started again.
    "timeout_min": 1440,
    "cpus_per_task": None,
    "gpus_per_node": None,
    "tasks_per_node": 1,
    "mem_gb": None,
    "nodes": 1,
    "name": "${hydra.job.name}",
    "stderr_to_stdout": True,
}

LOCAL: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    **_SUBMITIT,
}

SLURM: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    **_SUBMITIT,
    "partition": None,
    "qos": None,
    "comment": None,
    "constraint": None,
    "exclude": None,
    "gres": None,
    "cpus_per_gpu": None,
    "gpus_per_task": None,
    "mem_per_gpu": None,
    "mem_per_cpu": None,
    "account": None,
    "signal_delay_s": 120,
    "max_num_timeout": 0,
    "additional_parameters": {},
    "array_parallelism": 256,
    "setup": None,
}


def register_launchers() -> None:
    """Register the launchers with Hydra, replacing the plugins' own defaults."""
    Plugins.instance()  # discovers the plugins, which register their defaults once
    store = ConfigStore.instance()
    group = "hydra/launcher"
    store.store(group=group, name="joblib", node=JOBLIB)
    store.store(group=group, name="submitit_local", node=LOCAL)
    store.store(group=group, name="submitit_slurm", node=SLURM)


# --- Types with value ranges; configs are validated against them before any work

Count = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

Counts = Annotated[Sequence[Count], Len(1)]
"""A non-empty sequence of whole numbers, each 1 or more."""

CountOrZero = Annotated[int, Field(ge=0)]
"""A whole number, 0 or more."""

Share = Annotated[float, Field(ge=0, lt=1)]
"""A share, 0 or more and below 1."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number, 0 or more."""


# --- Schemas of the commands that use a finished run


@dataclass
class PredictConfig:
    """Config of ``leuk predict``, predictions for new images by a finished run."""

    run: str = MISSING
    """Folder of the finished run, under ``outputs/runs/<name>``."""
    images: str = MISSING
    """Image folder, a single image, or a text file with a path per line."""
    root: str | None = None
    """New location of the data set's images, if they have moved; needed once."""
    frame: str | None = None
    """Field of view that each image shows: ``same`` as the training images, or its longer side in
    pixels of the original frame or in µm, as ``data.frame``; null if the images have the
    size of training images."""
    pixel_size: float | None = None
    """Side of one pixel of the images, in pixels of the original frame (1 for images that were not
    resized) or in µm, as ``data.pixel_size``; in place of ``frame``."""
    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = MISSING
    """Folder of the predictions under ``outputs/predictions``; by default named like the images."""
    replace: bool = False
    """Replace existing predictions of the same run for these images."""
    threshold: str = "youden"
    """Decision threshold: ``youden`` or ``sensitivity`` (0.95), chosen on validation images;
    or ``0.5``."""
    aim: float = 0.95
    """Required share of correct decisions outside the band of scores that are referred to an
    expert. Must hold with 95 % confidence on validation patients; else all images are referred.
    """
    familiarity: bool = True
    """Compare images with the run's training images, which must be readable the first time."""
    overlays: int = 16
    """Number of images, from the start, with a figure of their Grad-CAM."""
    page_images: int = 200
    """Number of images on the page; the table contains all."""
    batch_size: int = 256
    """Images per forward pass."""
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class ExportConfig:
    """Config of ``leuk export``, the classifier of a finished run for use without leuk."""

    run: str = MISSING
    """Folder of the finished run, under ``outputs/runs/<name>``."""
    root: str | None = None
    """New location of the data set's images, if they have moved."""
    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = MISSING
    """Folder of the models under ``outputs/exports``; the name of the run's sweep by default."""
    replace: bool = False
    """Replace an existing exported model of the same run."""
    format: str = "onnx"
    """``onnx``, ``torchscript`` or ``safetensors``."""
    test_images: int = 64
    """Number of test images on which the exported model is compared with the original."""
    tolerance: float = 1e-4
    """Largest allowed difference between logits."""


@dataclass
class FitConfig:
    """Training of a classifier: duration and model selection."""

    epochs: int = 30
    """Maximum number of epochs."""
    patience: int = 5
    """Epochs without improvement of ``monitor`` before training stops."""
    monitor: str = "val/loss"
    """Validation metric that selects the best weights, a key of :data:`MONITORS`."""
    mode: str = "min"
    """``min`` or ``max``, the better direction of ``monitor``."""
    equal_updates: bool = False
    """Draw as many images per epoch as the split has real training images, so that all
    augmentations get the same number of optimizer updates. Otherwise, an epoch is a pass over all
    images, synthetic and repeated ones included."""
    standardize: bool = False
    """Standardize images by the channel statistics of the training images."""
    compile: bool = False
    """Compile the network for training; worthwhile for long training on GPUs."""


@dataclass
class GANFitConfig:
    """Training of a GAN: duration, batch size, samples and checkpoints."""

    epochs: int = 225
    """Number of epochs, each with as many generator rounds as the class has training batches.

    An epoch shows each image once per adversary step of a round.
    """
    batch_size: int = 32
    sample_every: int = 1
    """Epochs between grids of synthetic images."""
    checkpoint_every: int = 1
    """Epochs between checkpoints for resuming."""
    compile: bool = False
    """Compile the networks; not worthwhile on a CPU (``tests/benchmarks/training.py``)."""


@dataclass
class AugmentationConfig:
    """Augmentation of the training images against class imbalance."""

    name: str = "none"
    kind: str = "none"
    """``none``, ``control`` without synthetic images, or ``gan``."""
    classes: list[str] = field(default_factory=lambda: ["hem"])
    """Classes of the added images: ``[hem]`` as in the thesis, or ``[hem,all]`` with the same
    number of each, so that being synthetic carries no information on the class."""
    count: int | None = None
    """Images to add per class; null for the difference between leukemic and healthy images."""


@dataclass
class GridConfig:
    """Behavior of a sweep."""

    on_mismatch: str = "refuse"
    """Treatment of a run folder with other settings or data: ``refuse``, or ``rerun`` and move the
    old results to ``.replaced``."""
    fail_fast: bool = False
    """Start no further runs after a failure."""


@dataclass
class TrainConfig:
    """Config of ``leuk train``, a run."""

    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = "single"
    """Folder of the sweep under ``outputs/runs``."""
    seed: int = 0
    """Seed of initial weights, data order, dropout and sampling."""
    grid: GridConfig = field(default_factory=GridConfig)
    recipe: str = MISSING
    """Variant of model and GAN: ``thesis``, or ``small`` or ``strong`` at 64 px."""
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
    explain_images: int = 16
    """Number of test images with figures of their explanations."""
    checked_images: int = 100
    """Number of test images to explain if ``checks`` is set, those with figures included."""
    explain_background: int = 64
    """Number of training images, of both classes, for methods that compare with a background."""
    checks: dict[str, Any] = field(default_factory=dict)
    """Quality checks of the explanations; these take time."""


@dataclass
class ExplainConfig:
    """Config of ``leuk explain``, explanations of a finished run."""

    run: str = MISSING
    """Folder of the finished run, under ``outputs/runs/<name>``."""
    images: str | None = None
    """Image folder to explain, a single image, or a text file with a path per line.

    Null for the test images of the run.
    """
    root: str | None = None
    """New location of the data set's images, if they have moved."""
    frame: str | None = None
    """Field of view that each image shows: ``same`` as the training images, or its longer side in
    pixels of the original frame or in µm, as ``data.frame``; null if the images have the
    size of training images."""
    pixel_size: float | None = None
    """Side of one pixel of the images, in pixels of the original frame (1 for images that were not
    resized) or in µm, as ``data.pixel_size``; in place of ``frame``."""
    name: str = "explanations"
    """Output folder, below ``run``; names other than the default get the prefix ``explanations-``.
    """
    replace: bool = False
    """Replace existing explanations of other methods, checks or images."""
    outputs: str = "outputs"
    """Folder for Hydra's files of a sweep; all other output is written below ``run``."""
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    explain: dict[str, Any] = field(default_factory=dict)
    explain_images: int = 16
    """Number of images with figures of their explanations."""
    checked_images: int = 100
    """Number of test images to explain if ``checks`` is set, those with figures included."""
    explain_background: int = 64
    """Number of training images, of both classes, for methods that compare with a background."""
    checks: dict[str, Any] = field(default_factory=dict)
    """Quality checks of the explanations; these take time."""


@dataclass
class SynthesizeConfig:
    """Config of ``leuk synthesize``, synthetic images of a GAN and their quality."""

    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = "single"
    """Folder of the sweep under ``outputs/synthetic``."""
    replace: bool = False
    """Replace existing synthetic images of other data or settings."""
    seed: int = 0
    """Seed of initial weights, data order and sampling."""
    recipe: str = MISSING
    """Variant of the GAN: ``thesis``, ``small`` or ``strong``."""
    data: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    gan: dict[str, Any] = field(default_factory=dict)
    gan_fit: GANFitConfig = field(default_factory=GANFitConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    held_out: str = "test"
    """Stage with the real images for comparison: ``test`` or ``val``."""
    extractor: dict[str, Any] = field(default_factory=dict)
    """Feature extractor for distances between sets of images."""


@dataclass
class ReportConfig:
    """Config of ``leuk report``, tables of a finished or unfinished sweep."""

    outputs: str = "outputs"
    """Root folder of the sweep's output."""
    name: str = "single"
    """Folder of the sweep under ``outputs/runs``."""
    latency_ms: float = 100.0
    """Maximum latency for deployment in milliseconds per image, the bound of the
    efficiency hypothesis."""


@dataclass
class DataConfig:
    """Config of ``leuk data``, an audit of an image folder."""

    outputs: str = "outputs"
    """Root folder of all output."""
    name: str = MISSING
    """Folder of the audit under ``outputs/data``."""
    replace: bool = False
    """Replace the existing audit of another folder."""
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, Any] = field(default_factory=dict)
    """Conventional augmentations to show in the audit, by name."""


SMALLEST = {
    "seed": 0,
    "fit.epochs": 1,
    "fit.patience": 1,
    "gan_fit.epochs": 1,
    "gan_fit.sample_every": 1,
    "gan_fit.checkpoint_every": 1,
    "augmentation.count": 1,
    # Batch normalization needs two images.
    "data.batch_size": 2,
    "gan_fit.batch_size": 2,
    "explain_images": 1,
    "checked_images": 0,
    # A training image per class.
    "explain_background": 2,
    "overlays": 0,
    "page_images": 0,
    "batch_size": 1,
    "test_images": 1,
}
"""Minimum of each integer key of the schemas."""

MONITORS = {"val/loss": "min", "val/prior_free_loss": "min", "val/auroc": "max"}
"""Logged validation metrics and their better direction."""

_LONGEST_NAME = 100

LARGEST_SEED = 2**32 - 1


def check_schema(cfg: DictConfig) -> None:
    """Refuse numbers out of range and names that cannot be a folder.

    Raises:
        ConfigError: a value is refused; the message lists the allowed values.
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
        raise ConfigError(f"name={cfg.name[:20]}...: over {_LONGEST_NAME} characters; shorten it")
    if not cfg.name or cfg.name != Path(cfg.name).name or cfg.name.startswith("."):
        raise ConfigError(
            f"name={cfg.name}: it must name a single folder, without / and not hidden"
        )
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
            f"fit.monitor={cfg.fit.monitor} and fit.mode={cfg.fit.mode}: this would keep the worst "
            f"epoch; set fit.mode={better}"
        )


def register() -> None:
    """Register the schemas with Hydra as ``<command>_schema``, derived options and launchers."""
    register_launchers()
    register_options(conf_dir())
    store = ConfigStore.instance()
    store.store(name="data_schema", node=DataConfig)
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="explain_schema", node=ExplainConfig)
    store.store(name="synthesize_schema", node=SynthesizeConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="report_schema", node=ReportConfig)

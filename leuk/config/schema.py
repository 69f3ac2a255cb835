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

Node = dict[str, Any]
"""A node that a config group fills."""


# --- Keys that commands share


@dataclass
class _Command:
    outputs: str = "outputs"  # root folder of all output
    name: str = "single"  # folder of the results, below that of the command


@dataclass
class _OnImages(_Command):
    seed: int = 0  # of initial weights, data order, dropout and sampling
    data: Node = field(default_factory=dict)
    split: Node = field(default_factory=dict)


@dataclass
class AugmentationConfig:
    """Augmentation of the training images against class imbalance."""

    name: str = "none"
    kind: str = "none"  # none, control without synthetic images, or gan
    # Classes of the added images: [hem] as in the thesis, or [hem,all] with the same number of
    # each, so that being synthetic carries no information on the class.
    classes: list[str] = field(default_factory=lambda: ["hem"])
    # Images to add per class; null for the difference between leukemic and healthy images.
    count: int | None = None


@dataclass
class GANFitConfig:
    """Training of a GAN: duration, batch size, samples and checkpoints."""

    # Each epoch has as many generator rounds as the class has training batches, and shows each
    # image once per adversary step of a round.
    epochs: int = 225
    batch_size: int = 32
    sample_every: int = 1  # epochs between grids of synthetic images
    checkpoint_every: int = 1  # epochs between checkpoints for resuming
    compile: bool = False  # not worthwhile on a CPU (tests/benchmarks/training.py)


@dataclass
class _Trained(_OnImages):
    recipe: str = MISSING  # variant of model and GAN: thesis, or small or strong at 64 px
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    gan: Node = field(default_factory=dict)
    gan_fit: GANFitConfig = field(default_factory=GANFitConfig)
    trainer: Node = field(default_factory=dict)
    callbacks: Node = field(default_factory=dict)


@dataclass
class _Explained:
    explain: Node = field(default_factory=dict)
    explain_images: int = 16  # images with figures of their explanations
    # Test images to explain if checks is set, those with figures included.
    checked_images: int = 100
    # Training images, of both classes, for methods that compare with a background.
    explain_background: int = 64
    checks: Node = field(
        default_factory=dict
    )  # quality checks of the explanations; these take time


@dataclass
class _OfRun(_Command):
    run: str = MISSING  # folder of the finished run, under outputs/runs/NAME
    root: str | None = None  # new location of the data set's images, if they have moved
    replace: bool = False  # replace results of this run that the new ones would not reproduce


@dataclass
class _OnNewImages(_OfRun):
    # Field of view that each image shows: same as the training images, or its longer side in pixels
    # of the original frame or in µm, as data.frame; null if the images have the size of training
    # images.
    frame: str | None = None
    # In place of frame, the side of one pixel of the images, in pixels of the original frame (1 for
    # images that were not resized) or in µm, as data.pixel_size.
    pixel_size: float | None = None
    trainer: Node = field(default_factory=dict)
    callbacks: Node = field(default_factory=dict)


# --- Commands


@dataclass
class FitConfig:
    """Training of a classifier: duration and model selection."""

    epochs: int = 30  # at most
    patience: int = 5  # epochs without improvement of monitor before training stops
    monitor: str = "val/loss"  # validation metric that selects the best weights
    mode: str = "min"  # min or max, the better direction of monitor
    # Draw as many images per epoch as the split has real training images, so that all augmentations
    # get the same number of optimizer updates. Otherwise, an epoch is a pass over all images,
    # synthetic and repeated ones included.
    equal_updates: bool = False
    standardize: bool = False  # images by the channel statistics of the training images
    compile: bool = False  # worthwhile for long training on GPUs


@dataclass
class GridConfig:
    """Behavior of a sweep."""

    # Treatment of a run folder with other settings or data: refuse, or rerun and move the old
    # results to .replaced.
    on_mismatch: str = "refuse"
    fail_fast: bool = False  # start no further runs after a failure


@dataclass
class TrainConfig(_Explained, _Trained):
    """Config of ``leuk train``, a run; ``name`` is its folder under ``outputs/runs``."""

    grid: GridConfig = field(default_factory=GridConfig)
    transforms: Node = field(default_factory=dict)
    model: Node = field(default_factory=dict)
    fit: FitConfig = field(default_factory=FitConfig)
    logger: Node = field(default_factory=dict)


@dataclass
class SynthesizeConfig(_Trained):
    """Config of ``leuk synthesize``; ``name`` is the folder under ``outputs/synthetic``."""

    replace: bool = False  # replace synthetic images of other data or settings
    held_out: str = "test"  # stage with the real images for comparison: test or val
    extractor: Node = field(
        default_factory=dict
    )  # of features, for distances between sets of images


@dataclass
class PredictConfig(_OnNewImages):
    """Config of ``leuk predict``; ``name`` is the folder under ``outputs/predictions``."""

    name: str = MISSING  # by default named like the images
    images: str = MISSING  # image folder, a single image, or a text file with a path per line
    # Decision threshold: youden or sensitivity (0.95), chosen on validation images; or 0.5.
    threshold: str = "youden"
    # Required share of correct decisions outside the band of scores that are referred to an expert.
    # Must hold with 95 % confidence on validation patients; else all images are referred.
    aim: float = 0.95
    # Patient of each image, for a table by patient: a CSV file with columns image and patient, a
    # regular expression on the image name with a group, or cnmc for C-NMC's names; null for none.
    patients: str | None = None
    familiarity: bool = True  # compare with the training images, which must be readable once
    overlays: int = 16  # images, from the start, with a figure of their Grad-CAM
    page_images: int = 200  # images on the page; the table contains all
    batch_size: int = 256  # images per forward pass


@dataclass
class ExplainConfig(_Explained, _OnNewImages):
    """Config of ``leuk explain``; all output but Hydra's files of a sweep is below ``run``.

    ``name`` is its folder there; names other than the default get the prefix ``explanations-``.
    """

    name: str = "explanations"
    images: str | None = None  # as of leuk predict; null for the test images of the run


@dataclass
class ExportConfig(_OfRun):
    """Config of ``leuk export``; ``name`` is the folder under ``outputs/exports``."""

    name: str = MISSING  # that of the run's sweep by default
    format: str = "onnx"  # onnx, torchscript or safetensors
    test_images: int = 64  # on which the exported model is compared with the original
    tolerance: float = 1e-4  # largest allowed difference between logits


@dataclass
class ReportConfig(_Command):
    """Config of ``leuk report``; ``name`` is a sweep's folder under ``outputs/runs``."""

    # Maximum for deployment in milliseconds per image, the bound of the efficiency hypothesis.
    latency_ms: float = 100.0


@dataclass
class DataConfig(_OnImages):
    """Config of ``leuk data``; ``name`` is the folder under ``outputs/data``."""

    name: str = MISSING
    replace: bool = False  # replace the audit of another folder
    sheets: Node = field(default_factory=dict)  # conventional augmentations to show, by name


SCHEMAS = {
    "data": DataConfig,
    "train": TrainConfig,
    "explain": ExplainConfig,
    "synthesize": SynthesizeConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "report": ReportConfig,
}

# --- Ranges

SMALLEST = {
    "seed": 0,
    "fit.epochs": 1,
    "fit.patience": 1,
    "gan_fit.epochs": 1,
    "gan_fit.sample_every": 1,
    "gan_fit.checkpoint_every": 1,
    "augmentation.count": 1,
    "data.batch_size": 2,  # batch normalization needs two images
    "gan_fit.batch_size": 2,
    "explain_images": 1,
    "checked_images": 0,
    "explain_background": 2,  # a training image per class
    "overlays": 0,
    "page_images": 0,
    "batch_size": 1,
    "test_images": 1,
}
"""Minimum of each integer key of the schemas."""

CHOICES = {
    "grid.on_mismatch": ("refuse", "rerun"),
    "held_out": ("test", "val"),
    "fit.mode": ("min", "max"),
}
"""Values of each key of the schemas that has two."""

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
    for key, (one, other) in CHOICES.items():
        if (value := OmegaConf.select(cfg, key, default=one)) not in (one, other):
            raise ConfigError(f"{key}={value}: it must be {one} or {other}")
    if fit := cfg.get("fit"):
        if fit.monitor not in MONITORS:
            raise ConfigError(f"fit.monitor={fit.monitor}: {hint(fit.monitor, MONITORS)}")
        if fit.mode != (better := MONITORS[fit.monitor]):
            raise ConfigError(
                f"fit.monitor={fit.monitor} and fit.mode={fit.mode}: this would keep the worst "
                f"epoch; set fit.mode={better}"
            )


# --- Launchers for parallel runs, as options of ``hydra/launcher``

JOBLIB: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    # One run per GPU, or per core without GPUs.
    "n_jobs": "${leuk.jobs:${trainer.accelerator}}",
    "prefer": "processes",
    "verbose": 0,
    # Dispatch a run only when a process is free for it.
    "pre_dispatch": "n_jobs",
    "batch_size": 1,
    "mmap_mode": "r",
    **dict.fromkeys(("backend", "require", "timeout", "temp_folder", "max_nbytes")),
}

LOCAL: dict[str, Any] = {
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    # One day; a run that is cut off resumes from its last epoch when the sweep is started again.
    "timeout_min": 1440,
    "tasks_per_node": 1,
    "nodes": 1,
    "name": "${hydra.job.name}",
    "stderr_to_stdout": True,
    **dict.fromkeys(("cpus_per_task", "gpus_per_node", "mem_gb")),
}

_SLURM = "partition qos comment constraint exclude gres cpus_per_gpu gpus_per_task mem_per_gpu "
_SLURM += "mem_per_cpu account setup"
SLURM: dict[str, Any] = {
    **LOCAL,
    "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "signal_delay_s": 120,
    "max_num_timeout": 0,
    "additional_parameters": {},
    "array_parallelism": 256,
    **dict.fromkeys(_SLURM.split()),
}


def register() -> None:
    """Register the schemas with Hydra as ``<command>_schema``, derived options and launchers."""
    Plugins.instance()  # discovers the plugins of the launchers, whose own defaults are replaced
    register_options(conf_dir())
    store = ConfigStore.instance()
    for name, node in {"joblib": JOBLIB, "submitit_local": LOCAL, "submitit_slurm": SLURM}.items():
        store.store(group="hydra/launcher", name=name, node=node)
    for command, schema in SCHEMAS.items():
        store.store(name=f"{command}_schema", node=schema)

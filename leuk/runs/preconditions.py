"""Checks before any work: components can be built, data exist, folders can be written."""

import logging
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.data.scale import check_sizes
from leuk.errors import ConfigError, DataError, StoreError
from leuk.explain.base import possible_explainers
from leuk.metrics.synthetic.distances import FEWEST
from leuk.runs.gan import classes_of
from leuk.runs.record import Record
from leuk.runs.run import choice_of, folder_of, initial_record, listing_of, uses_gan
from leuk.runs.state import LOCK, Found, State, inspect_folder, sole_use
from leuk.runs.trainer import build_named, build_trainer, check_device
from leuk.store import ensure_writable

log = logging.getLogger(__name__)

LOG = "leuk.log"
"""File in a run's folder, as configured in ``hydra.job_logging``."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Allowed precisions of training; the others store the weights in 16 or 64 bits."""

REPLACED = ".replaced"
"""Subfolder of a sweep for folders of runs that are repeated with other settings."""

LAUNCHERS = {
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}
"""Package that a launcher requires, and the extra that installs it."""

LOGGERS = {
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
}
"""Package that each of Lightning's loggers requires; the extra ``loggers`` installs all."""

# Lightning logs the devices of every trainer, including those that are only built as a check.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def check_components(cfg: DictConfig) -> None:
    """Build the components of a run, networks without memory, to find errors early."""
    epochs, every = cfg.fit.epochs, cfg.trainer.get("check_val_every_n_epoch")
    for refused, message in (
        (
            cfg.augmentation.name != choice_of("augmentation", cfg),
            f"augmentation.name={cfg.augmentation.name}: the name follows from the option; set "
            "augmentation=NAME",
        ),
        (
            cfg.model.resolution != cfg.data.resolution,
            f"model.resolution={cfg.model.resolution} and data.resolution={cfg.data.resolution}: "
            "set only data.resolution",
        ),
        # Training would end without a checkpoint of the best weights.
        (
            cfg.callbacks.get("checkpoint") is None,
            "callbacks.checkpoint=null: the weights would be lost, so that the run could not be "
            "explained or used for prediction; keep the default",
        ),
        (
            cfg.trainer.get("fast_dev_run"),
            f"trainer.fast_dev_run={cfg.trainer.get('fast_dev_run')}: Lightning then saves no "
            "checkpoint; for a short run set fit.epochs=1",
        ),
        (
            every is not None and every > epochs,
            f"trainer.check_val_every_n_epoch={every}: no validation in {epochs} epochs, so no "
            f"checkpoint; set {epochs} or less",
        ),
        (
            cfg.trainer.get("limit_val_batches") == 0,
            "trainer.limit_val_batches=0: without validation there is no checkpoint; set 1 or more",
        ),
    ):
        if refused:
            raise ConfigError(message)
    _check_parts(cfg, with_gan=uses_gan(cfg))
    with torch.device("meta"):
        classifier = instantiate(cfg.model)
    possible_explainers(build_named(cfg.explain), classifier)
    for name, node in cfg.logger.items():
        package = LOGGERS.get(str(node._target_).rpartition(".")[2]) if node is not None else None
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"logger.{name}: {package} is not installed; pip install 'leuk[loggers]', or "
                "choose logger=csv"
            )
    _check_trainer(cfg)


def check_synthesis(cfg: DictConfig) -> None:
    """Build the components of ``leuk synthesize`` to find errors early."""
    _check_parts(cfg, with_gan=True)
    if cfg.augmentation.count is not None and cfg.augmentation.count < FEWEST:
        raise ConfigError(
            f"augmentation.count={cfg.augmentation.count}: distances between sets need {FEWEST} "
            f"images of each class; set {FEWEST} or more"
        )
    instantiate(cfg.extractor)
    _check_trainer(cfg)


def _check_parts(cfg: DictConfig, with_gan: bool) -> None:
    check_root(cfg)
    instantiate(cfg.split).check()
    if with_gan:
        with torch.device("meta"):
            instantiate(cfg.gan)
    classes_of(cfg)


def check_launcher(cfg: DictConfig) -> None:
    """Refuse a launcher that is not installed, or SLURM on a host without it."""
    name = _launcher_of(cfg)
    if name not in LAUNCHERS:
        return
    package, extra = LAUNCHERS[name]
    try:
        installed = find_spec(package) is not None
    except ModuleNotFoundError:  # a parent package is missing
        installed = False
    if not installed:
        raise ConfigError(f"hydra/launcher={name}: not installed; pip install 'leuk[{extra}]'")
    lacking = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if name == "submitit_slurm" and lacking:
        raise ConfigError(
            f"hydra/launcher={name}: no SLURM on this host ({', '.join(lacking)} not found); start "
            "it on a login node, or choose hydra/launcher=joblib"
        )


def _launcher_of(cfg: DictConfig) -> str:
    return str(cfg.hydra.runtime.choices.get("hydra/launcher", "basic"))


def check_paths(configs: Sequence[DictConfig], folders: Sequence[Path]) -> None:
    """Refuse jobs that write to the same folder, or to a folder without write permission."""
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs of this sweep would write to this folder")
    for outputs in {str(cfg.outputs) for cfg in configs}:
        ensure_writable(Path(outputs), "outputs")
    for folder in folders:
        if folder.is_dir():
            ensure_writable(folder, "outputs")
            # Existing files can be another user's.
            for file in (folder / LOCK, folder / LOG):
                if file.exists() and not os.access(file, os.W_OK, effective_ids=True):
                    raise StoreError(
                        f"{file}: cannot be written (Permission denied); ask its owner for "
                        "permission, or choose another folder with outputs=DIR"
                    )


def _check_trainer(cfg: DictConfig) -> None:
    # Jobs that run on other hosts use the devices of those.
    elsewhere = _launcher_of(cfg) == "submitit_slurm"
    changes = {"accelerator": "cpu", "devices": 1} if elsewhere else {}
    if not changes:
        check_device(cfg)
    trainer = build_trainer(cfg, Path(), [], logger=False, enable_checkpointing=False, **changes)
    if str(cfg.trainer.precision) not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision={cfg.trainer.precision}: the losses need float32 weights; choose "
            f"{', '.join(PRECISIONS)}"
        )
    together = trainer.num_devices * trainer.num_nodes > 1
    spawned = trainer.num_nodes == 1 and isinstance(
        trainer.strategy.launcher, _MultiProcessingLauncher
    )
    # Otherwise, Lightning starts the command again per device, and each waits for the run's lock.
    if together and not spawned:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: to train one run on all devices, set "
            "trainer=ddp; for one run per device, trainer.devices=1 and hydra/launcher=joblib"
        )
    if together and cfg.get("fit") and cfg.fit.compile:
        raise ConfigError("fit.compile=true: impossible on several devices; set fit.compile=false")


def check_root(cfg: DictConfig) -> None:
    """Refuse an image folder that does not exist."""
    if "root" in cfg.data and not Path(cfg.data.root).expanduser().is_dir():
        raise DataError(
            f"data.root={cfg.data.root}: no such folder; set the folder of the C-NMC images"
        )


def check_image_sizes(configs: Sequence[DictConfig]) -> None:
    """Refuse folders whose training images differ in size without a known scale."""
    sources = {
        (str(data.root), str(data.framing), data.get("frame"), data.get("pixel_size"))
        for data in (cfg.data for cfg in configs)
        if "root" in data
    }
    for root, framing, frame, pixel_size in sorted(sources, key=str):
        check_sizes(Path(root).expanduser(), framing, frame, pixel_size)


def check_existing(cfg: DictConfig) -> bool:
    """Refuse a folder with a run of other settings or data, unless that run is to be repeated.

    Returns:
        True if the folder has to be moved first, see :func:`set_aside`.

    Raises:
        StoreError: the message gives the folder, the differences and a remedy.
    """
    found = inspect(cfg)
    if found.state == State.UNREADABLE:
        raise StoreError(found.message)
    if found.state != State.OTHER or found.record is None:
        return False
    if cfg.grid.on_mismatch == "rerun":
        return True
    same = found.record.fingerprint == initial_record(cfg, cfg.hydra).fingerprint
    difference = "on other data, " if same else "with other settings: "
    raise StoreError(
        f"{folder_of(cfg, cfg.hydra)}: {found.record.status} {difference}{found.message}; choose "
        "another name for this sweep, name=NAME, or repeat the run with grid.on_mismatch=rerun, "
        f"which moves the existing folder to {REPLACED}"
    )


def inspect(cfg: DictConfig) -> Found:
    """Inspect the state of a run; a complete run on other data counts as one of other settings."""
    folder, expected = folder_of(cfg, cfg.hydra), initial_record(cfg, cfg.hydra)
    found = inspect_folder(folder, expected)
    if found.state == State.COMPLETE and found.record is not None:
        now = listing_of(cfg)
        if now not in (None, found.record.data.get("files")):
            return Found(State.OTHER, f"{cfg.data.get('root')} has changed since", found.record)
    return found


def set_aside(cfg: DictConfig) -> None:
    """Move a run's folder to the sweep's :data:`REPLACED`, so that the run can be repeated."""
    folder = folder_of(cfg, cfg.hydra)
    with sole_use(folder):
        name, number = f"{folder.name}-{Record.read(folder).fingerprint}", 1
        kept = folder.parent / REPLACED / name
        while kept.exists():
            number += 1
            kept = kept.with_name(f"{name}-{number}")
        kept.parent.mkdir(exist_ok=True)
        folder.rename(kept)
    log.warning("%s: has other settings; moved to %s", folder.name, kept)

"""Checks before any work: components can be built, data exist, folders can be written."""

import logging
import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.scale import check_sizes
from leuk.errors import ConfigError, DataError, StoreError
from leuk.explain.base import possible_explainers
from leuk.metrics.synthetic.distances import FEWEST
from leuk.runs.gan import classes_of
from leuk.runs.launching import runs_elsewhere
from leuk.runs.record import Record
from leuk.runs.run import choice_of, folder_of, initial_record, uses_gan
from leuk.runs.state import LOCK, Found, State, inspect_folder
from leuk.runs.trainer import build_named, build_trainer, check_device, check_loggers
from leuk.store import MissingArtifactError, ensure_writable, read_only

log = logging.getLogger(__name__)

LOG = "leuk.log"
"""File in a run's folder, as configured in ``hydra.job_logging``."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Allowed precisions of training; the others store the weights in 16 or 64 bits."""

REPLACED = ".replaced"
"""Subfolder of a sweep for folders of runs that are repeated with other settings."""

# Lightning logs the devices of every trainer, including those that are only built as a check.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def check_components(cfg: DictConfig) -> None:
    """Build the components of a run, networks without memory, to find errors early.

    Raises:
        ConfigError: a component refuses an argument, or two keys contradict each other.
        DataError: the image folder does not exist, or no data can satisfy the split.
    """
    chosen = choice_of("augmentation", cfg)
    if cfg.augmentation.name != chosen:
        raise ConfigError(
            f"augmentation.name={cfg.augmentation.name}: the name follows from the option; set "
            "augmentation=NAME"
        )
    if cfg.model.resolution != cfg.data.resolution:
        raise ConfigError(
            f"model.resolution={cfg.model.resolution} and data.resolution={cfg.data.resolution}: "
            "set only data.resolution"
        )
    check_root(cfg)
    _check_weights_kept(cfg)
    instantiate(cfg.split).check()
    with torch.device("meta"):
        classifier = instantiate(cfg.model)
        if uses_gan(cfg):
            instantiate(cfg.gan)
    possible_explainers(build_named(cfg.explain), classifier)
    classes_of(cfg)
    check_loggers(cfg)
    _check_trainer(cfg)


def check_synthesis(cfg: DictConfig) -> None:
    """Build the components of ``leuk synthesize`` to find errors early.

    Raises:
        ConfigError: a component refuses an argument, or weights of the extractor are missing.
        DataError: the image folder does not exist, or no data can satisfy the split.
    """
    check_root(cfg)
    instantiate(cfg.split).check()
    with torch.device("meta"):
        instantiate(cfg.gan)
    classes_of(cfg)
    if cfg.augmentation.count is not None and cfg.augmentation.count < FEWEST:
        raise ConfigError(
            f"augmentation.count={cfg.augmentation.count}: distances between sets need {FEWEST} "
            f"images of each class; set {FEWEST} or more"
        )
    instantiate(cfg.extractor)
    _check_trainer(cfg)


def _check_weights_kept(cfg: DictConfig) -> None:
    """Refuse training that would end without a checkpoint of the best weights.

    Raises:
        ConfigError: the message names the key that prevents the checkpoint.
    """
    if cfg.callbacks.get("checkpoint") is None:
        raise ConfigError(
            "callbacks.checkpoint=null: the weights would be lost, so that the run could not be "
            "explained or used for prediction; keep the default"
        )
    if cfg.trainer.get("fast_dev_run"):
        raise ConfigError(
            f"trainer.fast_dev_run={cfg.trainer.fast_dev_run}: Lightning then saves no checkpoint; "
            "for a short run set fit.epochs=1"
        )
    every = cfg.trainer.get("check_val_every_n_epoch")
    if every is not None and every > cfg.fit.epochs:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch={every}: no validation in {cfg.fit.epochs} epochs, "
            f"so no checkpoint; set {cfg.fit.epochs} or less"
        )
    if cfg.trainer.get("limit_val_batches") == 0:
        raise ConfigError(
            "trainer.limit_val_batches=0: without validation there is no checkpoint; set 1 or more"
        )


def check_paths(configs: Sequence[DictConfig], folders: Sequence[Path]) -> None:
    """Refuse jobs that write to the same folder, or to a folder without write permission.

    Args:
        configs: config of each job.
        folders: output folder of each job.

    Raises:
        StoreError: a folder is refused; the message names it.
    """
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs of this sweep would write to this folder")
    for outputs in {str(cfg.outputs) for cfg in configs}:
        ensure_writable(Path(outputs), "outputs")
    for folder in folders:
        if folder.is_dir():
            ensure_writable(folder, "outputs")
            _check_writable(folder / LOCK, folder / LOG)


def _check_writable(*files: Path) -> None:
    """Refuse existing files, such as another user's, that this process may not overwrite."""
    for file in files:
        if file.exists() and not os.access(file, os.W_OK, effective_ids=True):
            raise StoreError(
                f"{file}: cannot be written (Permission denied); ask its owner for permission, "
                "or choose another folder with outputs=DIR"
            )


def _check_trainer(cfg: DictConfig) -> None:
    # Jobs that run on other hosts use the devices of those.
    changes = {"accelerator": "cpu", "devices": 1} if runs_elsewhere(cfg) else {}
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
    """Refuse folders whose training images differ in size without a known scale.

    Raises:
        DataError: the message gives the folder and the number of images of each size.
    """
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
    if found.state != State.COMPLETE or found.record is None:
        return found
    before = found.record.data.get("files")
    try:
        with read_only():
            data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
            now = data.listing()
    except MissingArtifactError:  # phantom images, which the settings determine
        return found
    if before == now:
        return found
    return Found(State.OTHER, f"{data.root} has changed since", found.record)


def set_aside(cfg: DictConfig) -> None:
    """Move a run's folder to the sweep's :data:`REPLACED`, so that the run can be repeated.

    Raises:
        StoreError: another process uses the folder.
    """
    folder = folder_of(cfg, cfg.hydra)
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            kept = folder.parent / REPLACED / f"{folder.name}-{Record.read(folder).fingerprint}"
            kept = _unused(kept)
            kept.parent.mkdir(exist_ok=True)
            folder.rename(kept)
    except Timeout as error:
        raise StoreError(f"{folder}: in use by another process; wait until it ends") from error
    log.warning("%s: has other settings; moved to %s", folder.name, kept)


def _unused(path: Path) -> Path:
    """Return the path, with a number appended if it exists."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(found for found in chain([path], numbered) if not found.exists())

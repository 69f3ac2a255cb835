"""What can be known to fail before any work: parts that cannot be built, data that is not there."""

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
from leuk.evaluate.distances import FEWEST
from leuk.explain.choice import possible_explainers
from leuk.grid.record import Record
from leuk.grid.state import LOCK, Found, State, inspect_folder
from leuk.runs.curves import check_loggers
from leuk.runs.device import check_device
from leuk.runs.fitting import build_named, build_trainer
from leuk.runs.identity import begin, choice_of, folder_of, uses_gan
from leuk.runs.launching import runs_elsewhere
from leuk.runs.synthesis import classes_of
from leuk.store.artifacts import MissingArtifactError, read_only
from leuk.store.atomic import ensure_writable

log = logging.getLogger(__name__)

LOG = "leuk.log"
"""File in a cell's folder, as ``hydra.job_logging`` names it."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions of a fit; the others hold the weights themselves in 16 or 64 bits."""

REPLACED = ".replaced"
"""Folder below a sweep's where the folders of cells go that are run again with other settings."""

# Lightning tells of every trainer that is built, and these are thrown away.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def check_parts(cfg: DictConfig) -> None:
    """Build what a cell is made of, its networks without memory, so that faults show at once.

    Raises:
        ConfigError: an argument that a part refuses, or two keys that contradict each other.
        DataError: no such folder of images, or a split that no data could satisfy.
    """
    chosen = choice_of("augmentation", cfg)
    if cfg.augmentation.name != chosen:
        raise ConfigError(
            f"augmentation.name={cfg.augmentation.name}: it follows the group; choose "
            "augmentation=NAME"
        )
    if cfg.model.resolution != cfg.data.resolution:
        raise ConfigError(
            f"model.resolution={cfg.model.resolution} and data.resolution={cfg.data.resolution}: "
            "set data.resolution alone"
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
    """Build what ``leuk synthesize`` needs, so that faults show at once.

    Raises:
        ConfigError: an argument that a part refuses, or weights of the extractor that are missing.
        DataError: no such folder of images, or a split that no data could satisfy.
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
    """Refuse a fit that would end without a checkpoint of its best weights.

    Raises:
        ConfigError: naming the key.
    """
    if cfg.callbacks.get("checkpoint") is None:
        raise ConfigError(
            "callbacks.checkpoint=null: the weights would be lost, and nothing could be explained "
            "or predicted later; leave it as it is"
        )
    if cfg.trainer.get("fast_dev_run"):
        raise ConfigError(
            f"trainer.fast_dev_run={cfg.trainer.fast_dev_run}: Lightning keeps no checkpoint then; "
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


def check_paths(cells: Sequence[DictConfig], folders: Sequence[Path]) -> None:
    """Refuse jobs that would write to one folder, or where nothing can be written.

    Args:
        cells: the config of each job.
        folders: where each job writes.

    Raises:
        StoreError: naming the folder.
    """
    for folder in folders:
        if folders.count(folder) > 1:
            raise StoreError(f"{folder}: two jobs of this sweep would write there")
    for outputs in {str(cfg.outputs) for cfg in cells}:
        ensure_writable(Path(outputs), "outputs")
    for folder in folders:
        if folder.is_dir():
            ensure_writable(folder, "outputs")
            _check_writable(folder / LOCK, folder / LOG)


def _check_writable(*files: Path) -> None:
    """Refuse files that somebody else's run has left for nobody else to write."""
    for file in files:
        if file.exists() and not os.access(file, os.W_OK, effective_ids=True):
            raise StoreError(
                f"{file}: cannot be written (Permission denied); have its owner allow it, or "
                "choose another folder with outputs=DIR"
            )


def _check_trainer(cfg: DictConfig) -> None:
    # Hosts that jobs are sent to have devices of their own.
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
    # Lightning would start the command anew for each, and each would wait for this one's lock.
    if together and not spawned:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: the devices of one host share a fit with "
            "trainer=ddp; or set trainer.devices=1 and hydra/launcher=joblib, a cell a device"
        )
    if together and cfg.get("fit") and cfg.fit.compile:
        raise ConfigError("fit.compile=true: not with several devices; set fit.compile=false")


def check_root(cfg: DictConfig) -> None:
    """Refuse a folder of images that is not there."""
    if "root" in cfg.data and not Path(cfg.data.root).expanduser().is_dir():
        raise DataError(f"data.root={cfg.data.root}: no such folder; point it at the C-NMC images")


def check_image_sizes(cells: Sequence[DictConfig]) -> None:
    """Refuse folders of training images of several sizes and no known scale.

    Raises:
        DataError: naming the folder, the sizes and the number of images of each.
    """
    seen = {
        (str(data.root), str(data.framing), data.get("frame"), data.get("pixel_size"))
        for data in (cfg.data for cfg in cells)
        if "root" in data
    }
    for root, framing, frame, pixel_size in sorted(seen, key=str):
        check_sizes(Path(root).expanduser(), framing, frame, pixel_size)


def check_existing(cfg: DictConfig) -> bool:
    """Refuse a folder that holds a cell of other settings or data, unless it is to be run again.

    Returns:
        Whether what the folder holds is to be set aside, see :func:`set_aside`.

    Raises:
        StoreError: naming the folder, what differs, and how to go on.
    """
    found = inspect(cfg)
    if found.state == State.UNREADABLE:
        raise StoreError(found.message)
    if found.state != State.OTHER or found.record is None:
        return False
    if cfg.grid.on_mismatch == "rerun":
        return True
    same = found.record.fingerprint == begin(cfg, cfg.hydra).fingerprint
    what = "on other data, " if same else "with other settings: "
    raise StoreError(
        f"{folder_of(cfg, cfg.hydra)}: {found.record.status} {what}{found.message}; give this sweep a "
        "name of its own, name=NAME, or run the cell again with grid.on_mismatch=rerun, which "
        f"keeps what is there under {REPLACED}"
    )


def inspect(cfg: DictConfig) -> Found:
    """How far a cell is; one that is complete on other data counts as one of other settings."""
    folder, expected = folder_of(cfg, cfg.hydra), begin(cfg, cfg.hydra)
    found = inspect_folder(folder, expected)
    if found.state != State.COMPLETE or found.record is None:
        return found
    before = found.record.data.get("files")
    try:
        with read_only():
            data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
            now = data.listing()
    except MissingArtifactError:  # stand-in cells, which are the same whenever they are made
        return found
    if before == now:
        return found
    return Found(State.OTHER, f"{data.root} has changed since", found.record)


def set_aside(cfg: DictConfig) -> None:
    """Move a cell's folder to :data:`REPLACED` beside it, so that the cell is run anew.

    Raises:
        StoreError: another process works there.
    """
    folder = folder_of(cfg, cfg.hydra)
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            kept = folder.parent / REPLACED / f"{folder.name}-{Record.read(folder).fingerprint}"
            kept = _free(kept)
            kept.parent.mkdir(exist_ok=True)
            folder.rename(kept)
    except Timeout as error:
        raise StoreError(f"{folder}: another process works there; wait for it") from error
    log.warning("%s: of other settings; kept in %s", folder.name, kept)


def _free(path: Path) -> Path:
    """The path, or with a number behind it the first that is not taken."""
    taken = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(found for found in chain([path], taken) if not found.exists())

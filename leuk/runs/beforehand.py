"""What can be known to fail before any work: parts that cannot be built, data that is not there."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.errors import ConfigError, DataError, StoreError
from leuk.grid.record import Record
from leuk.runs.cell_run import is_complete
from leuk.runs.fitting import build_trainer
from leuk.runs.identity import choice_of, fingerprint_of, folder_of, uses_gan
from leuk.runs.synthesis import classes_of
from leuk.store.atomic import ensure_writable

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
    instantiate(cfg.split).check()
    with torch.device("meta"):
        instantiate(cfg.model)
        if uses_gan(cfg):
            instantiate(cfg.gan)
    classes_of(cfg)
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
    instantiate(cfg.extractor)
    _check_trainer(cfg)


def check_places(cells: Sequence[DictConfig], folders: Sequence[Path]) -> None:
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


def _check_trainer(cfg: DictConfig) -> None:
    try:
        trainer = build_trainer(cfg, Path(), [], logger=False, enable_checkpointing=False)
    except (MisconfigurationException, ValueError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"trainer: {first}") from error
    # Lightning would start the command anew for each, and each would wait for this one's lock.
    if trainer.num_devices * trainer.num_nodes > 1:
        raise ConfigError(
            f"trainer.devices={cfg.trainer.devices}: a cell is fitted on one device; set "
            "trainer.devices=1 and start the same sweep once more for each further device, each "
            "takes the cells that no other runs"
        )


def check_root(cfg: DictConfig) -> None:
    """Refuse a folder of images that is not there."""
    if "root" in cfg.data and not Path(cfg.data.root).expanduser().is_dir():
        raise DataError(f"data.root={cfg.data.root}: no such folder; point it at the C-NMC images")


def check_finished(cfg: DictConfig) -> None:
    """Refuse to count a cell as complete whose settings or data have changed since.

    Raises:
        StoreError: naming the folder, and how to go on.
    """
    folder = folder_of(cfg, cfg.hydra)
    if not is_complete(folder, fingerprint_of(cfg)):
        return
    data: CNMCDataModule = instantiate(cfg.data, split=instantiate(cfg.split))
    before = Record.read(folder).data.get("files")
    if before != data.listing():
        raise StoreError(
            f"{folder}: complete on other data, {data.root} has changed since; give this sweep a "
            "name of its own: name=NAME"
        )

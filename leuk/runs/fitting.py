"""Trainers and callbacks from a config, for classifiers and GANs."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.errors import ConfigError, TrainingError
from leuk.runs.checkpoints import WholeCheckpoints
from leuk.training.process_group import EndsProcessGroup


def build_trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], **changes: Any
) -> Trainer:
    """Build the configured trainer.

    Args:
        cfg: a complete training config.
        folder: folder in which Lightning may write.
        callbacks: callbacks in the order they are called.
        changes: arguments of the trainer that differ from the config's.

    Raises:
        ConfigError: a value that Lightning refuses, or a device that this host lacks.
    """
    try:
        trainer: Trainer = instantiate(
            cfg.trainer,
            callbacks=[*callbacks, EndsProcessGroup()],
            default_root_dir=str(folder),
            plugins=[WholeCheckpoints()],
            **changes,
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {str(error).strip().splitlines()[0]}") from error
    return trainer


def one_device(cfg: DictConfig) -> dict[str, Any]:
    """Arguments for :func:`build_trainer` that restrict it to the first device and one process."""
    devices = cfg.trainer.devices
    first = [devices[0]] if OmegaConf.is_list(devices) else 1
    return {"devices": first, "strategy": "auto"}


def build_named(nodes: DictConfig, only: Collection[str] | None = None) -> dict[str, Any]:
    """Instantiate the children of a node, by name, without null children.

    Args:
        nodes: config node whose children have a ``_target_``.
        only: names to instantiate; None for all.
    """
    return {
        str(name): instantiate(node)
        for name, node in nodes.items()
        if node is not None and (only is None or name in only)
    }


@contextmanager
def memory_errors(key: str, batch_size: int) -> Iterator[None]:
    """Convert out-of-memory errors, of the device or of data loaders, to a message with a remedy.

    Args:
        key: config key of the batch size.
        batch_size: its current value.

    Raises:
        TrainingError: replaces the device's error.
    """
    try:
        yield
    except RuntimeError as error:  # the CPU's allocator raises no more specific class
        if "DataLoader worker" in str(error):
            raise TrainingError(
                "a data loading process was killed, probably by the kernel because memory ran out; "
                f"start again, with fewer data.workers or a smaller {key} if it recurs"
            ) from error
        full = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not full:
            raise
        raise TrainingError(
            f"out of memory with {key}={batch_size}; try {key}={max(2, batch_size // 2)}"
        ) from error

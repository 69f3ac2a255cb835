"""Trainers and callbacks from a config; classifiers and GANs are fitted with the same."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig

from leuk.config.targets import instantiate


def build_trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], **changes: Any
) -> Trainer:
    """The configured trainer, writing under ``folder``.

    Args:
        cfg: a whole training config.
        folder: where Lightning may write.
        callbacks: in the order they are called.
        changes: arguments of the trainer that differ from the config's.
    """
    trainer: Trainer = instantiate(
        cfg.trainer, callbacks=callbacks, default_root_dir=str(folder), **changes
    )
    return trainer


def build_named(nodes: DictConfig, only: Collection[str] | None = None) -> dict[str, Any]:
    """The objects of a node that holds them by name, or ``only`` some; null leaves one out."""
    return {
        str(name): instantiate(node)
        for name, node in nodes.items()
        if node is not None and (only is None or name in only)
    }

"""Classifiers small enough to train in a test, with images and a trainer for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from leuk.classifiers.base import Classifier
from leuk.classifiers.cnn import CNN
from leuk.classifiers.hybrid import Hybrid
from leuk.classifiers.optim import Optim
from leuk.classifiers.vit import ViT
from leuk.data.augment import Transforms
from leuk.data.datamodule import ImageBatches
from leuk.data.pixels import PixelBank
from leuk.training import (
    KerasAttention,
    KerasBatchNorm1d,
    KerasBatchNorm2d,
    SameConv2d,
    SameConvTranspose2d,
)

FORMS: dict[str, tuple[type[Classifier], dict[str, Any]]] = {
    "cnn": (CNN, {"widths": (4, 8, 8), "hidden": 8}),
    "vit": (ViT, {"patch": 8, "width": 16, "depth": 2, "heads": 2}),
    "hybrid": (
        Hybrid,
        {"widths": (4, 4, 8, 8), "width": 16, "depth": 2, "heads": 2, "patch": 2, "stride": 2},
    ),
}


def small(name: str, optim: Optim = Optim(1e-3), **changes: Any) -> Classifier:
    form, arguments = FORMS[name]
    return form(resolution=32, optim=optim, **{**arguments, **changes})


def parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class Squares(ImageBatches):
    """``train`` + 19 images of noise, the leukemic ones brighter; the last 19 validate and test."""

    def __init__(self, batch_size: int = 4, moved: bool = False, train: int = 29) -> None:
        labels = np.arange(train + 19) % 2
        noise = np.random.default_rng(0).normal(0, 20, (len(labels), 32, 32, 3))
        pixels = (90 + 60 * labels[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)
        transforms = Transforms(rotation=90, horizontal_flip=True) if moved else None
        super().__init__(
            PixelBank([pixels], labels), np.arange(train), batch_size, transforms=transforms
        )
        self.held = np.arange(train, train + 19)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return self._loader(self.held)

    def test_dataloader(self) -> DataLoader[Tensor]:
        return self._loader(self.held)


def trainer_for(tmp_path: Path, callbacks: Sequence[Callback] = (), **arguments: Any) -> Trainer:
    return Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 2,
            "logger": False,
            "callbacks": list(callbacks),
            "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
            **arguments,
        }
    )


def follows_keras(module: nn.Module) -> bool:
    """Return True for a model with a layer that computes as Keras does."""
    layers = KerasBatchNorm1d | KerasBatchNorm2d | KerasAttention
    convolutions = SameConv2d | SameConvTranspose2d
    return any(isinstance(layer, layers | convolutions) for layer in module.modules())

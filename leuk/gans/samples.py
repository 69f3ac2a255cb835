"""Grids of made cells while a GAN is fitted, always from the same latent vectors."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import functional as F
from torchvision.utils import save_image

from leuk.gans.adversarial import Adversarial

_SHOWN = 16
_WIDE = 8
_LARGEST = 64
"""Pixels a side of a cell in a grid; hundreds of epochs leave a few megabytes."""

_SEED = 0


class SampleGrids(Callback):
    """Writes ``epoch_0007.png`` after every epoch, or every few.

    Args:
        folder: where they go.
        labels: the classes that the GAN makes; two rows of cells each.
        every: epochs between two grids; the last epoch always has one.
    """

    def __init__(self, folder: Path, labels: Sequence[int], every: int = 1) -> None:
        self.folder = folder
        self.labels = labels
        self.every = every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Adversarial)
        epoch = trainer.current_epoch + 1
        last = trainer.should_stop or epoch == trainer.max_epochs
        if trainer.is_global_zero and (last or epoch % self.every == 0):
            save_grid(self.folder / f"epoch_{epoch:04d}.png", pl_module, self.labels)


def save_grid(path: Path, gan: Adversarial, labels: Sequence[int]) -> None:
    """Write sixteen cells of each class, the same latent vectors for each."""
    made = [torch.from_numpy(gan.sample(_SHOWN, label, _SEED)) for label in labels]
    images = torch.cat(made).permute(0, 3, 1, 2) / 255
    if images.shape[-1] > _LARGEST:
        images = F.interpolate(images, _LARGEST, mode="area")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(images, path, nrow=_WIDE)

"""Sheets of synthetic images saved during training, always from the same latent vectors."""

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
"""Largest side of an image on a sheet in pixels; hundreds of sheets take a few megabytes."""

_SEED = 0


class SampleGrids(Callback):
    """Callback that writes a sheet such as ``epoch_0007.png`` every few epochs.

    Args:
        folder: folder of the sheets.
        labels: classes that the GAN generates; each gets two rows of images.
        every: epochs from one sheet to the next; the last epoch always gets a sheet.
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
    """Write sixteen images of each class, from the same latent vectors for each."""
    sampled = [torch.from_numpy(gan.sample(_SHOWN, label, _SEED)) for label in labels]
    images = torch.cat(sampled).permute(0, 3, 1, 2) / 255
    if images.shape[-1] > _LARGEST:
        images = F.interpolate(images, _LARGEST, mode="area")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(images, path, nrow=_WIDE)

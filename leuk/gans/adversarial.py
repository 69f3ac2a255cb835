"""What the GANs share: manual optimisation, budgets in generator updates, sampling."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from leuk.data.bank import Batch
from leuk.gans.blocks import from_unit, to_uint8

_SAMPLING_BATCH = 256


class Adversarial(LightningModule, ABC):
    """Base of the GANs.

    Args:
        resolution: pixels a side, a multiple of 32.
        latent: numbers a latent vector.
        updates: generator updates after which fitting stops; None leaves it to the epochs.
    """

    generator: nn.Module

    def __init__(self, resolution: int, latent: int, updates: int | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.resolution = resolution
        self.latent = latent
        self.updates = updates
        self.done_updates = 0

    @abstractmethod
    def adversarial_step(self, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the networks once on ``real`` ``(B, 3, R, R)`` in [-1, 1]; give the losses."""

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """One round of updates; Lightning's own step count would count each optimizer's."""
        losses = self.adversarial_step(from_unit(batch["images"]), batch["labels"])
        self.done_updates += 1
        self.log_dict(
            {f"gan/{name}": loss.detach() for name, loss in losses.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch["rows"]),
        )
        if self.updates is not None and self.done_updates >= self.updates:
            self.trainer.should_stop = True

    def both_optimizers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        """The generator's optimizer and its opponent's."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        first, second = optimizers
        return first, second

    def noise(self, count: int) -> Tensor:
        """Latent vectors ``(count, latent)`` on the module's device."""
        return torch.randn(count, self.latent, device=self.device)

    @torch.no_grad()
    def sample(self, count: int, label: int, seed: int) -> npt.NDArray[np.uint8]:
        """Make cells; the same arguments make the same cells.

        Args:
            count: how many.
            label: their class; a GAN fitted on one class only makes that one.
            seed: of the latent vectors.

        Returns:
            ``uint8 (count, R, R, 3)``.
        """
        generator = torch.Generator().manual_seed(seed)
        training = self.training
        self.eval()
        made = [
            to_uint8(self.generator(noise.to(self.device))).cpu().numpy()
            for noise in torch.randn(count, self.latent, generator=generator).split(_SAMPLING_BATCH)
        ]
        self.train(training)
        return np.concatenate(made)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator_updates"] = self.done_updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.done_updates = checkpoint["generator_updates"]

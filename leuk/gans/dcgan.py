"""DCGAN (Radford et al. 2016), in the thesis's form."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Len
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.config.ranges import Count, Counts, Positive, Share
from leuk.gans.adversarial import Adversarial
from leuk.gans.blocks import (
    HALVINGS,
    Dropout,
    batch_norm,
    downsampling,
    start_side,
    upsampling,
    widths_before,
)


class Generator(nn.Sequential):
    """Dense to a small map, stride-2 transposed convolutions (ReLU, then batch norm), tanh.

    Maps latent vectors ``(B, latent)`` to images ``(B, 3, R, R)`` in [-1, 1].
    """

    def __init__(self, resolution: int, latent: int, first: int, widths: Sequence[int]) -> None:
        side = start_side(resolution)
        layers: list[nn.Module] = [
            nn.Linear(latent, first * side * side),
            nn.Unflatten(1, (first, side, side)),
            batch_norm(first),
        ]
        for before, after in widths_before(widths, first):
            layers += [upsampling(before, after), nn.ReLU(), batch_norm(after)]
        layers += [nn.ConvTranspose2d(widths[-1], 3, 5, padding=2), nn.Tanh()]
        super().__init__(*layers)


class Discriminator(nn.Sequential):
    """Stride-2 convolutions with LeakyReLU and dropout; images to logits ``(B, 1)`` of real."""

    def __init__(self, resolution: int, widths: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for before, after in widths_before(widths, 3):
            layers += [downsampling(before, after), nn.LeakyReLU(0.3), Dropout(dropout)]
        side = resolution // 2 ** len(widths)
        layers += [nn.Flatten(), nn.Linear(widths[-1] * side * side, 1)]
        super().__init__(*layers)


class DCGAN(Adversarial):
    """Generator and discriminator with binary cross-entropy.

    Without arguments it is the thesis's form (section 2 of the design: generator 3,939,491
    trainable parameters, discriminator 611,201).

    Args:
        resolution: pixels a side, a multiple of 32.
        latent: numbers a latent vector.
        first: channels of the generator's first map.
        widths: channels after each of its five transposed convolutions.
        discriminator_widths: channels after each convolution of the discriminator.
        dropout: of the discriminator.
        generator_rate: learning rate of the generator's Adam.
        discriminator_rate: learning rate of the discriminator's.
        beta1: of both.
        clip: largest absolute value of a gradient of the discriminator.
        updates: generator updates after which fitting stops.

    Raises:
        ConfigError: a resolution that is not a multiple of 32.
    """

    def __init__(
        self,
        resolution: Count = 224,
        latent: Count = 500,
        first: Count = 128,
        widths: Annotated[Sequence[Count], Len(HALVINGS, HALVINGS)] = (128, 64, 64, 32, 32),
        discriminator_widths: Counts = (64, 128),
        dropout: Share = 0.5,
        generator_rate: Positive = 1e-4,
        discriminator_rate: Positive = 2e-4,
        beta1: Share = 0.5,
        clip: Positive = 1.5,
        updates: Count | None = None,
    ) -> None:
        super().__init__(resolution, latent, updates)
        self.save_hyperparameters()
        self.generator = Generator(resolution, latent, first, widths)
        self.discriminator = Discriminator(resolution, discriminator_widths, dropout)
        self.rates = (generator_rate, discriminator_rate)
        self.beta1 = beta1
        self.clip = clip

    def adversarial_step(self, real: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One discriminator update, then one generator update, on the same made images."""
        for_generator, for_discriminator = self.both_optimizers()
        made = self.generator(self.noise(len(real)))

        judged_real, judged_made = self.discriminator(real), self.discriminator(made.detach())
        loss_discriminator = _bce(judged_real, 1) + _bce(judged_made, 0)
        for_discriminator.zero_grad()
        self.manual_backward(loss_discriminator)
        torch.nn.utils.clip_grad_value_(self.discriminator.parameters(), self.clip)
        for_discriminator.step()

        self.discriminator.requires_grad_(False)
        loss_generator = _bce(self.discriminator(made), 1)
        for_generator.zero_grad()
        self.manual_backward(loss_generator)
        for_generator.step()
        self.discriminator.requires_grad_(True)
        return {"generator_loss": loss_generator, "discriminator_loss": loss_discriminator}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator, Adam for the discriminator."""
        betas = (self.beta1, 0.999)
        return [
            torch.optim.Adam(network.parameters(), lr=rate, betas=betas)
            for network, rate in zip((self.generator, self.discriminator), self.rates, strict=True)
        ]


def _bce(logits: Tensor, truth: int) -> Tensor:
    """Binary cross-entropy against all-real (1) or all-made (0)."""
    return F.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits, truth, dtype=torch.float32)
    )

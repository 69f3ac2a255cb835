"""DCGAN (Radford et al. 2016) in the thesis's form or with the strong networks."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.config.schema import Count, Counts, NotNegative, Share
from leuk.gans.base import Adversarial, Fitting
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.layers import (
    LeakyReLU,
    batch_norm,
    downsampling,
    first_side,
    plain_widths,
    upsampling,
)
from leuk.gans.penalties import r1_penalty
from leuk.gans.strong import Networks, StrongDiscriminator, StrongGenerator
from leuk.training import Stack, glorot


class Generator(nn.Sequential):
    """Dense layer, transposed convolutions of stride 2 with ReLU and batch norm, tanh.

    Maps latent vectors ``(B, latent)`` to images ``(B, 3, R, R)`` in [-1, 1].
    """

    def __init__(
        self, resolution: int, latent: int, first: int, widths: Sequence[int], stack: Stack
    ) -> None:
        side = first_side(resolution, widths)
        layers: list[nn.Module] = [
            nn.Linear(latent, first * side * side),
            nn.Unflatten(1, (first, side, side)),
            batch_norm(first, stack),
        ]
        for before, after in pairwise((first, *widths)):
            layers += [upsampling(before, after, stack), nn.ReLU(), batch_norm(after, stack)]
        super().__init__(*layers, nn.ConvTranspose2d(widths[-1], 3, 5, padding=2), nn.Tanh())
        self.apply(glorot)


class Discriminator(nn.Sequential):
    """Convolutions of stride 2 with LeakyReLU and dropout, and a dense layer."""

    def __init__(
        self, resolution: int, widths: Sequence[int], dropout: float, stack: Stack
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *widths)):
            layers += [downsampling(before, after, stack), LeakyReLU(0.3, dropout)]
        side = resolution // 2 ** len(widths)
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1] * side * side, 1))
        self.apply(glorot)

    def forward(self, images: Tensor, alone: bool = False) -> Tensor:
        """Scores ``(B, 1)``, high for real; ``alone`` has no effect, as images are independent."""
        scores: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return scores


class DCGAN(Adversarial):
    """GAN with the non-saturating binary cross-entropy loss.

    The defaults are the thesis's form, with 3,939,491 trainable parameters in the generator and
    611,201 in the discriminator.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or ``widths`` has the wrong length.
    """

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels, a multiple of 32
        latent: Count = 500,  # length of a latent vector
        networks: Networks = "plain",  # those above, or those of leuk.gans.strong
        first: Count | None = 128,  # channels of the generator's first map; None if strong
        # Channels after each doubling, 5 if plain, 4 if strong; None if strong, to fit the images.
        widths: Counts | None = (128, 64, 64, 32, 32),
        adversary_widths: Counts | None = (64, 128),  # after each halving; None as for widths
        dropout: Share = 0.5,  # dropout rate of the plain discriminator
        r1: NotNegative = 0.0,  # weight of the R1 penalty; 0 for none
        r1_every: Count = 8,  # rounds between R1 penalties, and a factor (Karras et al. 2020)
        stack: Stack = "keras",  # conventions of plain networks and Adam, see leuk.training
        fitting: Fitting | Mapping[str, Any] = Fitting(adversary_rate=2e-4, clip=1.5),
        augment: DiffAugment | Mapping[str, Any] | None = None,  # of the discriminator's input
    ) -> None:
        generator: nn.Module
        discriminator: nn.Module
        if networks == "strong":
            generator = StrongGenerator(resolution, latent, first, widths)
            discriminator = StrongDiscriminator(resolution, adversary_widths, spread=True)
        else:
            first, widths, adversary_widths = plain_widths(first, widths, adversary_widths)
            generator = Generator(resolution, latent, first, widths, stack)
            discriminator = Discriminator(resolution, adversary_widths, dropout, stack)
        super().__init__(generator, discriminator, latent, stack, fitting, augment)
        self.r1, self.r1_every = r1, r1_every
        self.penalized = bool(r1)

    def adversary_loss(self, real: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
        loss = cross_entropy(self.score(real, labels), 1) + cross_entropy(
            self.score(synthetic, labels), 0
        )
        if self.r1 and self.done_rounds % self.r1_every == 0:
            alone = partial(self.adversary, alone=True)
            loss = loss + self.r1 * self.r1_every * r1_penalty(alone, self.augmented(real))
        return loss

    def generator_loss(self, scores: Tensor) -> Tensor:
        return cross_entropy(scores, 1)


def cross_entropy(scores: Tensor, truth: int) -> Tensor:
    """Binary cross-entropy of scores ``(B, 1)`` if all are of real (1) or synthetic (0) images."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth))

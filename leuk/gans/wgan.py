"""WGAN-GP (Gulrajani et al. 2017) in the thesis's form or with the strong networks."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from leuk.config.schema import Count, Counts, NotNegative, Positive, Share
from leuk.gans.base import Adversarial, Fitting
from leuk.gans.dcgan import Discriminator
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.layers import batch_norm, first_side, plain_widths, upsampling
from leuk.gans.penalties import gradient_penalty
from leuk.gans.strong import Networks, StrongDiscriminator, StrongGenerator
from leuk.training import Stack, glorot

_SLOPE = 0.3


class Generator(nn.Sequential):
    """Like the DCGAN's, but with batch norm before LeakyReLU and a bias only in the last layer.

    Maps ``(B, inputs)`` to images ``(B, 3, R, R)`` in [-1, 1].
    """

    def __init__(
        self, resolution: int, inputs: int, first: int, widths: Sequence[int], stack: Stack
    ) -> None:
        side = first_side(resolution, widths)
        count = first * side * side
        layers: list[nn.Module] = [
            nn.Linear(inputs, count, bias=False),
            batch_norm(count, stack, maps=False),
            nn.LeakyReLU(_SLOPE),
            nn.Unflatten(1, (first, side, side)),
        ]
        for before, after in pairwise((first, *widths)):
            layers += [
                upsampling(before, after, stack, bias=False),
                batch_norm(after, stack),
                nn.LeakyReLU(_SLOPE),
            ]
        super().__init__(*layers, nn.ConvTranspose2d(widths[-1], 3, 5, padding=2), nn.Tanh())
        self.apply(glorot)


class WGANGP(Adversarial):
    """GAN with the Wasserstein loss and a penalty that keeps the critic's gradient norm near 1.

    The defaults are the thesis's form, with 3,945,187 trainable parameters in the generator and
    611,201 in the critic.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or ``widths`` has the wrong length.
    """

    ADVERSARY = "critic"
    penalized = True

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels, a multiple of 32
        latent: Count = 500,  # length of a latent vector
        networks: Networks = "plain",  # the thesis's, or those of leuk.gans.strong
        first: Count | None = 128,  # channels of the generator's first map; None if strong
        # Channels after each doubling, 5 if plain, 4 if strong; None if strong, to fit the images.
        widths: Counts | None = (128, 64, 64, 32, 32),
        adversary_widths: Counts | None = (64, 128),  # channels after each halving of the critic
        dropout: Share = 0.3,  # dropout rate of the plain critic
        penalty: Positive = 10.0,  # weight of the gradient penalty
        # Weight of the mean squared score of real images, which keeps scores near 0 (Karras et al.
        # 2018, appendix A.1); 0 for none.
        drift: NotNegative = 0.0,
        stack: Stack = "keras",  # conventions of plain networks and Adam, see leuk.training
        fitting: Fitting | Mapping[str, Any] = Fitting(adversary_steps=5),
        augment: DiffAugment | Mapping[str, Any] | None = None,  # of the critic's input
    ) -> None:
        generator: nn.Module
        critic: nn.Module
        if networks == "strong":
            generator = StrongGenerator(resolution, latent, first, widths)
            critic = StrongDiscriminator(resolution, adversary_widths, spread=False)
        else:
            first, widths, adversary_widths = plain_widths(first, widths, adversary_widths)
            generator = Generator(resolution, latent, first, widths, stack)
            critic = Discriminator(resolution, adversary_widths, dropout, stack)
        super().__init__(generator, critic, latent, stack, fitting, augment)
        self.penalty, self.drift = penalty, drift

    def adversary_loss(self, real: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
        real, synthetic = self.augmented(real), self.augmented(synthetic)
        of_real, of_synthetic = self.adversary(real).float(), self.adversary(synthetic).float()
        shares = torch.rand(len(real), 1, 1, 1, device=real.device)
        slope = gradient_penalty(self.adversary, real, synthetic, shares)
        distance: Tensor = of_real.mean() - of_synthetic.mean()
        drift: Tensor = self.drift * of_real.square().mean()
        return drift + self.penalty * slope - distance

    def generator_loss(self, scores: Tensor) -> Tensor:
        return -scores.mean()

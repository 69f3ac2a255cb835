"""Conditional GAN (Mirza & Osindero 2014); the strong form uses projection (Miyato & Koyama 2018).

Both networks receive the class of each image.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.config.schema import Count, Counts, NotNegative, Share
from leuk.data.labels import Label
from leuk.gans.base import Adversarial, Fitting
from leuk.gans.dcgan import cross_entropy
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.layers import LeakyReLU, plain_widths
from leuk.gans.penalties import r1_penalty
from leuk.gans.strong import Networks, StrongDiscriminator, StrongGenerator
from leuk.gans.wgan import Generator
from leuk.training import Stack, glorot

Condition = Literal["onehot", "embedding"]

_CLASSES = len(Label)


class OneHot(nn.Module):
    """One-hot encoding of labels: ``(B,)`` to ``(B, 2)``."""

    size = _CLASSES

    def forward(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, _CLASSES).float()


class Embedded(nn.Embedding):
    """Learned encoding of labels: ``(B,)`` to ``(B, 50)``."""

    size = 50

    def __init__(self, stack: Stack) -> None:
        super().__init__(_CLASSES, self.size)
        if stack == "keras":
            nn.init.uniform_(self.weight, -0.05, 0.05)


class ConditionalGenerator(nn.Module):
    """Generator whose input is the noise concatenated with the encoded label.

    Args:
        network: maps ``(B, latent + condition.size)`` to images ``(B, 3, R, R)``.
        condition: encodes labels ``(B,)`` as ``(B, condition.size)``.
    """

    def __init__(self, network: nn.Module, condition: OneHot | Embedded) -> None:
        super().__init__()
        self.network = network
        self.condition = condition

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images ``(B, 3, R, R)`` from noise ``(B, latent)`` and labels ``(B,)``."""
        images: Tensor = self.network(torch.cat([noise, self.condition(labels)], dim=1))
        return images


class PlaneDiscriminator(nn.Sequential):
    """4 x 4 convolutions of stride 2 over the image and a constant plane of its label, -1 or 1."""

    def __init__(self, resolution: int, widths: Sequence[int], dropout: float) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((4, *widths)):
            # The padding is even here, so Keras and PyTorch agree and no SameConv2d is needed.
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), LeakyReLU(0.2, dropout)]
        side = resolution // 2 ** len(widths)
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1] * side * side, 1))
        self.apply(glorot)

    def forward(self, images: Tensor, labels: Tensor, alone: bool = False) -> Tensor:  # type: ignore[override]
        """Scores ``(B, 1)``, high for real images whose class is that of ``labels (B,)``."""
        plane = (2.0 * labels - 1).to(images.dtype).view(-1, 1, 1, 1)
        joined = torch.cat([images, plane.expand(-1, 1, *images.shape[2:])], dim=1)
        scores: Tensor = super().forward(joined)  # type: ignore[no-untyped-call]
        return scores


class ProjectionDiscriminator(StrongDiscriminator):
    """Discriminator that adds features times class embedding to the score.

    From Miyato & Koyama 2018, equation 3.
    """

    def __init__(self, resolution: int, widths: Sequence[int] | None) -> None:
        super().__init__(resolution, widths, spread=True)
        self.classes = nn.Embedding(_CLASSES, self.score.in_features)
        nn.init.normal_(self.classes.weight, 0.0, 0.02)

    def forward(self, images: Tensor, labels: Tensor, alone: bool = False) -> Tensor:  # type: ignore[override]
        """Scores ``(B, 1)``, high for real images whose class is that of ``labels (B,)``."""
        features = self.features(images, alone)
        matching = (features * self.classes(labels)).sum(dim=1, keepdim=True)
        score: Tensor = self.score(features) + matching
        return score


class CGAN(Adversarial):
    """GAN of both classes, with cross-entropy (``plain`` networks) or the hinge loss (``strong``).

    The defaults are the thesis's form with one-hot labels. With ``condition="embedding"`` the
    generator has the thesis's 4,258,887 trainable parameters; the discriminator has 11,197,377.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or ``widths`` has the wrong length.
    """

    CONDITIONAL = True

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels, a multiple of 32
        latent: Count = 500,  # length of a latent vector, without the encoded label
        networks: Networks = "plain",  # the thesis's, or those of leuk.gans.strong
        condition: Condition = "onehot",  # encoding of the label for the generator
        first: Count | None = 128,  # channels of the generator's first map; None if strong
        # Channels after each doubling, 5 if plain, 4 if strong; None if strong, to fit the images.
        widths: Counts | None = (128, 64, 64, 32, 32),
        adversary_widths: Counts | None = (64, 128, 256, 512, 1024),  # after each halving
        dropout: Share = 0.3,  # dropout rate of the plain discriminator
        r1: NotNegative = 0.0,  # weight of the R1 penalty; 0 for none
        r1_every: Count = 8,  # rounds between R1 penalties, and a factor (Karras et al. 2020)
        stack: Stack = "keras",  # conventions of plain networks and Adam, see leuk.training
        fitting: Fitting | Mapping[str, Any] = Fitting(2e-4, 5e-5, clip=1.0, generator_steps=2),
        augment: DiffAugment | Mapping[str, Any] | None = None,  # of the discriminator's input
    ) -> None:
        encoding = OneHot() if condition == "onehot" else Embedded(stack)
        inputs = latent + encoding.size
        network: nn.Module
        discriminator: nn.Module
        if networks == "strong":
            network = StrongGenerator(resolution, inputs, first, widths)
            discriminator = ProjectionDiscriminator(resolution, adversary_widths)
        else:
            first, widths, adversary_widths = plain_widths(first, widths, adversary_widths)
            network = Generator(resolution, inputs, first, widths, stack)
            discriminator = PlaneDiscriminator(resolution, adversary_widths, dropout)
        generator = ConditionalGenerator(network, encoding)
        super().__init__(generator, discriminator, latent, stack, fitting, augment)
        self.hinge = networks == "strong"
        self.r1, self.r1_every = r1, r1_every
        self.penalized = bool(r1)

    def generate(self, noise: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator(noise, labels)
        return images

    def score(self, images: Tensor, labels: Tensor) -> Tensor:
        scores: Tensor = self.adversary(self.augmented(images), labels)
        return scores.float()

    def adversary_loss(self, real: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
        of_real, of_synthetic = self.score(real, labels), self.score(synthetic, labels)
        if self.hinge:
            loss = F.relu(1 - of_real).mean() + F.relu(1 + of_synthetic).mean()
        else:
            loss = cross_entropy(of_real, 1) + cross_entropy(of_synthetic, 0)
        if self.r1 and self.done_rounds % self.r1_every == 0:
            alone = partial(self.adversary, labels=labels, alone=True)
            loss = loss + self.r1 * self.r1_every * r1_penalty(alone, self.augmented(real))
        return loss

    def generator_loss(self, scores: Tensor) -> Tensor:
        return -scores.mean() if self.hinge else cross_entropy(scores, 1)

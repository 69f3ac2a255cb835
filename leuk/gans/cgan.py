"""Conditional GAN (Mirza & Osindero 2014); the strong form uses projection (Miyato & Koyama 2018).

Both networks receive the class of each image.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.config.schema import Count, Counts, NotNegative, Share
from leuk.data.labels import Label
from leuk.gans.base import Adversarial, Fitting
from leuk.gans.dcgan import cross_entropy
from leuk.gans.diffaugment import DiffAugment
from leuk.gans.layers import LeakyReLU, widths_before
from leuk.gans.penalties import r1_penalty
from leuk.gans.strong import Networks, StrongDiscriminator, StrongGenerator
from leuk.gans.wgan import Generator
from leuk.training import Stack, glorot

Condition = Literal["onehot", "embedding"]

_CLASSES = len(Label)
_EMBEDDED = 50
_SLOPE = 0.2


class OneHot(nn.Module):
    """One-hot encoding of labels: ``(B,)`` to ``(B, 2)``."""

    size = _CLASSES

    def forward(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, _CLASSES).float()


class Embedded(nn.Embedding):
    """Learned encoding of labels: ``(B,)`` to ``(B, 50)``."""

    size = _EMBEDDED

    def __init__(self, stack: Stack) -> None:
        super().__init__(_CLASSES, _EMBEDDED)
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
        for before, after in widths_before(widths, 4):
            layers += [
                # The padding is even here, so Keras and PyTorch agree and no SameConv2d is needed.
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                LeakyReLU(_SLOPE, dropout),
            ]
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

    def __init__(self, resolution: int, widths: Sequence[int]) -> None:
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
    """GAN of both classes, with cross-entropy (``plain`` networks) or the hinge loss (``cell``).

    The defaults are the thesis's form with one-hot labels. With ``condition="embedding"`` the
    generator has the thesis's 4,258,887 trainable parameters; the discriminator has 11,197,377.

    Args:
        resolution: side of the images in pixels, a multiple of 32.
        latent: length of a latent vector, without the encoded label.
        networks: ``plain`` for the thesis's, ``cell`` for those of :mod:`leuk.gans.strong`.
        condition: encoding of the label for the generator, ``onehot`` or ``embedding``.
        first: channels of the generator's first map.
        widths: channels after each doubling of the generator; 5 if ``plain``, 4 if ``cell``.
        adversary_widths: channels after each halving of the discriminator.
        dropout: dropout rate of the ``plain`` discriminator.
        r1: weight of the R1 penalty; 0 for none.
        r1_every: rounds from one R1 penalty to the next; its weight is multiplied by this interval
            (Karras et al. 2020).
        stack: framework whose conventions ``plain`` networks and Adam follow, see
            :mod:`leuk.training`.
        fitting: update settings.
        augment: augmentation of the discriminator's input; None for none.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or ``widths`` has the wrong length.
    """

    CONDITIONAL = True

    def __init__(
        self,
        resolution: Count = 224,
        latent: Count = 500,
        networks: Networks = "plain",
        condition: Condition = "onehot",
        first: Count = 128,
        widths: Counts = (128, 64, 64, 32, 32),
        adversary_widths: Counts = (64, 128, 256, 512, 1024),
        dropout: Share = 0.3,
        r1: NotNegative = 0.0,
        r1_every: Count = 8,
        stack: Stack = "keras",
        fitting: Fitting | Mapping[str, Any] = Fitting(2e-4, 5e-5, clip=1.0, generator_steps=2),
        augment: DiffAugment | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(resolution, latent, stack, fitting, augment)
        self.r1, self.r1_every = r1, r1_every
        self.projects = networks == "strong"
        encoding = OneHot() if condition == "onehot" else Embedded(stack)
        shape = (resolution, latent + encoding.size, first, widths)
        network = StrongGenerator(*shape) if self.projects else Generator(*shape, stack)
        self._set_networks(
            ConditionalGenerator(network, encoding),
            ProjectionDiscriminator(resolution, adversary_widths)
            if self.projects
            else PlaneDiscriminator(resolution, adversary_widths, dropout),
            networks=networks,
            condition=condition,
            first=first,
            widths=tuple(widths),
            adversary_widths=tuple(adversary_widths),
            dropout=dropout,
            r1=r1,
            r1_every=r1_every,
        )

    def generate(self, noise: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator(noise, labels)
        return images

    def score(self, images: Tensor, labels: Tensor) -> Tensor:
        scores: Tensor = self.adversary(self.augmented(images), labels)
        return scores.float()

    @property
    def penalized(self) -> bool:
        return bool(self.r1)

    def adversary_loss(self, real: Tensor, synthetic: Tensor, labels: Tensor) -> Tensor:
        of_real, of_synthetic = self.score(real, labels), self.score(synthetic, labels)
        if self.projects:
            loss = F.relu(1 - of_real).mean() + F.relu(1 + of_synthetic).mean()
        else:
            loss = cross_entropy(of_real, 1) + cross_entropy(of_synthetic, 0)
        if self.r1 and self.done_rounds % self.r1_every == 0:
            alone = partial(self.adversary, labels=labels, alone=True)
            loss = loss + self.r1 * self.r1_every * r1_penalty(alone, self.augmented(real))
        return loss

    def generator_loss(self, scores: Tensor) -> Tensor:
        return -scores.mean() if self.projects else cross_entropy(scores, 1)

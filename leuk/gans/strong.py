"""Networks of the strong forms, shared by the GANs.

The generator outputs the cell's mask along with its colors.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.errors import ConfigError
from leuk.gans.layers import LeakyReLU, first_side

Networks = Literal["plain", "strong"]
"""The thesis's ``plain`` networks, or the ``strong`` networks of this module."""

_SLOPE = 0.2
_AMPLIFIED = 8.0


class PixelNoise(nn.Module):
    """Noise with one value per pixel and a learned strength per channel, added to its input.

    The fine texture of a cell then need not be encoded in the latent vector (Karras et al. 2019,
    section 3.2).

    Args:
        channels: channels C of the maps ``(B, C, h, w)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, maps: Tensor) -> Tensor:
        noise = torch.randn_like(maps[:, :1])
        noisy: Tensor = maps + self.strength.to(maps.dtype) * noise
        return noisy


class StrongGenerator(nn.Module):
    """Generator of a cell on pure black, as the product of colors and a mask.

    The cells of C-NMC were cut out by a mask. With a mask of its own, the generator need not learn
    to paint black, and its cells have sharp edges.

    Args:
        resolution: side of the images in pixels, a multiple of 32.
        inputs: length of the input, which is the latent vector and, in the cGAN, the encoded label.
        first: channels of the first map; None for a number that fits the resolution.
        widths: channels after each of the four doublings; None likewise.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or ``widths`` has the wrong length.
    """

    def __init__(
        self, resolution: int, inputs: int, first: int | None, widths: Sequence[int] | None
    ) -> None:
        super().__init__()
        # Smaller images need fewer channels: half as many at 32 px.
        fitting = [max(24, n * min(resolution, 64) // 64) for n in (192, 128, 96, 48, 32)]
        first, widths = first or fitting[0], widths or fitting[1:]
        # A doubling less than in the thesis; from a 2 x 2 map all cells leaned the same way.
        side = first_side(resolution, widths, doublings=4)
        layers: list[nn.Module] = [
            nn.Linear(inputs, first * side * side, bias=False),
            nn.Unflatten(1, (first, side, side)),
            nn.BatchNorm2d(first),
            nn.LeakyReLU(_SLOPE),
        ]
        for before, after in pairwise((first, *widths)):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                PixelNoise(after),
                nn.LeakyReLU(_SLOPE),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 4, 3, padding=1)  # three colors and the mask
        self.apply(_small_normal)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images ``float32 (B, 3, R, R)`` in [-1, 1] from ``(B, inputs)``."""
        drawn = torch.sigmoid(self.head(self.body(inputs)).float())
        return drawn[:, :3] * drawn[:, 3:] * 2 - 1


def _small_normal(layer: nn.Module) -> None:
    """Draw weights from N(0, 0.02) (Radford et al. 2016); batch norm corrects their scale.

    Only for the generator. The discriminator has no batch norm and keeps PyTorch's larger initial
    weights; from small ones its scores stay near 0 for hundreds of updates.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class MinibatchSpread(nn.Module):
    """Append a plane with the standard deviation across images (Karras et al. 2018, section 3).

    It lets the discriminator detect a generator that repeats the same image.

    Args:
        group: number of images compared with each other; if it does not divide the batch, the
            largest smaller divisor is used.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, maps: Tensor, alone: bool = False) -> Tensor:
        """Compute maps ``(B, C + 1, h, w)`` from ``(B, C, h, w)``.

        With ``alone`` no gradient passes between images, as gradient penalties are per image.
        """
        count = len(maps)
        size = next(size for size in range(min(self.group, count), 0, -1) if count % size == 0)
        groups = maps.float().unflatten(0, (size, count // size))
        spread = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        spread = spread.detach() if alone else spread
        plane = spread.repeat(size).view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])
        return torch.cat([maps, plane.to(maps.dtype)], dim=1)


class StrongDiscriminator(nn.Module):
    """Discriminator of the image and, in three more channels, its amplified high frequencies.

    The texture of the chromatin varies by only a few gray levels, so without amplification it would
    hardly change the score compared with the edge of the cell. The score weighs every position of
    the last map.

    Args:
        resolution: side of the images in pixels, a multiple of 2 to the number of widths.
        widths: channels after each halving; None for halvings down to 4 to 7 pixels.
        spread: compare the images of a batch with :class:`MinibatchSpread`.

    Raises:
        ConfigError: ``resolution`` cannot be halved once per width.
    """

    def __init__(self, resolution: int, widths: Sequence[int] | None, spread: bool) -> None:
        super().__init__()
        widths = widths or [32 << halved for halved in range((resolution // 4).bit_length() - 1)]
        side, rest = divmod(resolution, 2 ** len(widths))
        if rest:
            raise ConfigError(
                f"gan.adversary_widths={list(widths)}: data.resolution={resolution} cannot be "
                f"halved {len(widths)} times; give fewer widths"
            )
        layers: list[nn.Module] = []
        for before, after in pairwise((6, *widths)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), LeakyReLU(_SLOPE)]
        self.body = nn.Sequential(*layers)
        self.spread = MinibatchSpread() if spread else None
        self.mix = nn.Sequential(
            nn.Conv2d(widths[-1] + int(spread), widths[-1], 3, padding=1),
            LeakyReLU(_SLOPE),
            nn.Flatten(),
        )
        self.score = nn.Linear(widths[-1] * side * side, 1)

    def features(self, images: Tensor, alone: bool = False) -> Tensor:
        """Features ``(B, F)`` of images ``(B, 3, R, R)``; the score is linear in them."""
        brightness = images + 1  # black becomes 0, the value that the pooling pads with
        detail = brightness - F.avg_pool2d(brightness, 3, stride=1, padding=1)
        maps = self.body(torch.cat([images, _AMPLIFIED * detail], dim=1))
        if self.spread is not None:
            maps = self.spread(maps, alone)
        features: Tensor = self.mix(maps)
        return features

    def forward(self, images: Tensor, alone: bool = False) -> Tensor:
        """Scores ``(B, 1)``, high for real; see :class:`MinibatchSpread` for ``alone``."""
        score: Tensor = self.score(self.features(images, alone))
        return score

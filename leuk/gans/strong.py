"""Networks of the strong forms, shared by the three GANs.

The generator outputs the cell's mask along with its colors.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.errors import ConfigError
from leuk.gans.layers import (
    HALVINGS,
    LeakyReLU,
    MinibatchSpread,
    PixelNoise,
    check_widths,
    start_side,
    widths_before,
)

Networks = Literal["plain", "strong"]
"""``plain`` networks of the thesis, or the ``cell`` networks of this module."""

_SLOPE = 0.2
_AMPLIFIED = 8.0


class StrongGenerator(nn.Module):
    """Generator of a cell on pure black, as the product of colors and a mask.

    The cells of C-NMC were cut out by a mask. With a mask of its own, the generator need not learn
    to paint black, and its cells have sharp edges.

    Args:
        resolution: side of the images in pixels, a multiple of 32.
        inputs: length of the input, which is the latent vector and, in the cGAN, the encoded label.
        first: channels of the first map.
        widths: channels after each of the four doublings.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or ``widths`` has the wrong length.
    """

    def __init__(self, resolution: int, inputs: int, first: int, widths: Sequence[int]) -> None:
        super().__init__()
        # Twice the side of the thesis's first map; from a 2 x 2 map all cells leaned the same way.
        side = 2 * start_side(resolution)
        check_widths(widths, HALVINGS - 1)
        layers: list[nn.Module] = [
            nn.Linear(inputs, first * side * side, bias=False),
            nn.Unflatten(1, (first, side, side)),
            nn.BatchNorm2d(first),
            nn.LeakyReLU(_SLOPE),
        ]
        for before, after in widths_before(widths, first):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                PixelNoise(after),
                nn.LeakyReLU(_SLOPE),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 4, 3, padding=1)
        self.apply(_small_normal)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images ``float32 (B, 3, R, R)`` in [-1, 1] from ``(B, inputs)``."""
        drawn = torch.sigmoid(self.head(self.body(inputs)).float())
        return drawn[:, :3] * drawn[:, 3:] * 2 - 1


class StrongDiscriminator(nn.Module):
    """Discriminator of the image and, in three more channels, its amplified high frequencies.

    The texture of the chromatin varies by only a few gray levels, so without amplification it would
    hardly change the score compared with the edge of the cell. The score weighs every position of
    the last map.

    Args:
        resolution: side of the images in pixels, a multiple of 2 to the number of widths.
        widths: channels after each halving.
        spread: compare the images of a batch with :class:`leuk.gans.layers.MinibatchSpread`.

    Raises:
        ConfigError: ``resolution`` cannot be halved once per width.
    """

    def __init__(self, resolution: int, widths: Sequence[int], spread: bool) -> None:
        super().__init__()
        if resolution % 2 ** len(widths):
            raise ConfigError(
                f"gan.adversary_widths={list(widths)}: data.resolution={resolution} cannot be "
                f"halved {len(widths)} times; give fewer widths"
            )
        layers: list[nn.Module] = []
        for before, after in widths_before(widths, 6):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), LeakyReLU(_SLOPE)]
        self.body = nn.Sequential(*layers)
        self.spread = MinibatchSpread() if spread else None
        last, side = widths[-1], resolution // 2 ** len(widths)
        self.mix = nn.Sequential(
            nn.Conv2d(last + int(spread), last, 3, padding=1),
            LeakyReLU(_SLOPE),
            nn.Flatten(),
        )
        self.score = nn.Linear(last * side * side, 1)

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


def _small_normal(layer: nn.Module) -> None:
    """Draw weights from N(0, 0.02) (Radford et al. 2016); batch norm corrects their scale.

    Only for the generator. The discriminator has no batch norm and keeps PyTorch's larger initial
    weights; from small ones its scores stay near 0 for hundreds of updates.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

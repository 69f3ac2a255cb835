"""Networks of the strong forms, which the three GANs share; their losses differ.

The generator draws the cell's mask too, and the discriminator sees the whole cell.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.errors import ConfigError
from leuk.gans.blocks import (
    HALVINGS,
    LeakyReLU,
    MinibatchSpread,
    PixelNoise,
    check_widths,
    start_side,
    widths_before,
)

Networks = Literal["plain", "cell"]
"""``plain`` as in the thesis, ``cell`` as here."""

_SLOPE = 0.2
_AMPLIFIED = 8.0


class CellGenerator(nn.Module):
    """Cells on pure black: colours and a mask, multiplied.

    C-NMC's cells were cut out by a mask; a generator that knows this need not learn to paint black,
    and the edge of its cell is where its mask ends.

    Args:
        resolution: pixels a side, a multiple of 32.
        inputs: numbers that come in, the latent vector and whatever is joined to it.
        first: channels of the first map.
        widths: channels after each of the four doublings.

    Raises:
        ConfigError: a resolution that is not a multiple of 32, or another number of widths.
    """

    def __init__(self, resolution: int, inputs: int, first: int, widths: Sequence[int]) -> None:
        super().__init__()
        # Twice as many places as the thesis's first map: from four alone, all cells lean one way.
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


class CellDiscriminator(nn.Module):
    """Sees the image and, apart and amplified, its detail; then every place has its say.

    The grain of the chromatin is a few grey levels deep; beside the edge of the cell it would
    hardly move the score.

    Args:
        resolution: pixels a side.
        widths: channels after each halving.
        spread: whether images of a batch are compared, see
            :class:`leuk.gans.blocks.MinibatchSpread`.
    """

    def __init__(self, resolution: int, widths: Sequence[int], spread: bool) -> None:
        super().__init__()
        if resolution % 2 ** len(widths):
            raise ConfigError(
                f"gan.opponent_widths has {len(widths)} numbers: data.resolution={resolution} "
                "cannot be halved as often"
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
        """What the score is a weighted sum of, ``(B, F)``."""
        brightness = images + 1  # black is 0, as what the pooling pads with
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
    """Weights from N(0, 0.02), as Radford et al. 2016; batch norm sets the scale after them.

    The discriminator has no batch norm and keeps torch's own, larger ones: from small weights it
    takes hundreds of updates to say anything.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

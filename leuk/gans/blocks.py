"""Layers of generators and discriminators, and the way from their range to bytes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leuk.errors import ConfigError
from leuk.training.stack import (
    NORM_EPSILON,
    NORM_MOMENTUM,
    KerasBatchNorm1d,
    KerasBatchNorm2d,
    SameConv2d,
    SameConvTranspose2d,
    Stack,
)

HALVINGS = 5
"""Stride-2 steps of a generator: it starts from resolution / 32."""


def start_side(resolution: int) -> int:
    """Side of the first feature map of a generator.

    Raises:
        ConfigError: ``resolution`` is not a positive multiple of 32.
    """
    step = int(2**HALVINGS)
    if resolution < step or resolution % step:
        near = max(step, round(resolution / step) * step)
        raise ConfigError(
            f"data.resolution={resolution}: the GANs need a multiple of {step}, such as {near}"
        )
    return resolution // step


def check_widths(widths: Sequence[int], count: int) -> None:
    """Refuse widths that are not one for each doubling of a generator.

    Raises:
        ConfigError: there are not ``count``.
    """
    if len(widths) != count:
        raise ConfigError(f"gan.widths={list(widths)}: this generator takes {count} numbers")


def upsampling(before: int, after: int, stack: Stack, bias: bool = True) -> nn.ConvTranspose2d:
    """A 5 x 5 transposed convolution that doubles the side."""
    if stack == "keras":
        return SameConvTranspose2d(before, after, 5, stride=2, bias=bias)
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=bias)


def downsampling(before: int, after: int, stack: Stack) -> nn.Conv2d:
    """A 5 x 5 convolution that halves an even side."""
    if stack == "keras":
        return SameConv2d(before, after, 5, stride=2)
    return nn.Conv2d(before, after, 5, stride=2, padding=2)


def batch_norm(channels: int, stack: Stack) -> nn.BatchNorm2d:
    """Batch normalization of maps with Keras's constants under either stack.

    The large epsilon matters where it follows a ReLU: a channel that is nearly always zero would
    otherwise be blown up when it once is not. The running variance alone depends on the stack.
    """
    if stack == "keras":
        return KerasBatchNorm2d(channels)
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


def batch_norm_features(features: int, stack: Stack) -> nn.BatchNorm1d:
    """Batch normalization of features ``(B, C)``; see :func:`batch_norm`."""
    if stack == "keras":
        return KerasBatchNorm1d(features)
    return nn.BatchNorm1d(features, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


class LeakyReLU(nn.Module):
    """LeakyReLU and dropout as one product of each value and its gain.

    The slope of torch's own depends on its input as far as autograd can see, so a penalty on the
    gradient of a discriminator sends zeros back through all its layers once more; the gain here is
    a constant to it. And torch's CPU generator draws dropout's values one by one on one core; here
    8 bytes of one draw serve 8 values, the share rounded to 256ths. See
    ``tests/benchmarks/leaky_relu.py``.

    Args:
        slope: below zero.
        dropout: share of the values that become 0 in training, below 1; the others are scaled up to
            keep the mean.
    """

    def __init__(self, slope: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.slope = slope
        self.dropout = dropout

    def forward(self, values: Tensor) -> Tensor:
        return values * self._gain(values.detach())

    def _gain(self, values: Tensor) -> Tensor:
        drops = self.training and self.dropout > 0
        scale = 1 / (1 - self.dropout) if drops else 1.0
        gain = (values > 0).to(values.dtype)
        gain.mul_((1 - self.slope) * scale).add_(self.slope * scale)
        return gain.mul_(_kept(values, self.dropout)) if drops else gain

    def extra_repr(self) -> str:
        return f"slope={self.slope}, dropout={self.dropout}"


def _kept(values: Tensor, share: float) -> Tensor:
    """Which values dropout keeps, each by itself; ``bool``, laid out as ``values``."""
    if values.device.type != "cpu" or not _dense(values):
        return torch.empty_like(values, dtype=torch.bool).bernoulli_(1 - share)
    words = torch.empty(-(-values.numel() // 8), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)
    kept = words.view(torch.uint8)[: values.numel()] < round((1 - share) * 256)
    return kept.as_strided(values.shape, values.stride())


def _dense(values: Tensor) -> bool:
    """Whether the values fill their memory in one of the two layouts of images."""
    channels_last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return values.is_contiguous() or channels_last


def widths_before(widths: Sequence[int], first: int) -> list[tuple[int, int]]:
    """(in, out) channel pairs of a chain of layers that starts from ``first`` channels."""
    return list(zip((first, *widths), widths, strict=False))


def to_uint8(images: Tensor) -> Tensor:
    """Generator output ``(N, 3, R, R)`` in [-1, 1] as ``uint8 (N, R, R, 3)``.

    The one converter between the two, so that nothing out of range wraps around unseen.

    Raises:
        ValueError: a value outside [-1, 1], or NaN.
    """
    low, high = torch.aminmax(images.float())
    if not (float(low) >= -1 and float(high) <= 1):
        raise ValueError(f"images must lie in [-1, 1], found [{float(low):.3g}, {float(high):.3g}]")
    return ((images.float() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_unit(images: Tensor) -> Tensor:
    """Images in [0, 1] as the discriminators see them, in [-1, 1]."""
    return images * 2 - 1


class PixelNoise(nn.Module):
    """Adds noise, one number a pixel, as strongly as each channel has learned to want it.

    Grain that differs from cell to cell need not come from the latent vector (Karras et al. 2019,
    section 3.2).

    Args:
        channels: of the maps ``(B, C, h, w)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, maps: Tensor) -> Tensor:
        noise = torch.randn_like(maps[:, :1])
        noisy: Tensor = maps + self.strength.to(maps.dtype) * noise
        return noisy


class MinibatchSpread(nn.Module):
    """One more plane: how far apart the images of a group are (Karras et al. 2018, section 3).

    A generator that makes one image over and over is found out by it.

    Args:
        group: images compared with each other; the largest divisor of the batch up to it.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, maps: Tensor, alone: bool = False) -> Tensor:
        """Maps ``(B, C, h, w)`` to ``(B, C + 1, h, w)``.

        With ``alone`` no gradient passes from one image to another, for a penalty on each.
        """
        count = len(maps)
        size = next(size for size in range(min(self.group, count), 0, -1) if count % size == 0)
        groups = maps.float().unflatten(0, (size, count // size))
        spread = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        spread = spread.detach() if alone else spread
        plane = spread.repeat(size).view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])
        return torch.cat([maps, plane.to(maps.dtype)], dim=1)

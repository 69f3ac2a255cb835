"""Layers of generators and discriminators, and conversion of their images to and from [0, 255]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from leuk.errors import ConfigError
from leuk.training import (
    NORM_EPSILON,
    NORM_MOMENTUM,
    KerasBatchNorm1d,
    KerasBatchNorm2d,
    SameConv2d,
    SameConvTranspose2d,
    Stack,
)

HALVINGS = 5
"""Doublings of the side in a generator, whose first map has the side resolution / 2^5."""


def start_side(resolution: int) -> int:
    """Side of a generator's first feature map in pixels.

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
    """Check that a generator has a width for each of its doublings.

    Raises:
        ConfigError: the number of widths is not ``count``.
    """
    if len(widths) != count:
        raise ConfigError(f"gan.widths={list(widths)}: this generator takes {count} numbers")


def upsampling(before: int, after: int, stack: Stack, bias: bool = True) -> nn.ConvTranspose2d:
    """Return a 5 x 5 transposed convolution that doubles the side."""
    if stack == "keras":
        return SameConvTranspose2d(before, after, 5, stride=2, bias=bias)
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=bias)


def downsampling(before: int, after: int, stack: Stack) -> nn.Conv2d:
    """Return a 5 x 5 convolution that halves an even side."""
    if stack == "keras":
        return SameConv2d(before, after, 5, stride=2)
    return nn.Conv2d(before, after, 5, stride=2, padding=2)


def batch_norm(channels: int, stack: Stack) -> nn.BatchNorm2d:
    """Return batch normalization of maps ``(B, C, h, w)`` with Keras's epsilon and momentum.

    The epsilon is large so that a channel which is almost always zero after its ReLU is not
    amplified when it is not. Only the running variance depends on the stack.
    """
    if stack == "keras":
        return KerasBatchNorm2d(channels)
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


def batch_norm_features(features: int, stack: Stack) -> nn.BatchNorm1d:
    """Return batch normalization of features ``(B, C)``; see :func:`batch_norm`."""
    if stack == "keras":
        return KerasBatchNorm1d(features)
    return nn.BatchNorm1d(features, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


class LeakyReLU(nn.Module):
    """LeakyReLU and dropout in one multiplication by a gain per value.

    It is faster than torch's layers in two ways. To autograd
    torch's slope depends on the input, so a gradient penalty sends zeros through all layers in a
    second backward pass; this gain is a constant. On a CPU, torch draws dropout's random numbers
    singly on one core; here each 64-bit random number serves 8 values, with the dropout rate
    rounded to a multiple of 1/256.

    Args:
        slope: factor on negative values.
        dropout: share of the values set to 0 in training, in [0, 1); the others are scaled up to
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
    """Random mask ``bool`` of the values that dropout keeps, in the memory layout of ``values``."""
    if values.device.type != "cpu" or not _dense(values):
        return torch.empty_like(values, dtype=torch.bool).bernoulli_(1 - share)
    words = torch.empty(-(-values.numel() // 8), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)
    kept = words.view(torch.uint8)[: values.numel()] < round((1 - share) * 256)
    return kept.as_strided(values.shape, values.stride())


def _dense(values: Tensor) -> bool:
    """Return True if the values are contiguous, channels first or channels last."""
    channels_last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return values.is_contiguous() or channels_last


def widths_before(widths: Sequence[int], first: int) -> list[tuple[int, int]]:
    """(in, out) channels of successive layers, of which the first has ``first`` channels in."""
    return list(zip((first, *widths), widths, strict=False))


def to_uint8(images: Tensor) -> Tensor:
    """Convert generator output ``(N, 3, R, R)`` in [-1, 1] to ``uint8 (N, R, R, 3)``.

    All code converts with this function: a plain cast would silently wrap values out of range.

    Raises:
        ValueError: a value is outside [-1, 1] or NaN.
    """
    low, high = torch.aminmax(images.float())
    if not (float(low) >= -1 and float(high) <= 1):
        raise ValueError(f"images must be in [-1, 1], found [{float(low):.3g}, {float(high):.3g}]")
    return ((images.float() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_unit(images: Tensor) -> Tensor:
    """Scale images from [0, 1] to [-1, 1]."""
    return images * 2 - 1


class PixelNoise(nn.Module):
    """Add noise, with one value per pixel and a learned strength per channel.

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

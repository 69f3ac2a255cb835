"""Layers that the GANs share, and conversion of generated images to pixels."""

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

_STEP = 32
"""Divisor of the resolution: the first map of the thesis's generators is doubled five times."""


def first_side(resolution: int, widths: Sequence[int], doublings: int = 5) -> int:
    """Side of a generator's first map, which is doubled once per width.

    Raises:
        ConfigError: ``resolution`` is not a multiple of 32, or there are not ``doublings`` widths.
    """
    if resolution < _STEP or resolution % _STEP:
        near = max(_STEP, round(resolution / _STEP) * _STEP)
        raise ConfigError(
            f"data.resolution={resolution}: the GANs need a multiple of {_STEP}, such as {near}"
        )
    if len(widths) != doublings:
        raise ConfigError(f"gan.widths={list(widths)}: this generator takes {doublings} numbers")
    return int(resolution // 2**doublings)


def plain_widths(
    first: int | None, widths: Sequence[int] | None, adversary_widths: Sequence[int] | None
) -> tuple[int, Sequence[int], Sequence[int]]:
    """Return the channels of plain networks, which have no default that fits the resolution.

    Raises:
        ConfigError: a value is None.
    """
    if first is None or widths is None or adversary_widths is None:
        raise ConfigError(
            "gan.first, gan.widths, gan.adversary_widths=null: plain networks need numbers; set "
            "them, or gan.networks=strong"
        )
    return first, widths, adversary_widths


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


def batch_norm(channels: int, stack: Stack, maps: bool = True) -> nn.Module:
    """Return batch normalization of maps ``(B, C, h, w)``, or else of features ``(B, C)``.

    Epsilon and momentum are Keras's in both stacks; only the running variance differs. The epsilon
    is large so that a channel which is almost always zero after its ReLU is not amplified when it
    is not.
    """
    if stack == "keras":
        return KerasBatchNorm2d(channels) if maps else KerasBatchNorm1d(channels)
    norm = nn.BatchNorm2d if maps else nn.BatchNorm1d
    return norm(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)


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
        drops = self.training and self.dropout > 0
        scale = 1 / (1 - self.dropout) if drops else 1.0
        gain = (values > 0).to(values.dtype)
        gain.mul_((1 - self.slope) * scale).add_(self.slope * scale)
        if drops:
            gain.mul_(_kept(values.detach(), self.dropout))
        return values * gain

    def extra_repr(self) -> str:
        return f"slope={self.slope}, dropout={self.dropout}"


def _kept(values: Tensor, share: float) -> Tensor:
    """Random mask ``bool`` of the values that dropout keeps, in the memory layout of ``values``."""
    dense = values.is_contiguous() or (
        values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    )
    if values.device.type != "cpu" or not dense:
        return torch.empty_like(values, dtype=torch.bool).bernoulli_(1 - share)
    words = torch.empty(-(-values.numel() // 8), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)
    kept = words.view(torch.uint8)[: values.numel()] < round((1 - share) * 256)
    return kept.as_strided(values.shape, values.stride())


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

"""Layers of generators and discriminators, and the way from their range to bytes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.errors import ConfigError

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


def upsampling(before: int, after: int) -> nn.ConvTranspose2d:
    """A 5 x 5 transposed convolution that doubles the side."""
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1)


def downsampling(before: int, after: int) -> nn.Conv2d:
    """A 5 x 5 convolution that halves an even side."""
    return nn.Conv2d(before, after, 5, stride=2, padding=2)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the constants of the thesis's stack.

    The large epsilon matters where it follows a ReLU: a channel that is nearly always zero would
    otherwise be blown up when it once is not.
    """
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Dropout(nn.Module):
    """Dropout of single values, from whole random words on a CPU.

    A discriminator drops millions of values a step, and torch's CPU generator draws them one by one
    on one core; 8 bytes of one draw serve 8 values (see ``tests/benchmarks/dropout.py``). The share
    is rounded to 256ths there; other devices use torch's own.

    Args:
        share: of the values that become 0 in training, below 1; the others are scaled up to keep
            the mean.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.kept = round((1 - share) * 256)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.share:
            return values
        if values.device.type != "cpu" or not _dense(values):
            return F.dropout(values, self.share)
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64)
        words.random_(torch.iinfo(torch.int64).min, None)
        below = words.view(torch.uint8)[: values.numel()] < self.kept
        mask = below.as_strided(values.shape, values.stride())
        return values * (mask * (256 / self.kept)).to(values.dtype)

    def extra_repr(self) -> str:
        return f"share={self.share}"


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

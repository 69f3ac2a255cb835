"""Keras's layers and Adam where they differ from PyTorch's.

Models with ``stack="keras"`` use them, initial weights from :mod:`leuk.training.initial`, and
Keras's patience before the learning rate falls. Tests compare them with values from Keras 3.8.0 on
TensorFlow 2.21; ``conf/recipe/thesis.yaml`` lists the remaining differences from the thesis.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

Stack = Literal["keras", "torch"]
"""Framework whose conventions a model follows: Keras, as in the thesis, or PyTorch."""

NORM_EPSILON = 1e-3
"""Keras's default epsilon of batch and layer normalization."""

NORM_MOMENTUM = 0.01
"""Keras's momentum of 0.99 in PyTorch's convention, the weight of the new batch."""

_ADAM_EPSILON = 1e-7


class KerasBatchNorm1d(nn.BatchNorm1d):
    """Batch normalization of features ``(B, C)``; see :class:`KerasBatchNorm2d`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)

    def forward(self, values: Tensor) -> Tensor:
        return _normalized(self, values) if self.training else super().forward(values)


class KerasBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization of maps ``(B, C, h, w)`` with Keras's constants and running variance.

    Keras averages the biased variance of the batches, PyTorch the unbiased one, which is 3 % larger
    for features in a batch of 32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)

    def forward(self, values: Tensor) -> Tensor:
        return _normalized(self, values) if self.training else super().forward(values)


def _normalized(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Normalize values by their batch, and update the running statistics as Keras does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    # Momentum None: the running statistics are the mean over all batches.
    share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    # Copies, because autograd refuses in-place changes of tensors that batch_norm has saved.
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    normalized = F.batch_norm(values, mean, variance, norm.weight, norm.bias, True, share, norm.eps)
    count = values.numel() // values.shape[1]
    norm.running_mean.copy_(mean)
    # From (1 - share) * old + share * unbiased to (1 - share) * old + share * biased.
    norm.running_var.mul_((1 - share) / count).add_(variance, alpha=(count - 1) / count)
    return normalized


def batch_norm1d(features: int, stack: Stack) -> nn.BatchNorm1d:
    """Return batch normalization of features ``(B, C)`` with the constants of a stack."""
    return KerasBatchNorm1d(features) if stack == "keras" else nn.BatchNorm1d(features)


def batch_norm2d(channels: int, stack: Stack) -> nn.BatchNorm2d:
    """Return batch normalization of maps ``(B, C, h, w)`` with the constants of a stack."""
    return KerasBatchNorm2d(channels) if stack == "keras" else nn.BatchNorm2d(channels)


def layer_norm(width: int, stack: Stack) -> nn.LayerNorm:
    """Return layer normalization of tokens ``(..., D)`` with the constants of a stack."""
    return nn.LayerNorm(width, eps=NORM_EPSILON) if stack == "keras" else nn.LayerNorm(width)


class SameConv2d(nn.Conv2d):
    """Convolution that divides the side by its stride, with Keras's ``same`` padding.

    If the padding is odd, the additional row and column of zeros are at the bottom and right.
    PyTorch pads symmetrically, which shifts every window up and left by a pixel.

    Args:
        before: input channels.
        after: output channels.
        kernel: side of the kernel, at least ``stride``.
        stride: stride, a divisor of the side of the maps.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__(before, after, kernel, stride=stride)
        first = (kernel - stride) // 2
        last = kernel - stride - first
        self.margins = (first, last, first, last)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(F.pad(maps, self.margins))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution that multiplies the side by its stride, with Keras's cropping.

    It is the gradient of :class:`SameConv2d`: if the crop is odd, an additional row and column are
    removed at the bottom and right.

    Args:
        before: input channels.
        after: output channels.
        kernel: side of the kernel, at least ``stride``.
        stride: factor on the side of the maps.
        bias: add a bias.
    """

    def __init__(self, before: int, after: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__(
            before, after, kernel, stride=stride, padding=(kernel - stride) // 2, bias=bias
        )
        self.odd = (kernel - stride) % 2

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        grown = super().forward(maps, output_size)
        return grown[..., :-1, :-1] if self.odd else grown


class KerasAdam(AdamW):
    """Adam, or AdamW if a weight decay is set, with Keras's epsilon.

    Keras adds 1e-7 to the root of the second moment before the bias correction, PyTorch after it.
    In PyTorch's convention this is an epsilon of 3e-6 at the first step and 1.3e-7 at step 1,000.

    Args:
        parameters: tensors or parameter groups, as in :class:`torch.optim.Adam`.
        arguments: other arguments of :class:`torch.optim.AdamW`.
    """

    def __init__(self, parameters: Any, **arguments: Any) -> None:
        super().__init__(parameters, **{"weight_decay": 0.0, **arguments})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; ``closure``, if given, computes the loss and its gradients again."""
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group["eps"] = _ADAM_EPSILON / math.sqrt(1 - group["betas"][1] ** group["steps"])
        loss: float | None = super().step(closure)
        return loss

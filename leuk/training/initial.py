"""Initial weights as drawn by Keras, the thesis's framework."""

import math

import torch
from torch import Tensor, nn


def glorot(layer: nn.Module) -> None:
    """Set Glorot uniform weights and zero biases, Keras's defaults; for :meth:`Module.apply`."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, KerasAttention):
        # ``apply`` has just set its output layer as a plain linear layer; set it again.
        layer._reset_parameters()


def glorot_uniform(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Fill a weight from U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16).

    Needed for weights whose shape, and so fan-in and fan-out, differs between Keras and PyTorch.
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-limit, limit)


class KerasAttention(nn.MultiheadAttention):
    """Multi-head attention with the initial weights of Keras's ``MultiHeadAttention``.

    Until 2026 (keras-team/keras#22789) Keras computed the fans of its three-dimensional kernels,
    (D, heads, D / heads) and for the output (heads, D / heads, D), as if they were convolutions.
    With D = 256 and 4 heads, the weights of queries, keys and values start in +-0.019 and those of
    the output in +-0.068; in PyTorch they start in +-0.077 and +-0.108.
    """

    def _reset_parameters(self) -> None:
        super()._reset_parameters()
        width, heads = self.embed_dim, self.num_heads
        glorot_uniform(self.in_proj_weight, width * heads, width * self.head_dim)
        glorot_uniform(self.out_proj.weight, width, width * heads)

"""Initial weights of the thesis's stack."""

import math

import torch
from torch import Tensor, nn


def glorot(layer: nn.Module) -> None:
    """Glorot uniform weights and biases of 0, as Keras starts from; for :meth:`Module.apply`."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, KerasAttention):
        # After the linear layer inside it, which starts otherwise here than by itself.
        layer._reset_parameters()


def glorot_uniform(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Fill a weight from U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16).

    For weights whose Keras kernel has another shape, and so other fans, than PyTorch would count.
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-limit, limit)


class KerasAttention(nn.MultiheadAttention):
    """Attention whose weights start as those of Keras's ``MultiHeadAttention``.

    Until 2026 (keras-team/keras#22789) Keras took its three-dimensional kernels, (D, heads,
    D / heads) and for the output (heads, D / heads, D), for convolutions. With 256 numbers and 4
    heads queries, keys and values start within 0.019 and the output within 0.068; PyTorch starts
    them within 0.077 and 0.108.
    """

    def _reset_parameters(self) -> None:
        super()._reset_parameters()
        width, heads = self.embed_dim, self.num_heads
        glorot_uniform(self.in_proj_weight, width * heads, width * self.head_dim)
        glorot_uniform(self.out_proj.weight, width, width * heads)

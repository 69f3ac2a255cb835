"""Fusions of the two branch vectors of the hybrid."""

from typing import Literal

import torch
from torch import Tensor, nn

FusionName = Literal["add", "attention", "gated", "concat"]
"""``add`` is the thesis's; the others are alternatives that it mentions but does not test."""


class Add(nn.Module):
    """Sum of the branches.

    Args:
        width: length D of each branch's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """Fused vectors ``(..., D)`` of two vectors ``(..., D)``."""
        return convolved + attended


class Concat(nn.Module):
    """Concatenation of the branches.

    Args:
        width: length D of each branch's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * width

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """Fused vectors ``(..., 2 * D)`` of two vectors ``(..., D)``."""
        return torch.cat([convolved, attended], dim=-1)


class Gated(nn.Module):
    """Sum weighted by a gate per element (the gated unit of Arevalo et al. 2017).

    Args:
        width: length D of each branch's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.gate = nn.Linear(2 * width, width)

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """Fused vectors ``(..., D)`` of two vectors ``(..., D)``."""
        share = self.gate(torch.cat([convolved, attended], dim=-1)).sigmoid()
        fused: Tensor = share * convolved + (1 - share) * attended
        return fused


class Attention(nn.Module):
    """Mean weighted by attention (the pooling of Ilse et al. 2018, section 2.4).

    Args:
        width: length D of each branch's vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """Fused vectors ``(..., D)`` of two vectors ``(..., D)``."""
        both = torch.stack([convolved, attended], dim=-2)  # (..., 2, D)
        return (self.shares(both) * both).sum(dim=-2)

    def shares(self, both: Tensor) -> Tensor:
        """Weights ``(..., 2, 1)`` of the branches ``(..., 2, D)``, with sum 1."""
        weights: Tensor = self.query(self.key(both).tanh()).softmax(dim=-2)
        return weights


FUSIONS: dict[FusionName, type[Add | Concat | Gated | Attention]] = {
    "add": Add,
    "attention": Attention,
    "gated": Gated,
    "concat": Concat,
}

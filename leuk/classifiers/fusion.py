"""How the hybrid makes one vector of its two branches'."""

from typing import Literal

import torch
from torch import Tensor, nn

FusionName = Literal["add", "attention", "gated", "concat"]
"""``add`` is the thesis's; the others are the alternatives that it names and does not test."""


class Add(nn.Module):
    """The sum.

    Args:
        width: numbers a vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """``(..., D)`` of two ``(..., D)``."""
        return convolved + attended


class Concat(nn.Module):
    """One after the other.

    Args:
        width: numbers a vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * width

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """``(..., 2 * D)`` of two ``(..., D)``."""
        return torch.cat([convolved, attended], dim=-1)


class Gated(nn.Module):
    """A gate for each number between the two (the gated unit of Arevalo et al. 2017).

    Args:
        width: numbers a vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.gate = nn.Linear(2 * width, width)

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """``(..., D)`` of two ``(..., D)``."""
        share = self.gate(torch.cat([convolved, attended], dim=-1)).sigmoid()
        fused: Tensor = share * convolved + (1 - share) * attended
        return fused


class Attention(nn.Module):
    """The mean of the two, weighed by attention (the pooling of Ilse et al. 2018, section 2.4).

    Args:
        width: numbers a vector.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.key = nn.Linear(width, width)
        self.query = nn.Linear(width, 1, bias=False)

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """``(..., D)`` of two ``(..., D)``."""
        both = torch.stack([convolved, attended], dim=-2)  # (..., 2, D)
        return (self.shares(both) * both).sum(dim=-2)

    def shares(self, both: Tensor) -> Tensor:
        """Weights ``(..., 2, 1)``, which sum to 1, of the branches ``(..., 2, D)``."""
        weights: Tensor = self.query(self.key(both).tanh()).softmax(dim=-2)
        return weights


FUSIONS: dict[FusionName, type[Add | Concat | Gated | Attention]] = {
    "add": Add,
    "attention": Attention,
    "gated": Gated,
    "concat": Concat,
}

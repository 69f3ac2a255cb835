"""The transformer encoder of the ViT and the hybrid, and the cost of attention off the cell.

Sits between the patch embeddings of a form and its head.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.config.ranges import Count, Share
from leuk.data.decode import LIT
from leuk.errors import ConfigError
from leuk.training.initial import KerasAttention, glorot_uniform
from leuk.training.stack import Stack, layer_norm

Norm = Literal["post", "pre"]
"""LayerNorm after each residual sum (Vaswani et al. 2017) or before each branch (Xiong et al.
2020)."""


class Block(nn.Module):
    """Self-attention and a two-layer perceptron, each with a residual connection.

    Args:
        width: numbers a token.
        heads: of the attention.
        mlp: hidden units of the perceptron.
        norm: where LayerNorm is.
        drop_path: share of cells in training whose residual branch is left out (stochastic depth,
            Huang et al. 2016).
        stack: whose attention starts it, and whose constants LayerNorm has.
    """

    def __init__(
        self, width: int, heads: int, mlp: int, norm: Norm, drop_path: float, stack: Stack
    ) -> None:
        super().__init__()
        self.pre = norm == "pre"
        attention = KerasAttention if stack == "keras" else nn.MultiheadAttention
        self.attention = attention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))
        self.norm1, self.norm2 = layer_norm(width, stack), layer_norm(width, stack)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: Tensor, weights: bool = False, first_only: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(B, N, D)`` and, with ``weights``, the attention ``(B, heads, N, N)``.

        With ``first_only`` the same of the first token alone, ``(B, 1, D)`` and
        ``(B, heads, 1, N)``.
        """
        asking = tokens[:, :1] if first_only else tokens
        seen = self.norm1(tokens) if self.pre else tokens
        # Without weights it takes the fused kernel, which is the slower one on a CPU.
        attended, attention = self.attention(
            seen[:, :1] if first_only else seen,
            seen,
            seen,
            need_weights=weights or tokens.device.type == "cpu",
            average_attn_weights=False,
        )
        kept = attention if weights else None
        asking = asking + self.drop_path(attended)
        if self.pre:
            return asking + self.drop_path(self.mlp(self.norm2(asking))), kept
        asking = self.norm1(asking)
        return self.norm2(asking + self.drop_path(self.mlp(asking))), kept


class Encoder(nn.Module):
    """[CLS] and learned positions, then blocks (Dosovitskiy et al. 2021, section 3.1).

    Weights start as the caller sets them. Positions and [CLS] start Glorot uniform, Keras's default
    for a weight of a layer, or under ``stack="torch"`` from a normal distribution with a standard
    deviation of 0.02 as in that paper's code.

    Args:
        side: patches a side.
        width: numbers a token.
        depth: blocks.
        heads: of each block's attention.
        mlp: hidden units of each block.
        norm: where LayerNorm is.
        drop_path: of the last block; rises to it linearly from 0 in the first.
        last_norm: whether a LayerNorm follows the blocks; always so with ``norm="pre"``.
        stack: whose conventions it follows, see :mod:`leuk.training.stack`.

    Attributes:
        patch_grid: passes the patch tokens on as ``(B, D, h, w)`` before the last block. There
            every patch still reaches [CLS]; after the last block none does, and a gradient to them
            is exactly 0.

    Raises:
        ConfigError: ``heads`` do not divide ``width``.
    """

    def __init__(
        self,
        side: int,
        width: Count = 256,
        depth: Count = 4,
        heads: Count = 4,
        mlp: Count = 512,
        norm: Norm = "post",
        drop_path: Share = 0.0,
        last_norm: bool = True,
        stack: Stack = "keras",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"model.heads={heads}: it must divide model.width={width}; choose from "
                f"{divisors(width)}"
            )
        self.side = side
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.positions = nn.Parameter(torch.empty(1, side**2 + 1, width).normal_(std=0.02))
        if stack == "keras":
            glorot_uniform(self.cls_token, 1, width)
            glorot_uniform(self.positions, side**2 + 1, width)
        shares = [drop_path * number / max(1, depth - 1) for number in range(depth)]
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp, norm, share, stack) for share in shares
        )
        self.patch_grid = nn.Identity()
        normed = last_norm or norm == "pre"
        self.last_norm = layer_norm(width, stack) if normed else nn.Identity()

    def forward(self, patches: Tensor) -> Tensor:
        """Encoded tokens ``(B, 1 + N, D)``, [CLS] first, from patch embeddings ``(B, N, D)``."""
        return self._run(patches)[0]

    def cls(self, patches: Tensor) -> Tensor:
        """Encoded [CLS] ``(B, D)``, as :meth:`forward` gives it.

        In the last block nobody reads the patches any more, so that only [CLS] goes through it.
        """
        return self._run(patches, cls_only=True)[0][:, 0]

    def attended(self, patches: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encoded tokens, and of each block ``(B, heads, 1 + N, 1 + N)`` whose rows sum to 1."""
        return self._run(patches, weights=True)

    def as_grid(self, encoded: Tensor) -> Tensor:
        """The patch tokens of ``(B, 1 + N, D)`` as ``(B, D, h, w)``."""
        grid: Tensor = encoded[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        return grid

    def _run(
        self, patches: Tensor, weights: bool = False, cls_only: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        # Not len(): an exported network would be for that many cells alone.
        cls = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([cls.to(patches.dtype), patches], dim=1) + self.positions
        attentions = []
        for number, block in enumerate(self.blocks, start=1):
            last = number == len(self.blocks)
            if last:
                grid = self.patch_grid(self.as_grid(tokens))
                tokens = torch.cat([tokens[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
            tokens, attention = block(tokens, weights, cls_only and last)
            if attention is not None:
                attentions.append(attention)
        return self.last_norm(tokens), attentions


def attention_off_cell(attentions: Sequence[Tensor], outside: Tensor) -> Tensor:
    """Attention that [CLS] pays to what is not the cell: a scalar from 0 to 1.

    The thesis proposes to regularise attention maps and does not say how. Here the mean over cells,
    blocks and heads of what falls on black background is a cost, in the spirit of Ross et al. 2017
    (*Right for the right reasons*), who penalise gradients there.

    Args:
        attentions: of each block, ``(B, heads, 1 + N, 1 + N)``.
        outside: ``(B, N)``, share of each patch that lies off the cell.
    """
    rows = torch.stack([attention[:, :, 0, 1:] for attention in attentions], dim=1)
    return (rows.float() * outside[:, None, None]).sum(dim=-1).mean()


def off_cell(images: Tensor, patch: int, stride: int) -> Tensor:
    """Share of each patch that is background, darker than a cell is, ``(B, N)``.

    Args:
        images: ``(B, 3, R, R)`` in [0, 1], before any normalisation.
        patch: pixels a side.
        stride: pixels from one patch to the next.
    """
    lit = (images.amax(dim=1, keepdim=True) > LIT / 255).float()
    return 1 - F.avg_pool2d(lit, patch, stride).flatten(1)


def divisors(number: int) -> list[int]:
    """Whole numbers that divide ``number``, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]

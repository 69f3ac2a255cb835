"""Transformer encoder of the ViT and the hybrid, and a loss on attention outside the cell."""

from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.data.decode import cell_mask
from leuk.errors import ConfigError
from leuk.training import KerasAttention, Stack, glorot_uniform, layer_norm

Norm = Literal["post", "pre"]
"""LayerNorm after each residual sum (``post``, Vaswani et al. 2017) or before each branch (``pre``,
Xiong et al. 2020)."""


class Block(nn.Module):
    """Transformer block: self-attention and a two-layer perceptron with residual connections.

    ``drop_path`` is the share of training images whose residual branches are dropped (stochastic
    depth, Huang et al. 2016); it is 0 in the first block of an encoder and rises linearly.
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

        With ``first_only``, only the first token is computed: ``(B, 1, D)`` and
        ``(B, heads, 1, N)``.
        """
        queries = tokens[:, :1] if first_only else tokens
        inputs = self.norm1(tokens) if self.pre else tokens
        # need_weights=False selects the fused kernel, which is slower on a CPU.
        attended, attention = self.attention(
            inputs[:, :1] if first_only else inputs,
            inputs,
            inputs,
            need_weights=weights or tokens.device.type == "cpu",
            average_attn_weights=False,
        )
        kept = attention if weights else None
        queries = queries + self.drop_path(attended)
        if self.pre:
            return queries + self.drop_path(self.mlp(self.norm2(queries))), kept
        queries = self.norm1(queries)
        return self.norm2(queries + self.drop_path(self.mlp(queries))), kept


class Encoder(nn.Module):
    """Transformer encoder with [CLS] and learned positions (Dosovitskiy et al. 2021, section 3.1).

    [CLS] and positions are initialized here: Glorot uniform, Keras's default for layer weights, or
    with ``stack="torch"`` normal with a standard deviation of 0.02, as in the paper's code. The
    caller initializes the other weights.

    Attributes:
        patch_grid: identity layer on the patch tokens ``(B, D, h, w)`` before the last block. At
            this point all patches still influence [CLS]; after the last block none does, and their
            gradients are exactly 0.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(
        self,
        side: int,  # patches per side of the image
        width: int,  # length of a token
        depth: int,  # blocks
        heads: int,
        mlp: int,  # hidden units of each block's perceptron
        norm: Norm,
        drop_path: float,  # of the last block
        stack: Stack,
        last_norm: bool = True,  # a LayerNorm after the blocks, which norm="pre" always has
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"model.heads={heads}: does not divide model.width={width}; choose from "
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
        """Encode patch embeddings ``(B, N, D)`` to tokens ``(B, 1 + N, D)``, [CLS] first."""
        return self._run(patches)[0]

    def cls(self, patches: Tensor) -> Tensor:
        """Return the encoded [CLS] ``(B, D)``, equal to that of :meth:`forward`.

        The last block computes only [CLS], as the other tokens are no longer needed.
        """
        return self._run(patches, cls_only=True)[0][:, 0]

    def attended(self, patches: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return encoded tokens, and each block's attention ``(B, heads, 1 + N, 1 + N)``."""
        return self._run(patches, weights=True)

    def as_grid(self, encoded: Tensor) -> Tensor:
        """Patch tokens ``(B, D, h, w)`` from encoded tokens ``(B, 1 + N, D)``."""
        grid: Tensor = encoded[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        return grid

    def _run(
        self, patches: Tensor, weights: bool = False, cls_only: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        # Not len(), which would fix the batch size of an exported network.
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
    """Share of [CLS]'s attention that is on background, a scalar in [0, 1].

    The thesis proposes to regularize attention maps but gives no method. This loss is the mean over
    images, blocks and heads of the attention on black background, after Ross et al. 2017 (*Right
    for the right reasons*), who penalize gradients there.

    Args:
        attentions: attention of each block, ``(B, heads, 1 + N, 1 + N)``.
        outside: share of each patch that is background, ``(B, N)``.
    """
    rows = torch.stack([attention[:, :, 0, 1:] for attention in attentions], dim=1)
    return (rows.float() * outside[:, None, None]).sum(dim=-1).mean()


def off_cell(images: Tensor, patch: int, stride: int) -> Tensor:
    """Share ``(B, N)`` of each patch that is background, i.e. too dark for a cell.

    Args:
        images: images ``(B, 3, R, R)`` in [0, 1], not normalized.
        patch: side of a patch in pixels.
        stride: distance between neighboring patches in pixels.
    """
    lit = cell_mask(images)[:, None].float()
    return 1 - F.avg_pool2d(lit, patch, stride).flatten(1)


def divisors(number: int) -> list[int]:
    """Divisors of ``number``, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]

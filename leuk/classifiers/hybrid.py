"""Hybrid of the thesis: a transformer and a pooled vector over the same convolutional map."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.base import two_class
from leuk.classifiers.optim import Optim
from leuk.classifiers.prototypes import Head, Prototyped, PrototypeHead, refuse_attention_loss
from leuk.classifiers.transformer import Encoder, Norm, attention_off_cell, divisors, off_cell
from leuk.config.schema import Count, Counts, NotNegative, Share
from leuk.errors import ConfigError
from leuk.training import Stack, batch_norm2d, glorot, glorot_uniform

# --- Fusions of the two branch vectors of the hybrid

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


class Hybrid(Prototyped):
    """Convolutions to a feature map F, then two branches whose vectors are fused.

    The CNN branch averages F and has a dense layer. The transformer branch encodes patches of F and
    returns [CLS]. A perceptron on the fused vector gives the logit.

    The defaults are the thesis's form with 4 x 4 patches of F, i.e. 49 tokens and 4,942,849
    trainable parameters at 224 px. The thesis also states nine 16 x 16 patches of the 28 x 28 map,
    which is possible only with a stride of 6: ``patch=16, stride=6``, 20,661,249 parameters.
    Initial weights are Glorot uniform, as in Keras.

    Args:
        resolution: side of the images in pixels.
        widths: filters of the convolution blocks; all but the last halve the image.
        patch: side of a patch in positions of F.
        stride: distance between neighboring patches in positions of F; the patches must cover F.
        width: length of a token and of a branch's vector.
        depth: blocks of the encoder.
        heads: attention heads per block.
        mlp: hidden units of each block's perceptron.
        hidden: units of the layers of the final perceptron.
        dropout: dropout rate of the CNN branch's vector and of each perceptron layer.
        norm: ``post`` (the thesis's equations) or ``pre``.
        drop_path: stochastic depth, see :class:`leuk.classifiers.transformer.Encoder`.
        fusion: ``add`` (the thesis's form), ``attention``, ``gated`` or ``concat``.
        head: ``linear``, or ``prototype`` on the branches fused patch by patch.
        per_class: prototypes per class.
        attention_loss: weight of the loss on attention outside the cell, see
            :func:`leuk.classifiers.transformer.attention_off_cell`; 0 for none.
        stack: framework whose conventions the model follows, see :mod:`leuk.training`.
        optim: optimizer settings.

    Raises:
        ConfigError: ``resolution`` cannot be halved by all poolings, the patches do not cover F,
            ``heads`` does not divide ``width``, or ``attention_loss`` is set with
            ``head="prototype"``, which does not read [CLS].
    """

    def __init__(
        self,
        resolution: Count = 224,
        widths: Counts = (32, 64, 128, 256),
        patch: Count = 4,
        stride: Count = 4,
        width: Count = 256,
        depth: Count = 6,
        heads: Count = 4,
        mlp: Count = 512,
        hidden: Counts = (512, 256),
        dropout: Share = 0.5,
        norm: Norm = "post",
        drop_path: Share = 0.0,
        fusion: FusionName = "add",
        head: Head = "linear",
        per_class: Count = 5,
        attention_loss: NotNegative = 0.0,
        stack: Stack = "keras",
        optim: Optim | Mapping[str, Any] = Optim(),
    ) -> None:
        super().__init__(optim)
        self.stack = stack
        self._save_plain(
            resolution=resolution,
            widths=list(widths),
            patch=patch,
            stride=stride,
            width=width,
            depth=depth,
            heads=heads,
            mlp=mlp,
            hidden=list(hidden),
            dropout=dropout,
            norm=norm,
            drop_path=drop_path,
            fusion=fusion,
            head=head,
            per_class=per_class,
            attention_loss=attention_loss,
            stack=stack,
        )
        self.step = 2 ** (len(widths) - 1)
        side = _side(resolution, self.step)
        _check_patches(side, patch, stride)
        refuse_attention_loss(attention_loss, head)
        self.side, self.patch, self.stride = side, patch, stride
        self.attention_loss = attention_loss
        # Overlapping patches share positions of F, so F cannot be restored from changed patches.
        self.has_patches = stride == patch
        self.blocks = _blocks(widths, stack)
        self.vector = nn.Sequential(nn.Linear(widths[-1], width), nn.ReLU(), nn.Dropout(dropout))
        embedding = nn.Conv2d if self.has_patches else GatheredConv2d
        self.embed = embedding(widths[-1], width, kernel_size=patch, stride=stride)
        tokens = (side - patch) // stride + 1
        self.encoder = Encoder(
            tokens, width, depth, heads, mlp, norm, drop_path, last_norm=False, stack=stack
        )
        self.fusion = FUSIONS[fusion](width)
        self._build_head(head, hidden, dropout, per_class)

    def _build_head(self, head: Head, hidden: Counts, dropout: float, per_class: int) -> None:
        self.prototypes = None
        if head == "linear":
            self.perceptron = _perceptron(self.fusion.width, hidden, dropout)
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(hidden[-1], 1)
        self.apply(glorot)
        if self.stack == "keras":  # there the projection of patches is a dense layer
            inputs = self.embed.weight[0].numel()
            glorot_uniform(self.embed.weight, inputs, self.embed.out_channels)
        if head == "prototype":
            self.prototypes = PrototypeHead(self.fusion.width, per_class)

    def feature_map(self, images: Tensor) -> Tensor:
        """Feature map F ``(B, C, s, s)`` of images ``(B, 3, R, R)`` in [0, 1]."""
        feature_map: Tensor = self.blocks(self.normalized(images))
        return feature_map

    def features(self, images: Tensor) -> Tensor:
        return self._features(self.feature_map(images))

    def logits(self, features: Tensor) -> Tensor:
        if self.prototypes is not None:
            return self.prototypes.logits(features)
        return two_class(self.head(self.dropout(features)))

    def tokens(self, images: Tensor) -> Tensor:
        """Patches of F ``(B, N, C * patch * patch)``, row by row, before their projection.

        These are not embeddings, because the CNN branch reads F too.

        Raises:
            ConfigError: patches overlap, so ``has_patches`` is False.
        """
        self._refuse_overlap()
        patches = F.unfold(self.feature_map(images), self.patch, stride=self.stride)
        return patches.transpose(1, 2)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of both branches from patches of F, see :meth:`tokens`."""
        self._refuse_overlap()
        size = (self.side, self.side)
        feature_map = F.fold(tokens.transpose(1, 2), size, self.patch, stride=self.stride)
        return self.logits(self._features(feature_map))

    def attention(self, images: Tensor) -> Tensor:
        """Attention ``(B, depth, heads, 1 + N, 1 + N)``, [CLS] first; each row sums to 1."""
        return torch.stack(
            self.encoder.attended(self._embedded(self.feature_map(images)))[1], dim=1
        )

    def grid(self, images: Tensor) -> Tensor:
        return self._grid(self.feature_map(images))

    @property
    def patch_pixels(self) -> tuple[int, int]:
        return self.step * self.patch, self.step * self.stride

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.attention_loss:
            return super().training_logits(images, labels)
        feature_map = self.feature_map(images)
        encoded, attentions = self.encoder.attended(self._embedded(feature_map))
        off = attention_off_cell(attentions, off_cell(images, *self.patch_pixels))
        fused = self.fusion(self._pooled(feature_map), encoded[:, 0])
        return self.logits(self.perceptron(fused)), self.attention_loss * off

    @property
    def cam_layer(self) -> nn.Module:
        """ReLU of the last convolution, which both branches depend on."""
        last = self.blocks[-1]
        assert isinstance(last, nn.Sequential)
        return last[1]

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations

    def _features(self, feature_map: Tensor) -> Tensor:
        """Features ``(B, D)`` from F ``(B, C, s, s)``."""
        if self.prototypes is not None:
            similarities: Tensor = self.prototypes(self._grid(feature_map))
            return similarities
        cls = self.encoder.cls(self._embedded(feature_map))
        features: Tensor = self.perceptron(self.fusion(self._pooled(feature_map), cls))
        return features

    def _pooled(self, feature_map: Tensor) -> Tensor:
        vector: Tensor = self.vector(feature_map.mean(dim=(2, 3)))
        return vector

    def _embedded(self, feature_map: Tensor) -> Tensor:
        """Patch embeddings ``(B, N, D)`` from F ``(B, C, s, s)``."""
        embedded: Tensor = self.embed(feature_map)
        return embedded.flatten(2).transpose(1, 2)

    def _grid(self, feature_map: Tensor) -> Tensor:
        """Both branches fused patch by patch: mean of F in the patch, and encoded token."""
        means = F.avg_pool2d(feature_map, self.patch, self.stride).flatten(2).transpose(1, 2)
        encoded = self.encoder(self._embedded(feature_map))
        fused = self.fusion(self.vector(means), encoded[:, 1:])
        side = self.encoder.side
        grid: Tensor = fused.transpose(1, 2).unflatten(2, (side, side))
        return grid

    def _refuse_overlap(self) -> None:
        if not self.has_patches:
            raise ConfigError(
                f"model.stride={self.stride}: patches of side {self.patch} overlap and cannot be "
                f"changed separately; set model.stride={self.patch} to explain by patches"
            )


class GatheredConv2d(nn.Conv2d):
    """Convolution of overlapping square patches, computed as a matrix product.

    It gives the same values as ``nn.Conv2d``, whose backward pass takes twice as long on a CPU.
    """

    def forward(self, feature_map: Tensor) -> Tensor:
        """Map ``(B, D, n, n)`` from a map ``(B, C, s, s)``."""
        size, stride = self.kernel_size[0], self.stride[0]
        # Channels last, the memory order of the weights, so they are not copied.
        patches = feature_map.permute(0, 2, 3, 1).unfold(1, size, stride).unfold(2, size, stride)
        flat = patches.permute(0, 1, 2, 4, 5, 3).flatten(3)  # (B, n, n, size * size * C)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(flat, weight, self.bias).permute(0, 3, 1, 2)


def _side(resolution: int, step: int) -> int:
    if resolution % step:
        raise ConfigError(
            f"data.resolution={resolution}: this hybrid needs a multiple of {step}, "
            f"such as {round(resolution / step) * step or step}"
        )
    return resolution // step


def _check_patches(side: int, patch: int, stride: int) -> None:
    if patch > side:
        raise ConfigError(
            f"model.patch={patch}: larger than the {side} x {side} feature map; choose from "
            f"{divisors(side)} with the same model.stride"
        )
    strides = [d for d in divisors(side - patch) if d <= patch] if patch < side else [patch]
    if stride not in strides:
        raise ConfigError(
            f"model.patch={patch} and model.stride={stride}: do not cover the {side} x {side} "
            f"map; choose model.stride from {strides}, or model.patch from {divisors(side)} with "
            "the same model.stride"
        )


def _blocks(widths: Counts, stack: Stack) -> nn.Sequential:
    """Return blocks of convolution, ReLU, batch normalization and, except in the last, pooling."""
    blocks = []
    for number, (before, after) in enumerate(zip((3, *widths), widths, strict=False), start=1):
        layers: list[nn.Module] = [
            nn.Conv2d(before, after, kernel_size=3, padding="same"),
            nn.ReLU(),
            batch_norm2d(after, stack),
        ]
        if number < len(widths):
            layers.append(nn.MaxPool2d(2))
        blocks.append(nn.Sequential(*layers))
    return nn.Sequential(*blocks)


def _perceptron(width: int, hidden: Counts, dropout: float) -> nn.Sequential:
    """Return dense layers with GELU and dropout between them; the head has its own dropout."""
    layers: list[nn.Module] = []
    for before, after in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-1])

"""Hybrid of the thesis: a transformer and a pooled vector over the same convolutional map."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.base import two_class
from leuk.classifiers.optim import Optim
from leuk.classifiers.prototypes import Attentive, Head, PrototypeHead, refuse_attention_loss
from leuk.classifiers.transformer import Encoder, Norm, divisors
from leuk.config.schema import Count, Counts, NotNegative, Share
from leuk.errors import ConfigError
from leuk.training import Stack, batch_norm2d, glorot, glorot_uniform

FusionName = Literal["add", "attention", "gated", "concat"]
"""``add`` is the thesis's; the others are alternatives that it mentions but does not test."""


class Fusion(nn.Module):
    """One vector from the vectors of two branches.

    Args:
        name: ``add`` for their sum, ``concat`` for both; ``gated`` for a sum weighted by a gate
            per element (the gated unit of Arevalo et al. 2017), or ``attention`` for a mean
            weighted by attention (the pooling of Ilse et al. 2018, section 2.4).
        width: length D of each branch's vector.

    Attributes:
        width: length of the fused vector: 2 D for ``concat``, else D.
    """

    def __init__(self, name: FusionName, width: int) -> None:
        super().__init__()
        self.name = name
        self.width = 2 * width if name == "concat" else width
        if name == "gated":
            self.gate = nn.Linear(2 * width, width)
        elif name == "attention":
            self.key = nn.Linear(width, width)
            self.query = nn.Linear(width, 1, bias=False)

    def forward(self, convolved: Tensor, attended: Tensor) -> Tensor:
        """Fused vectors ``(..., width)`` of two vectors ``(..., D)``."""
        if self.name == "add":
            return convolved + attended
        if self.name == "attention":
            both = torch.stack([convolved, attended], dim=-2)  # (..., 2, D)
            shares = self.query(self.key(both).tanh()).softmax(dim=-2)  # (..., 2, 1)
            mean: Tensor = (shares * both).sum(dim=-2)
            return mean
        joined = torch.cat([convolved, attended], dim=-1)  # (..., 2 D)
        if self.name == "concat":
            return joined
        share: Tensor = self.gate(joined).sigmoid()
        return share * convolved + (1 - share) * attended


class Hybrid(Attentive):
    """Convolutions to a feature map F, then two branches whose vectors are fused.

    The CNN branch averages F and has a dense layer. The transformer branch encodes patches of F and
    returns [CLS]. A perceptron on the fused vector gives the logit.

    The defaults are the thesis's form with 4 x 4 patches of F, i.e. 49 tokens and 4,942,849
    trainable parameters at 224 px. The thesis also states nine 16 x 16 patches of the 28 x 28 map,
    which is possible only with a stride of 6: ``patch=16, stride=6``, 20,661,249 parameters.
    Initial weights are Glorot uniform, as in Keras.

    Raises:
        ConfigError: ``resolution`` cannot be halved by all poolings, the patches do not cover F,
            ``heads`` does not divide ``width``, or ``attention_loss`` is set with
            ``head="prototype"``, which does not read [CLS].
    """

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels
        widths: Counts = (32, 64, 128, 256),  # filters of the blocks; all but the last halve
        patch: Count = 4,  # side of a patch in positions of F
        stride: Count = 4,  # between neighboring patches, in positions of F; they must cover F
        width: Count = 256,  # length of a token and of a branch's vector
        depth: Count = 6,  # blocks of the encoder
        heads: Count = 4,  # attention heads per block
        mlp: Count = 512,  # hidden units of each block's perceptron
        hidden: Counts = (512, 256),  # units of the layers of the final perceptron
        dropout: Share = 0.5,  # of the CNN branch's vector and of each perceptron layer
        norm: Norm = "post",  # as in the thesis's equations
        drop_path: Share = 0.0,  # stochastic depth, the drop rate of the last block
        fusion: FusionName = "add",
        head: Head = "linear",  # or prototypes on the branches fused patch by patch
        per_class: Count = 5,  # prototypes per class
        attention_loss: NotNegative = 0.0,  # weight of the loss on attention outside the cell
        stack: Stack = "keras",  # framework whose conventions are followed, see leuk.training
        optim: Optim | Mapping[str, Any] = Optim(),
    ) -> None:
        super().__init__(optim, stack)
        self.step = 2 ** (len(widths) - 1)
        if resolution % self.step:
            raise ConfigError(
                f"data.resolution={resolution}: this hybrid needs a multiple of {self.step}, "
                f"such as {round(resolution / self.step) * self.step or self.step}"
            )
        self.side = resolution // self.step
        _check_patches(self.side, patch, stride)
        refuse_attention_loss(attention_loss, head)
        self.patch, self.stride, self.attention_loss = patch, stride, attention_loss
        # Overlapping patches share positions of F, so F cannot be restored from changed patches.
        self.has_patches = stride == patch

        self.blocks = nn.Sequential()
        for before, after in pairwise((3, *widths)):
            layers = [nn.Conv2d(before, after, 3, padding="same"), nn.ReLU()]
            layers.append(batch_norm2d(after, stack))
            if len(self.blocks) < len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
            self.blocks.append(nn.Sequential(*layers))
        self.vector = nn.Sequential(nn.Linear(widths[-1], width), nn.ReLU(), nn.Dropout(dropout))
        embedding = nn.Conv2d if self.has_patches else GatheredConv2d
        self.embed = embedding(widths[-1], width, kernel_size=patch, stride=stride)
        tokens = (self.side - patch) // stride + 1
        self.encoder = Encoder(
            tokens, width, depth, heads, mlp, norm, drop_path, stack, last_norm=False
        )
        self.fusion = Fusion(fusion, width)
        if head == "linear":
            dense: list[nn.Module] = []
            for before, after in pairwise((self.fusion.width, *hidden)):
                dense += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]
            self.perceptron = nn.Sequential(*dense[:-1])
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(hidden[-1], 1)
        self.apply(glorot)
        if stack == "keras":  # there the projection of patches is a dense layer
            glorot_uniform(self.embed.weight, self.embed.weight[0].numel(), width)
        if head == "prototype":
            self.prototypes = PrototypeHead(self.fusion.width, per_class)

    def body(self, images: Tensor) -> Tensor:
        feature_map: Tensor = self.blocks(self.normalized(images))  # F (B, C, s, s)
        return feature_map

    def embedded(self, body: Tensor) -> Tensor:
        embedded: Tensor = self.embed(body)  # (B, D, n, n)
        return embedded.flatten(2).transpose(1, 2)

    def fused(self, body: Tensor, cls: Tensor) -> Tensor:
        pooled = self.vector(body.mean(dim=(2, 3)))  # (B, D)
        features: Tensor = self.perceptron(self.fusion(pooled, cls))
        return features

    def linear(self, features: Tensor) -> Tensor:
        return two_class(self.head(self.dropout(features)))

    def patch_features(self, body: Tensor) -> Tensor:
        """Both branches fused patch by patch: mean of F in the patch, and encoded token."""
        means = F.avg_pool2d(body, self.patch, self.stride).flatten(2).transpose(1, 2)
        fused = self.fusion(self.vector(means), self.encoder(self.embedded(body))[:, 1:])
        grid: Tensor = fused.transpose(1, 2).unflatten(2, (self.encoder.side, self.encoder.side))
        return grid

    def tokens(self, images: Tensor) -> Tensor:
        """Patches of F ``(B, N, C * patch * patch)``, row by row, before their projection.

        These are not embeddings, because the CNN branch reads F too.

        Raises:
            ConfigError: patches overlap, so ``has_patches`` is False.
        """
        self._refuse_overlap()
        return F.unfold(self.body(images), self.patch, stride=self.stride).transpose(1, 2)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of both branches from patches of F, see :meth:`tokens`."""
        self._refuse_overlap()
        size = (self.side, self.side)
        body = F.fold(tokens.transpose(1, 2), size, self.patch, stride=self.stride)
        return self.logits(self.features_of(body))

    def _refuse_overlap(self) -> None:
        if not self.has_patches:
            raise ConfigError(
                f"model.stride={self.stride}: patches of side {self.patch} overlap and cannot be "
                f"changed separately; set model.stride={self.patch} to explain by patches"
            )

    @property
    def patch_pixels(self) -> tuple[int, int]:
        return self.step * self.patch, self.step * self.stride

    @property
    def cam_layer(self) -> nn.Module:
        """ReLU of the last convolution, which both branches depend on."""
        last = self.blocks[-1]
        assert isinstance(last, nn.Sequential)
        return last[1]


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

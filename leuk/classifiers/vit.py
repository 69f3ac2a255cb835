"""Vision Transformer (Dosovitskiy et al. 2021) of the thesis, small enough for 7,000 images."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from leuk.classifiers.optim import Optim
from leuk.classifiers.prototypes import Attentive, Head, PrototypeHead, refuse_attention_loss
from leuk.classifiers.transformer import Encoder, Norm, divisors
from leuk.config.schema import Count, NotNegative, Share
from leuk.errors import ConfigError
from leuk.training import Stack, batch_norm2d, glorot

Stem = Literal["patch", "conv"]
"""Embedding of patches: a linear map of each, or 3 x 3 convolutions of stride 2 (Xiao et al. 2021,
*Early convolutions help transformers see better*)."""


class ViT(Attentive):
    """Patch embeddings, a transformer encoder, and a head on [CLS].

    The defaults are the thesis's form: 16 x 16 patches, four post-LN blocks, a last LayerNorm, a
    hidden layer with ReLU and two logits, with 2,422,786 trainable parameters at 224 px. Initial
    weights are Glorot uniform, as in Keras.

    Raises:
        ConfigError: ``patch`` does not divide ``resolution``, or is not a power of two although
            ``stem="conv"``; ``heads`` does not divide ``width``; ``attention_loss`` is set with
            ``head="prototype"``, which does not read [CLS].
    """

    has_patches = True

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels
        patch: Count = 16,  # side of a patch in pixels, a divisor of resolution
        width: Count = 256,  # length of a token
        depth: Count = 4,  # blocks of the encoder
        heads: Count = 4,  # attention heads per block
        mlp: Count = 512,  # hidden units of each block's perceptron
        hidden: Count = 256,  # units of the head's hidden layer
        dropout: Share = 0.5,  # dropout rate of the head's hidden units
        norm: Norm = "post",  # as in the thesis's equations
        stem: Stem = "patch",
        drop_path: Share = 0.0,  # stochastic depth, the drop rate of the last block
        head: Head = "linear",  # or prototypes on the encoded patches
        per_class: Count = 5,  # prototypes per class
        attention_loss: NotNegative = 0.0,  # weight of the loss on attention outside the cell
        stack: Stack = "keras",  # framework whose conventions are followed, see leuk.training
        optim: Optim | Mapping[str, Any] = Optim(),
    ) -> None:
        super().__init__(optim, stack)
        _check_patch(resolution, patch, stem)
        refuse_attention_loss(attention_loss, head)
        self.patch, self.attention_loss = patch, attention_loss
        self.stem = (
            nn.Conv2d(3, width, kernel_size=patch, stride=patch)
            if stem == "patch"
            else _convolutions(patch, width, stack)
        )
        side = resolution // patch
        self.encoder = Encoder(side, width, depth, heads, mlp, norm, drop_path, stack)
        if head == "linear":
            self.hidden = nn.Linear(width, hidden)
            self.activation = nn.ReLU()
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(hidden, 2)
        self.apply(glorot)
        if head == "prototype":
            self.prototypes = PrototypeHead(width, per_class)

    def body(self, images: Tensor) -> Tensor:
        embedded: Tensor = self.stem(self.normalized(images))  # (B, D, h, w)
        return embedded.flatten(2).transpose(1, 2)

    def tokens(self, images: Tensor) -> Tensor:
        """Patch embeddings ``(B, N, D)``, row by row, of images ``(B, 3, R, R)`` in [0, 1]."""
        return self.body(images)

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Logits ``(B, 2)`` from patch embeddings ``(B, N, D)``."""
        return self.logits(self.features_of(tokens))

    def fused(self, body: Tensor, cls: Tensor) -> Tensor:
        hidden: Tensor = self.activation(self.hidden(cls))
        return hidden

    def linear(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def patch_features(self, body: Tensor) -> Tensor:
        return self.encoder.as_grid(self.encoder(body))

    @property
    def patch_pixels(self) -> tuple[int, int]:
        return self.patch, self.patch

    @property
    def cam_layer(self) -> nn.Module:
        """Patch tokens before the last block; after it their gradients would be exactly 0."""
        return self.encoder.patch_grid


def _check_patch(resolution: int, patch: int, stem: Stem) -> None:
    valid = divisors(resolution)
    if patch not in valid:
        raise ConfigError(
            f"model.patch={patch}: does not divide data.resolution={resolution}; choose from "
            f"{valid}"
        )
    powers = [d for d in valid if d > 1 and d & (d - 1) == 0]
    if stem == "conv" and patch not in powers:
        raise ConfigError(
            f"model.patch={patch}: model.stem=conv halves the image and needs a power of 2; "
            f"choose from {powers}"
        )


def _convolutions(patch: int, width: int, stack: Stack) -> nn.Module:
    """Return convolutions that halve the side and double the filters until a pixel is a patch."""
    halvings = patch.bit_length() - 1
    widths = [3, *(max(8, width // 2 ** (halvings - number)) for number in range(halvings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
            batch_norm2d(after, stack),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], width, kernel_size=1))

"""CNN of the thesis, with options for a stronger form."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from leuk.classifiers.base import two_class
from leuk.classifiers.optim import Optim
from leuk.classifiers.prototypes import Head, Prototyped, PrototypeHead
from leuk.config.schema import Count, Counts, Share
from leuk.errors import ConfigError
from leuk.training import Stack, batch_norm1d, batch_norm2d, glorot

Pool = Literal["flatten", "average"]
"""Input of the hidden layer: all positions of the last feature map, or their mean."""


class CNN(Prototyped):
    """Convolution blocks with pooling, batch normalization, a hidden layer and a logit.

    The defaults are the thesis's form: 3 x 3 convolutions of 32, 64 and 128 filters, with
    13,139,265 trainable parameters at 224 px. Initial weights are Glorot uniform, as in Keras.

    Raises:
        ConfigError: ``resolution`` cannot be halved once per block.
    """

    def __init__(
        self,
        resolution: Count = 224,  # side of the images in pixels, a multiple of 2^blocks
        widths: Counts = (32, 64, 128),  # filters of each block
        hidden: Count = 128,  # units of the hidden layer
        dropout: Share = 0.5,  # dropout rate of the hidden units
        convolutions: Count = 1,  # convolutions per block
        batch_norm: bool = False,  # normalize each convolution before its ReLU
        pool: Pool = "flatten",
        head: Head = "linear",  # or prototypes on the last block
        per_class: Count = 5,  # prototypes per class
        stack: Stack = "keras",  # framework whose conventions are followed, see leuk.training
        optim: Optim | Mapping[str, Any] = Optim(),
    ) -> None:
        super().__init__(optim, stack)
        self.step = 2 ** len(widths)
        if resolution % self.step:
            raise ConfigError(
                f"data.resolution={resolution}: this CNN needs a multiple of {self.step}, "
                f"such as {round(resolution / self.step) * self.step or self.step}"
            )
        self.blocks = nn.Sequential()
        for before, after in pairwise((3, *widths)):
            last = len(self.blocks) == len(widths) - 1
            self.blocks.append(_block(before, after, convolutions, batch_norm, last, stack))
        if head == "prototype":
            self.apply(glorot)
            self.prototypes = PrototypeHead(widths[-1], per_class)
            return
        positions = (resolution // self.step) ** 2 if pool == "flatten" else 1
        self.pool = nn.Identity() if pool == "flatten" else nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.norm = batch_norm1d(widths[-1] * positions, stack)
        self.hidden = nn.Linear(widths[-1] * positions, hidden)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)
        self.apply(glorot)

    def body(self, images: Tensor) -> Tensor:
        maps: Tensor = self.blocks(self.normalized(images))  # (B, C, s, s)
        return maps

    def patch_features(self, body: Tensor) -> Tensor:
        return body

    def pooled(self, body: Tensor) -> Tensor:
        # Channels last, as in memory and in Keras's Flatten, so nothing is copied.
        flat = self.flatten(self.pool(body).permute(0, 2, 3, 1))  # (B, s*s*C)
        hidden: Tensor = self.activation(self.hidden(self.norm(flat)))
        return hidden

    def linear(self, features: Tensor) -> Tensor:
        return two_class(self.head(self.dropout(features)))

    @property
    def patch_pixels(self) -> tuple[int, int]:
        return self.step, self.step

    @property
    def cam_layer(self) -> nn.Module:
        """ReLU of the last convolution, before pooling."""
        last = self.blocks[-1]
        assert isinstance(last, nn.Sequential)
        return last[-2]


def _block(
    before: int, after: int, convolutions: int, batch_norm: bool, last: bool, stack: Stack
) -> nn.Sequential:
    """Return convolutions with ReLU, and a max pooling.

    ReLU and max pooling commute, and after the pooling the ReLU has a quarter of the work. In the
    last block the ReLU comes first, as Grad-CAM needs its output at full resolution.
    """
    layers: list[nn.Module] = []
    for width in (before, *[after] * (convolutions - 1)):
        layers.append(nn.Conv2d(width, after, 3, padding="same", bias=not batch_norm))
        if batch_norm:
            layers.append(batch_norm2d(after, stack))
        layers.append(nn.ReLU())
    relu, pooling = layers.pop(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, *((relu, pooling) if last else (pooling, relu)))

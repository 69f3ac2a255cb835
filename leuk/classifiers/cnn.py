"""The thesis's CNN, and the options that make a stronger one of it."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from leuk.classifiers.classifier import two_class
from leuk.classifiers.optim import Optim
from leuk.classifiers.prototyped import Prototyped
from leuk.classifiers.prototypes import Head, PrototypeHead
from leuk.config.ranges import Count, Counts, Share
from leuk.errors import ConfigError
from leuk.training.initial import glorot
from leuk.training.stack import Stack, batch_norm1d, batch_norm2d

Pool = Literal["flatten", "average"]
"""What the hidden layer sees of the last block: every place of it, or their mean."""


class CNN(Prototyped):
    """Convolution blocks, each halved by pooling, batch normalisation, a hidden layer, one logit.

    Without arguments it is the thesis's form (section 3 of the design: 3 x 3 convolutions of 32,
    64 and 128 filters, 13,139,265 trainable parameters at 224 px). Weights start Glorot uniform, as
    in the thesis's stack.

    Args:
        resolution: pixels a side; a multiple of 2 to the number of blocks.
        widths: filters of each block.
        hidden: units of the hidden layer.
        dropout: share of hidden units dropped in training.
        convolutions: of each block, before its pooling.
        batch_norm: whether each is normalised before its ReLU.
        pool: ``flatten`` (the thesis's) or ``average``, over all places of the last block.
        head: ``linear``, or ``prototype`` on the last block.
        per_class: prototypes a class.
        stack: whose conventions it follows, see :mod:`leuk.training.stack`.
        optim: how weights are updated.

    Raises:
        ConfigError: a resolution the pooling cannot halve evenly.
    """

    def __init__(
        self,
        resolution: Count = 224,
        widths: Counts = (32, 64, 128),
        hidden: Count = 128,
        dropout: Share = 0.5,
        convolutions: Count = 1,
        batch_norm: bool = False,
        pool: Pool = "flatten",
        head: Head = "linear",
        per_class: Count = 5,
        stack: Stack = "keras",
        optim: Optim | Mapping[str, Any] = Optim(),
    ) -> None:
        super().__init__(optim)
        self.stack = stack
        self._save_plain(
            resolution=resolution,
            widths=list(widths),
            hidden=hidden,
            dropout=dropout,
            convolutions=convolutions,
            batch_norm=batch_norm,
            pool=pool,
            head=head,
            per_class=per_class,
            stack=stack,
        )
        self.step = 2 ** len(widths)
        if resolution % self.step:
            raise ConfigError(
                f"data.resolution={resolution}: this CNN needs a multiple of {self.step}, "
                f"such as {round(resolution / self.step) * self.step or self.step}"
            )
        self.blocks = nn.Sequential(
            *(
                _block(before, after, convolutions, batch_norm, number == len(widths), stack)
                for number, (before, after) in enumerate(zip((3, *widths), widths, strict=False), 1)
            )
        )
        self.prototypes = None
        if head == "prototype":
            self.apply(glorot)
            self.prototypes = PrototypeHead(widths[-1], per_class)
            return
        places = (resolution // self.step) ** 2 if pool == "flatten" else 1
        self.pool = nn.Identity() if pool == "flatten" else nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()  # (B, s, s, C) -> (B, s*s*C)
        self.norm = batch_norm1d(widths[-1] * places, stack)
        self.hidden = nn.Linear(widths[-1] * places, hidden)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)
        self.apply(glorot)

    def features(self, images: Tensor) -> Tensor:
        grid = self.grid(images)
        if self.prototypes is not None:
            similarities: Tensor = self.prototypes(grid)
            return similarities
        # Place by place, as channels-last memory lies and the thesis's stack flattens: no copy.
        flat = self.norm(self.flatten(self.pool(grid).permute(0, 2, 3, 1)))
        hidden: Tensor = self.activation(self.hidden(flat))
        return hidden

    def logits(self, features: Tensor) -> Tensor:
        if self.prototypes is not None:
            return self.prototypes.logits(features)
        return two_class(self.head(self.dropout(features)))

    def grid(self, images: Tensor) -> Tensor:
        grid: Tensor = self.blocks(self.normalised(images))  # (B, C, s, s)
        return grid

    @property
    def patch_pixels(self) -> tuple[int, int]:
        return self.step, self.step

    @property
    def cam_layer(self) -> nn.Module:
        """The last convolution after its ReLU, before pooling."""
        last = self.blocks[-1]
        assert isinstance(last, nn.Sequential)
        return last[-2]

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations


def _block(
    before: int, after: int, convolutions: int, batch_norm: bool, last: bool, stack: Stack
) -> nn.Sequential:
    """Convolutions, each with its ReLU, and a pooling.

    A ReLU and a maximum can change places: after the pooling the ReLU has a quarter to do. In the
    last block it stays before, where Grad-CAM looks.
    """
    layers: list[nn.Module] = []
    for number in range(convolutions):
        layers.append(
            nn.Conv2d(
                before if number == 0 else after,
                after,
                kernel_size=3,
                padding="same",
                bias=not batch_norm,
            )
        )
        if batch_norm:
            layers.append(batch_norm2d(after, stack))
        layers.append(nn.ReLU())
    *convolved, relu = layers
    pooling = nn.MaxPool2d(2)
    return nn.Sequential(*convolved, *((relu, pooling) if last else (pooling, relu)))

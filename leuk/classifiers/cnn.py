"""The thesis's CNN: three convolutions, each halved by pooling, and one hidden layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leuk.classifiers.classifier import Classifier, Optim, two_class
from leuk.config.ranges import Count, Counts, Share
from leuk.errors import ConfigError


class CNN(Classifier):
    """Three convolution blocks, flatten, batch normalisation, one hidden layer, one logit.

    Without arguments it is the thesis's form (section 3 of the design: 3 x 3 convolutions of 32,
    64 and 128 filters, 13,139,265 trainable parameters at 224 px).

    Args:
        resolution: pixels a side; a multiple of 2 to the number of blocks.
        widths: filters of each block.
        hidden: units of the hidden layer.
        dropout: share of hidden units dropped in training.
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
        optim: Optim | Mapping[str, Any] = Optim(),
    ) -> None:
        super().__init__(optim)
        self._save_plain(resolution=resolution, widths=list(widths), hidden=hidden, dropout=dropout)
        step = 2 ** len(widths)
        if resolution % step:
            raise ConfigError(
                f"data.resolution={resolution}: this CNN needs a multiple of {step}, "
                f"such as {round(resolution / step) * step or step}"
            )
        side = resolution // step
        self.blocks = nn.Sequential(
            *(_block(before, after) for before, after in zip((3, *widths), widths, strict=False))
        )
        self.flatten = nn.Flatten()  # (B, C, s, s) -> (B, C*s*s)
        self.norm = nn.BatchNorm1d(widths[-1] * side * side)
        self.hidden = nn.Linear(widths[-1] * side * side, hidden)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 1)
        self.apply(_glorot)

    def features(self, images: Tensor) -> Tensor:
        grid = self.blocks(self.normalised(images))  # (B, C, s, s)
        hidden: Tensor = self.activation(self.hidden(self.norm(self.flatten(grid))))
        return hidden

    def logits(self, features: Tensor) -> Tensor:
        return two_class(self.head(self.dropout(features)))

    @property
    def cam_layer(self) -> nn.Module:
        """The last convolution after its ReLU, before pooling."""
        last = self.blocks[-1]
        assert isinstance(last, nn.Sequential)
        return last[1]

    def cam_grid(self, activations: Tensor) -> Tensor:
        return activations


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)
    )


def _glorot(module: nn.Module) -> None:
    """Keras's initial weights, which the thesis's stack started from."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)

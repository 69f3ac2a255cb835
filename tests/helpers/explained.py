"""Test doubles for explanation checks: images, and a classifier with known maps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from leuk.classifiers.base import Classifier, two_class
from leuk.classifiers.optim import Optim
from leuk.explain.base import Attribution, Explainer

SIDE = 32


class Linear(Classifier):
    """Log-odds of leukemia are a weighted sum of the pixels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(Optim())
        self.weight = nn.Parameter(weight)

    def features(self, images: Tensor) -> Tensor:
        return (images * self.weight).sum(dim=(1, 2, 3))[:, None]

    def logits(self, features: Tensor) -> Tensor:
        return two_class(features)

    @property
    def cam_layer(self) -> nn.Module:
        raise NotImplementedError

    def cam_grid(self, activations: Tensor) -> Tensor:
        raise NotImplementedError

    def truth(self, images: Tensor) -> Tensor:
        """Contribution of each pixel to the log-odds."""
        return (images * self.weight).sum(dim=1).detach()


class FunctionExplainer(Explainer):
    """Explainer from any function of classifier and images."""

    def __init__(self, name: str, function: Callable[[Classifier, Tensor], Tensor]) -> None:
        self.name, self.function = name, function

    def _explain(self, classifier: Classifier, images: Tensor, background: Tensor) -> Attribution:
        return Attribution(self.function(classifier, images).detach().cpu(), "pixel")


TRUTH = FunctionExplainer("truth", lambda classifier, images: classifier.truth(images))
REVERSED = FunctionExplainer("reversed", lambda classifier, images: -classifier.truth(images))


def disc(radius: float = 10.0, side: int = SIDE) -> Tensor:
    """Disc ``bool (R, R)`` around the center of the image."""
    line = torch.arange(side) - (side - 1) / 2
    return torch.hypot(line[:, None], line) <= radius


def some_cells(count: int, seed: int = 0, side: int = SIDE) -> Tensor:
    """Speckled discs of several sizes on black."""
    generator = torch.Generator().manual_seed(seed)
    speckles = 0.2 + 0.7 * torch.rand((count, 3, side, side), generator=generator)
    masks = [disc((0.28 + 0.02 * (i % 6)) * side, side) for i in range(count)]
    return speckles * torch.stack(masks)[:, None]


def linear(seed: int = 0, scale: float = 0.05) -> Linear:
    weight = torch.randn((3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return Linear(scale * weight)

"""A head that decides by similarity to patches of training cells (ProtoPNet, Chen et al. 2019).

:mod:`leuk.classifiers.prototyped` puts it in the place of a form's own head (``head=prototype``).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.config.ranges import Count
from leuk.data.labels import Label

Head = Literal["linear", "prototype"]
"""The form's own head, or prototypes."""

_WIDTH = 128
"""Numbers a prototype, the smallest of the paper's."""

_SPREAD = 0.06
"""Of initial prototypes about the middle of the sigmoid, where the patches of a network that has
learned nothing lie. From all over [0, 1], as in the paper, whose network is pretrained, only one
prototype of a class ever came near a patch; from closer together all came to the same (measured).
"""

_BACKGROUND = 0.5
"""Share of a patch off the cell above which no prototype is made of it."""

_EPSILON = 1e-4
"""Keeps the similarity of equal patches finite; the authors' value."""

# The authors' costs: see section 2.2 of the paper, and their code for the values.
_CLUSTER = 0.8
_SEPARATION = 0.08
_OTHER_CLASS = 1e-4

_OTHER_WEIGHT = -0.5
"""Initial weight of a prototype in the other class's logit."""


@dataclass(frozen=True)
class Prototype:
    """A patch of a training cell that a class is recognised by.

    Attributes:
        label: the class, see :class:`leuk.data.labels.Label`.
        row: the training cell in the bank.
        top: of the patch in the image, pixels.
        left: likewise.
        side: of the patch, pixels.
        similarity: of the learned prototype to the patch that took its place; the logarithm of
            10,000, about 9.2, is equality.
    """

    label: int
    row: int
    top: int
    left: int
    side: int
    similarity: float


@dataclass(frozen=True)
class Nearest:
    """The patch that is nearest to each prototype among those of its class.

    Attributes:
        distances: ``(P,)`` squared Euclidean; infinite where no cell of the class was seen.
        patches: ``(P, D)``.
        places: ``int64 (P, 3)``: row of the bank, and row and column in the grid.
    """

    distances: Tensor
    patches: Tensor
    places: Tensor

    def or_nearer(self, other: "Nearest") -> "Nearest":
        """Prototype by prototype the nearer of two."""
        nearer = other.distances < self.distances
        return Nearest(
            torch.where(nearer, other.distances, self.distances),
            torch.where(nearer[:, None], other.patches, self.patches),
            torch.where(nearer[:, None], other.places, self.places),
        )


class PrototypeHead(nn.Module):
    """Similarities of a grid to prototypes, and logits from them.

    Two 1 x 1 convolutions, the second with a sigmoid, bring the grid into the space of the
    prototypes. The similarity of squared distance d is log((d + 1) / (d + 1e-4)), its maximum over
    the grid is one feature, and a layer without bias makes logits of the features, its weights
    starting at 1 for a prototype's own class and -0.5 for the other.

    Args:
        channels: of the grid.
        per_class: prototypes a class.
    """

    classes: Tensor
    places: Tensor
    similarities: Tensor

    def __init__(self, channels: Count, per_class: Count = 5) -> None:
        super().__init__()
        count = per_class * len(Label)
        self.embed = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 1), nn.ReLU(), nn.Conv2d(_WIDTH, _WIDTH, 1), nn.Sigmoid()
        )
        self.prototypes = nn.Parameter(_SPREAD * (torch.rand(count, _WIDTH) - 0.5))
        self.register_buffer("classes", torch.arange(len(Label)).repeat_interleave(per_class))
        self.register_buffer("places", torch.full((count, 3), -1))
        self.register_buffer("similarities", torch.zeros(count))
        self.head = nn.Linear(count, len(Label), bias=False)
        own = F.one_hot(self.classes, len(Label)).T
        with torch.no_grad():
            self.head.weight.copy_(torch.where(own > 0, 1.0, _OTHER_WEIGHT))

    def forward(self, grid: Tensor) -> Tensor:
        """Similarities ``(B, P)``, healthy prototypes first, of a grid ``(B, C, h, w)``."""
        return _similarity(self._distances(self.patches(grid)).amin(dim=(2, 3)))

    def with_cost(self, grid: Tensor, labels: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities, and the cost of prototypes that tell the classes apart badly.

        Every cell should have a patch near a prototype of its class (cluster cost) and none near
        the other class's (separation cost); weights between classes should be few. The patch of the
        first has to be the cell's, which is ours: the paper's birds fill their pictures.

        Args:
            grid: ``(B, C, h, w)``.
            labels: ``(B,)``.
            outside: ``(B, h * w)``, share of each patch that lies off the cell.
        """
        distances = self._distances(self.patches(grid))
        nearest = distances.amin(dim=(2, 3))
        own = labels[:, None] == self.classes
        near_cell = _off_cell_away(distances, outside).amin(dim=(2, 3))
        cluster = near_cell.masked_fill(~own, torch.inf).amin(dim=1).mean()
        separation = nearest.masked_fill(own, torch.inf).amin(dim=1).mean()
        cost = _CLUSTER * cluster - _SEPARATION * separation + self._few()
        return _similarity(nearest), cost

    def logits(self, similarities: Tensor) -> Tensor:
        """Logits ``(B, 2)`` from similarities ``(B, P)``."""
        logits: Tensor = self.head(similarities)
        return logits

    def nearest(self, grid: Tensor, labels: Tensor, rows: Tensor, outside: Tensor) -> Nearest:
        """The nearest patches of cells within one batch.

        Args:
            grid: ``(B, C, h, w)``.
            labels: ``(B,)``.
            rows: ``(B,)`` of the bank.
            outside: ``(B, h * w)``, share of each patch that lies off the cell.
        """
        patches = self.patches(grid)  # (B, D, h, w)
        other = labels[:, None] != self.classes
        distances = _off_cell_away(self._distances(patches), outside)
        distances = distances.masked_fill(other[:, :, None, None], torch.inf)
        # (B, P, h, w) -> (P, B*h*w)
        smallest, where = distances.transpose(0, 1).flatten(1).min(dim=1)
        height, width = patches.shape[2:]
        cell, place = where // (height * width), where % (height * width)
        places = torch.stack([rows[cell], place // width, place % width], dim=1)
        return Nearest(smallest, patches.permute(0, 2, 3, 1).flatten(0, 2)[where], places)

    def take(self, nearest: Nearest) -> None:
        """Replace every prototype by the patch nearest to it, and remember where that is."""
        self.prototypes.data.copy_(nearest.patches)
        self.places.copy_(nearest.places)
        self.similarities.copy_(_similarity(nearest.distances))

    def refit(self, similarities: Tensor, labels: Tensor, class_weights: Tensor) -> None:
        """Fit the last layer alone, which is a convex problem (section 2.2, third stage).

        Args:
            similarities: ``(N, P)`` of training cells, once the prototypes are patches.
            labels: ``(N,)``.
            class_weights: ``(2,)`` of the loss.
        """
        weight, similarities = self.head.weight, similarities.float()
        optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(similarities @ weight.T, labels, class_weights) + self._few()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        weight.grad = None

    def _few(self) -> Tensor:
        """Cost of weights between classes."""
        between = F.one_hot(self.classes, len(Label)).T == 0
        return _OTHER_CLASS * (self.head.weight * between).abs().sum()

    def patches(self, grid: Tensor) -> Tensor:
        """The grid in the space of the prototypes, ``(B, D, h, w)``.

        In float32 under any autocast: equal patches must come out equal, and their distances are
        differences of near numbers.
        """
        with _float32(grid):
            patches: Tensor = self.embed(grid.float())
        # About 0 distances round least.
        return patches - 0.5

    def _distances(self, patches: Tensor) -> Tensor:
        """Squared distances ``(B, P, h, w)`` of the prototypes to ``(B, D, h, w)``."""
        with _float32(patches):
            products = F.conv2d(patches, self.prototypes[:, :, None, None])
            lengths = self.prototypes.square().sum(dim=1)[:, None, None]
            squares = patches.square().sum(dim=1, keepdim=True) - 2 * products + lengths
        return squares.clamp(min=0)


def _similarity(distances: Tensor) -> Tensor:
    """See :class:`PrototypeHead`; falls with the distance, so the least one gives the maximum."""
    return ((distances + 1) / (distances + _EPSILON)).log()


def _off_cell_away(distances: Tensor, outside: Tensor) -> Tensor:
    """Distances ``(B, P, h, w)`` with those of patches that are mostly background put behind all.

    Args:
        distances: finite.
        outside: ``(B, h * w)``.
    """
    away = outside > _BACKGROUND
    away = away & ~away.all(dim=1, keepdim=True)  # all background: no patch is better than another
    return distances.masked_fill(away.unflatten(1, distances.shape[2:])[:, None], torch.inf)


def _float32(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast where ``tensor`` is; the meta device knows none."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)

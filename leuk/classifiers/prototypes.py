"""Head that classifies by similarity to patches of training images (ProtoPNet, Chen et al. 2019).

``model.head=prototype`` selects it.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leuk.classifiers.base import BROKEN, Classifier
from leuk.classifiers.optim import Optim
from leuk.classifiers.transformer import Encoder, attention_off_cell, off_cell
from leuk.data.labels import Label
from leuk.data.pixels import Batch
from leuk.errors import ConfigError, DataError, TrainingError
from leuk.training import Stack

Head = Literal["linear", "prototype"]
"""The model's own linear head, or prototypes."""

_WIDTH = 128
"""Length of a prototype, the smallest in the paper."""

_SPREAD = 0.06
"""Range of initial prototypes around 0, where the patches of an untrained network are.

Measured: from the paper's range [0, 1], meant for a pretrained network, only one prototype per
class ever came near a patch; from a smaller range all prototypes came to the same patch.
"""

_BACKGROUND = 0.5
"""Largest share of background in a patch that may become a prototype."""

_EPSILON = 1e-4
"""Keeps the similarity of equal patches finite; value of the authors' code."""

# Weights of the losses of section 2.2 of the paper, with the values of the authors' code.
_CLUSTER = 0.8
_SEPARATION = 0.08
_OTHER_CLASS = 1e-4

_OTHER_WEIGHT = -0.5
"""Initial weight of a prototype in the logit of the other class."""


_BOTH = "prototypes need training images of both classes"


@dataclass(frozen=True)
class Prototype:
    """Patch of a training image that serves as a prototype of a class."""

    label: int  # class, see leuk.data.labels.Label
    row: int  # of the training image in the bank
    top: int  # edges and side of the patch in the image in pixels
    left: int
    side: int
    # Similarity of the learned prototype to the patch that replaced it; ln(10,000), about 9.2, if
    # they are equal.
    similarity: float


class PrototypeHead(nn.Module):
    """Similarities of a grid of patch features to prototypes, and logits from them.

    Two 1 x 1 convolutions, the second with a sigmoid, map the grid into the space of the
    prototypes. A squared distance d to a prototype gives the similarity log((d + 1) / (d + 1e-4)),
    and the maximum over the grid is a feature. A linear layer without bias maps the features to
    logits; its weights start at 1 for a prototype's own class and -0.5 for the other.

    Args:
        channels: channels C of the grid ``(B, C, h, w)``.
        per_class: prototypes per class.

    Attributes:
        classes: class of each of the P prototypes, ``int64 (P,)``.
        places: row in the bank, and row and column in the grid, of the training patch that a
            prototype is, ``int64 (P, 3)``; -1 before the projection.
        similarities: see :class:`Prototype`; 0 before the projection.
    """

    classes: Tensor
    places: Tensor
    similarities: Tensor

    def __init__(self, channels: int, per_class: int = 5) -> None:
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
        """Similarities ``(B, P)`` of a grid ``(B, C, h, w)``, healthy prototypes first."""
        return _similarity(self.distances(self.patches(grid)).amin(dim=(2, 3)))

    def with_cost(self, grid: Tensor, labels: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities ``(B, P)``, and the scalar loss that pulls prototypes to their class.

        The cluster loss wants a patch near a prototype of the image's class, the separation loss no
        patch near a prototype of the other class; the weights between classes have an L1 penalty.
        Unlike in the paper, the cluster loss considers only patches on the cell, because cells do
        not fill their images as the paper's birds do.

        Args:
            grid: patch features ``(B, C, h, w)``.
            labels: classes ``(B,)``.
            outside: share of each patch that is background, ``(B, h * w)``.
        """
        distances = self.distances(self.patches(grid))
        nearest = distances.amin(dim=(2, 3))
        own = labels[:, None] == self.classes
        near_cell = _exclude_background(distances, outside).amin(dim=(2, 3))
        cluster = near_cell.masked_fill(~own, torch.inf).amin(dim=1).mean()
        separation = nearest.masked_fill(own, torch.inf).amin(dim=1).mean()
        cost = _CLUSTER * cluster - _SEPARATION * separation + self.sparsity()
        return _similarity(nearest), cost

    def sparsity(self) -> Tensor:
        """L1 penalty on the weights between a prototype and the other class."""
        between = F.one_hot(self.classes, len(Label)).T == 0
        return _OTHER_CLASS * (self.head.weight * between).abs().sum()

    def patches(self, grid: Tensor) -> Tensor:
        """Grid ``(B, C, h, w)`` mapped into the space of the prototypes, ``(B, D, h, w)``.

        Always in float32: distances are differences of close numbers, and equal patches must have a
        distance near 0.
        """
        with _float32(grid):
            patches: Tensor = self.embed(grid.float())
        # Centered at 0, where the rounding error of distances is smallest.
        return patches - 0.5

    def distances(self, patches: Tensor) -> Tensor:
        """Squared distances ``(B, P, h, w)`` of patches ``(B, D, h, w)`` to the prototypes."""
        with _float32(patches):
            products = F.conv2d(patches, self.prototypes[:, :, None, None])
            lengths = self.prototypes.square().sum(dim=1)[:, None, None]
            squares = patches.square().sum(dim=1, keepdim=True) - 2 * products + lengths
        return squares.clamp(min=0)


def _similarity(distances: Tensor) -> Tensor:
    """Similarity of squared distances, see :class:`PrototypeHead`; it falls with distance."""
    return ((distances + 1) / (distances + _EPSILON)).log()


def _exclude_background(distances: Tensor, outside: Tensor) -> Tensor:
    """Distances ``(B, P, h, w)``, set to infinity for patches that are mostly background.

    Args:
        distances: finite distances ``(B, P, h, w)``.
        outside: share of each patch that is background, ``(B, h * w)``.
    """
    away = outside > _BACKGROUND
    away = away & ~away.all(dim=1, keepdim=True)  # keep images that are all background
    return distances.masked_fill(away.unflatten(1, distances.shape[2:])[:, None], torch.inf)


def _float32(tensor: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the tensor's device; the meta device has no autocast."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


class Prototyped(Classifier):
    """Classifier of a body that is read by a linear or a prototype head.

    Attributes:
        prototypes: the prototype head, or None with a linear head.
    """

    def __init__(self, optim: Optim | Mapping[str, Any], stack: Stack = "torch") -> None:
        super().__init__(optim, stack)
        self.prototypes: PrototypeHead | None = None

    @abstractmethod
    def body(self, images: Tensor) -> Tensor:
        """Compute maps or tokens of images ``(B, 3, R, R)`` in [0, 1] for the layers of a head."""

    @abstractmethod
    def pooled(self, body: Tensor) -> Tensor:
        """Features ``(B, D)`` of the linear head."""

    @abstractmethod
    def linear(self, features: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of the linear head."""

    @abstractmethod
    def patch_features(self, body: Tensor) -> Tensor:
        """Grid of patch features ``(B, C, h, w)``."""

    @property
    @abstractmethod
    def patch_pixels(self) -> tuple[int, int]:
        """Side of a patch of the grid, and distance between neighboring patches, in pixels."""

    def grid(self, images: Tensor) -> Tensor:
        """Patch features ``(B, C, h, w)`` of images ``(B, 3, R, R)`` in [0, 1]."""
        return self.patch_features(self.body(images))

    def features(self, images: Tensor) -> Tensor:
        return self.features_of(self.body(images))

    def features_of(self, body: Tensor) -> Tensor:
        """Features of either head."""
        if self.prototypes is None:
            return self.pooled(body)
        similarities: Tensor = self.prototypes(self.patch_features(body))
        return similarities

    def logits(self, features: Tensor) -> Tensor:
        if self.prototypes is None:
            return self.linear(features)
        logits: Tensor = self.prototypes.head(features)
        return logits

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.prototypes is None:
            return super().training_logits(images, labels)
        outside = off_cell(images, *self.patch_pixels)
        similarities, cost = self.prototypes.with_cost(self.grid(images), labels, outside)
        return self.logits(similarities), cost

    @torch.no_grad()
    def project(self, batches: Iterable[Batch]) -> list[Prototype]:
        """Replace every prototype by the nearest patch of a training image of its class.

        This is the second stage of Chen et al. 2019, section 2.2. In addition, at least half of the
        patch must be on the cell, as a patch of background explains nothing. Two prototypes may
        share a patch. The features of a patch also depend on the pixels around it.

        Args:
            batches: training images without augmentation, on the model's device.

        Returns:
            The positions of the prototypes, healthy ones first.

        Raises:
            DataError: ``batches`` lacks a class.
            TrainingError: the weights give NaN.
        """
        head = self.prototypes
        assert head is not None
        training = self.training
        self.eval()
        # Of each batch: squared distances (P,) of the nearest patches, infinite without an image of
        # the class; the patches (P, D); and their places (P, 3).
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for batch in batches:
            patches = head.patches(self.grid(batch["images"]))  # (B, D, h, w)
            other = batch["labels"][:, None] != head.classes  # (B, P)
            outside = off_cell(batch["images"], *self.patch_pixels)
            distances = _exclude_background(head.distances(patches), outside)  # (B, P, h, w)
            distances = distances.masked_fill(other[:, :, None, None], torch.inf)
            smallest, indices = distances.transpose(0, 1).flatten(1).min(dim=1)  # of (P, B*h*w)
            height, width = patches.shape[2:]
            image, position = indices // (height * width), indices % (height * width)
            places = torch.stack([batch["rows"][image], position // width, position % width], dim=1)
            found.append((smallest, patches.permute(0, 2, 3, 1).flatten(0, 2)[indices], places))
        self.train(training)
        if not found:
            raise DataError(_BOTH)
        smallest, nearest, places = (torch.stack(column) for column in zip(*found, strict=True))
        least, first = smallest.min(dim=0)  # over batches
        if bool(least.isnan().any()):
            raise TrainingError(BROKEN)
        if bool(least.isinf().any()):
            raise DataError(_BOTH)
        every = torch.arange(len(first), device=first.device)
        head.similarities.copy_(_similarity(least))
        head.prototypes.data.copy_(nearest[first, every])
        head.places.copy_(places[first, every])
        return self.placed()

    def refit_head(self, batches: Iterable[Batch]) -> None:
        """Fit only the last layer after :meth:`project`, a convex problem.

        This is the third stage of Chen et al. 2019, section 2.2.

        Args:
            batches: training images, as for :meth:`project`.
        """
        head = self.prototypes
        assert head is not None
        training = self.training
        self.eval()
        with torch.no_grad():
            pairs = [(self.features(batch["images"]), batch["labels"]) for batch in batches]
        self.train(training)
        similarities, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
        weight, similarities = head.head.weight, similarities.float()
        optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = similarities @ weight.T
            loss = F.cross_entropy(logits, labels, self.class_weights) + head.sparsity()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        weight.grad = None

    def placed(self) -> list[Prototype]:
        """Positions of the prototypes in training images; empty before :meth:`project`."""
        head = self.prototypes
        assert head is not None
        side, step = self.patch_pixels
        table = zip(
            head.classes.tolist(), head.places.tolist(), head.similarities.tolist(), strict=True
        )
        return [
            Prototype(label, row, y * step, x * step, side, similarity)
            for label, (row, y, x), similarity in table
            if row >= 0
        ]


class Attentive(Prototyped):
    """Model with a transformer, whose attention is explained and may be kept on the cell.

    Attributes:
        encoder: the transformer.
        attention_loss: weight of the loss on attention outside the cell.
    """

    encoder: Encoder
    attention_loss: float

    def embedded(self, body: Tensor) -> Tensor:
        """Patch embeddings ``(B, N, D)``."""
        return body

    @abstractmethod
    def fused(self, body: Tensor, cls: Tensor) -> Tensor:
        """Features of the linear head from the body and the encoded [CLS] ``(B, D)``."""

    def pooled(self, body: Tensor) -> Tensor:
        return self.fused(body, self.encoder.cls(self.embedded(body)))

    def attention(self, images: Tensor) -> Tensor:
        """Attention ``(B, depth, heads, 1 + N, 1 + N)``, [CLS] first; each row sums to 1."""
        _, attentions = self.encoder.attended(self.embedded(self.body(images)))
        return torch.stack(attentions, dim=1)

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.attention_loss:
            return super().training_logits(images, labels)
        body = self.body(images)
        encoded, attentions = self.encoder.attended(self.embedded(body))
        off = attention_off_cell(attentions, off_cell(images, *self.patch_pixels))
        return self.logits(self.fused(body, encoded[:, 0])), self.attention_loss * off


def refuse_attention_loss(attention_loss: float, head: Head) -> None:
    """Refuse an attention loss with a prototype head, which does not read [CLS]."""
    if attention_loss and head == "prototype":
        raise ConfigError(
            f"model.attention_loss={attention_loss}: prototypes do not read [CLS]; set "
            "model.head=linear or model.attention_loss=0"
        )

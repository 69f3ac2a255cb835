"""Base class of classifiers with an optional prototype head, and projection of prototypes."""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from leuk.classifiers.classifier import BROKEN, Classifier
from leuk.classifiers.encoder import off_cell
from leuk.classifiers.prototypes import Head, Nearest, Prototype, PrototypeHead
from leuk.data.bank import Batch
from leuk.errors import ConfigError, DataError, TrainingError


class Prototyped(Classifier):
    """Classifier with a linear or a prototype head.

    Attributes:
        prototypes: the prototype head, or None with a linear head.
    """

    prototypes: PrototypeHead | None

    @abstractmethod
    def grid(self, images: Tensor) -> Tensor:
        """Patch features ``(B, C, h, w)`` of images ``(B, 3, R, R)`` in [0, 1]."""

    @property
    @abstractmethod
    def patch_pixels(self) -> tuple[int, int]:
        """Side of a patch of the grid, and distance between neighboring patches, in pixels."""

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.prototypes is None:
            return super().training_logits(images, labels)
        similarities, cost = self.prototypes.with_cost(
            self.grid(images), labels, off_cell(images, *self.patch_pixels)
        )
        return self.prototypes.logits(similarities), cost

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
            ValueError: the head is not a prototype head.
        """
        head = self._head()
        training = self.training
        self.eval()
        nearest: Nearest | None = None
        for batch in batches:
            grid = self.grid(batch["images"])
            found = head.nearest(
                grid, batch["labels"], batch["rows"], off_cell(batch["images"], *self.patch_pixels)
            )
            nearest = found if nearest is None else nearest.or_nearer(found)
        self.train(training)
        if nearest is not None and bool(nearest.distances.isnan().any()):
            raise TrainingError(BROKEN)
        if nearest is None or bool(nearest.distances.isinf().any()):
            raise DataError("prototypes need training images of both classes")
        head.take(nearest)
        return self.placed()

    @torch.no_grad()
    def refit_head(self, batches: Iterable[Batch]) -> None:
        """Fit the last layer again after :meth:`project`.

        Args:
            batches: training images, as for :meth:`project`.

        Raises:
            ValueError: the head is not a prototype head.
        """
        head = self._head()
        training = self.training
        self.eval()
        pairs = [(self.features(batch["images"]), batch["labels"]) for batch in batches]
        self.train(training)
        similarities, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
        head.refit(similarities, labels, self.class_weights)

    def placed(self) -> list[Prototype]:
        """Positions of the prototypes in training images; empty before :meth:`project`.

        Raises:
            ValueError: the head is not a prototype head.
        """
        head = self._head()
        side, step = self.patch_pixels
        table = zip(
            head.classes.tolist(), head.places.tolist(), head.similarities.tolist(), strict=True
        )
        return [
            Prototype(label, row, y * step, x * step, side, similarity)
            for label, (row, y, x), similarity in table
            if row >= 0
        ]

    def _head(self) -> PrototypeHead:
        if self.prototypes is None:
            raise ValueError("this classifier has no prototypes; set model.head=prototype")
        return self.prototypes


def refuse_attention_loss(attention_loss: float, head: Head) -> None:
    """Check that the attention loss is not combined with a prototype head.

    Raises:
        ConfigError: both are set, but the prototype head does not read [CLS].
    """
    if attention_loss and head == "prototype":
        raise ConfigError(
            f"model.attention_loss={attention_loss}: prototypes do not read [CLS]; set "
            "model.head=linear or model.attention_loss=0"
        )

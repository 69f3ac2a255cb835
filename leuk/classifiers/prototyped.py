"""The base of classifiers whose head may be prototypes, and how these become training patches.

Sits between the contract of all classifiers and the forms that have a grid of patch features.
"""

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
    """A classifier whose head may be prototypes.

    Attributes:
        prototypes: the head, None where the form keeps its own.
    """

    prototypes: PrototypeHead | None

    @abstractmethod
    def grid(self, images: Tensor) -> Tensor:
        """Patch features ``(B, C, h, w)`` of ``(B, 3, R, R)`` images in [0, 1]."""

    @property
    @abstractmethod
    def patch_pixels(self) -> tuple[int, int]:
        """Pixels a side that one place of the grid stands for, and from one to the next."""

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.prototypes is None:
            return super().training_logits(images, labels)
        similarities, cost = self.prototypes.with_cost(
            self.grid(images), labels, off_cell(images, *self.patch_pixels)
        )
        return self.prototypes.logits(similarities), cost

    @torch.no_grad()
    def project(self, batches: Iterable[Batch]) -> list[Prototype]:
        """Replace every prototype by the nearest patch of a training cell of its class.

        Section 2.2 of the paper, second stage, and ours that at least half of the patch is on the
        cell: in background nothing could be seen. Two prototypes may come to the same patch. What
        decides is not the patch's pixels alone: its features have seen what surrounds it.

        Args:
            batches: training cells as they are, without augmentation, on the model's device.

        Returns:
            Where the prototypes now are, healthy ones first.

        Raises:
            DataError: ``batches`` lack a class.
            TrainingError: the weights make no numbers.
            ValueError: the head is no prototypes.
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
            raise DataError("prototypes need training cells of both classes to be projected to")
        head.take(nearest)
        return self.placed()

    @torch.no_grad()
    def refit_head(self, batches: Iterable[Batch]) -> None:
        """Fit the weights of the prototypes in the logits anew, after :meth:`project`.

        Args:
            batches: training cells as for :meth:`project`.

        Raises:
            ValueError: the head is no prototypes.
        """
        head = self._head()
        training = self.training
        self.eval()
        seen = [(self.features(batch["images"]), batch["labels"]) for batch in batches]
        self.train(training)
        similarities, labels = (torch.cat(column) for column in zip(*seen, strict=True))
        head.refit(similarities, labels, self.class_weights)

    def placed(self) -> list[Prototype]:
        """Where the prototypes are; empty before :meth:`project`.

        Raises:
            ValueError: the head is no prototypes.
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
    """Refuse the two options together.

    Raises:
        ConfigError: a cost of what [CLS] attends to, under a head that does not read [CLS].
    """
    if attention_loss and head == "prototype":
        raise ConfigError(
            f"model.attention_loss={attention_loss}: it needs model.head=linear; prototypes read "
            "the patches and not [CLS]"
        )

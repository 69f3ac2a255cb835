"""The contract every classifier keeps, and how each is fitted and asked.

Sits between the batches on the device and the saved predictions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC

from leuk.config.ranges import NotNegative, Positive
from leuk.data.bank import Batch


@dataclass(frozen=True)
class Optim:
    """How weights are updated.

    Attributes:
        learning_rate: of Adam.
        weight_decay: decoupled (AdamW) where it is above 0.
    """

    learning_rate: Positive = 1e-4
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each cell, in the order of the rows.

    Attributes:
        rows: ``int64 (N,)``, unique and ascending.
        scores: ``float64 (N,)`` probability of leukemia.
        labels: ``int64 (N,)``.
    """

    rows: Tensor
    scores: Tensor
    labels: Tensor


class Classifier(LightningModule, ABC):
    """Base of all classifiers: two-class logits from images in [0, 1].

    A subclass gives :meth:`logits`, :meth:`features` and, for Grad-CAM, :attr:`cam_layer` and
    :meth:`cam_grid`. Its constructor takes plain values, so that every checkpoint can be read
    with ``torch.load(weights_only=True)``.

    Args:
        optim: how weights are updated; a mapping of its fields when read from a checkpoint.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor

    def __init__(self, optim: Optim | Mapping[str, Any]) -> None:
        super().__init__()
        self.optim = optim if isinstance(optim, Optim) else Optim(**optim)
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))
        self.register_buffer("class_weights", torch.ones(2))
        self.val_auroc = BinaryAUROC()
        self._asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def _save_plain(self, **values: Any) -> None:
        """Record the constructor's arguments as plain values."""
        self.save_hyperparameters({**values, "optim": asdict(self.optim)})

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the channel statistics of the training part; they travel with the weights."""
        self.mean.copy_(torch.tensor(mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(std).view(3, 1, 1))

    def weigh_by(self, weights: Sequence[float]) -> None:
        """Take the weights of the healthy and the leukemic cells' training loss."""
        self.class_weights.copy_(torch.tensor(weights))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 2)`` of healthy and leukemic for ``(B, 3, R, R)`` images in [0, 1]."""
        return self.logits(self.features(images))

    def normalised(self, images: Tensor) -> Tensor:
        """Images as the first layer wants them."""
        return (images - self.mean) / self.std

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features ``(B, D)``, just before the head, of ``(B, 3, R, R)`` images in [0, 1]."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Logits ``(B, 2)`` from features ``(B, D)``."""

    @property
    @abstractmethod
    def cam_layer(self) -> nn.Module:
        """The layer whose activations Grad-CAM weighs."""

    @abstractmethod
    def cam_grid(self, activations: Tensor) -> Tensor:
        """Activations of :attr:`cam_layer` as a map ``(B, C, h, w)``."""

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy of one batch."""
        logits: Tensor = self(batch["images"])
        loss = F.cross_entropy(logits.float(), batch["labels"], self.class_weights)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["rows"]))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log ``val/loss`` and ``val/auroc``."""
        logits = self._ask(batch)
        loss = F.cross_entropy(logits, batch["labels"])
        self.val_auroc.update(logits.softmax(dim=1)[:, 1], batch["labels"])
        self.log("val/loss", loss, batch_size=len(batch["rows"]), sync_dist=True)
        self.log("val/auroc", self.val_auroc)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Keep the predictions of one batch; :meth:`collected` hands them over."""
        self._ask(batch)

    def on_validation_epoch_start(self) -> None:
        self._asked.clear()

    def on_test_epoch_start(self) -> None:
        self._asked.clear()

    def collected(self) -> Predictions:
        """Predictions of the last validation or test pass, of all processes, each row once."""
        rows, logits, labels = (torch.cat(column) for column in zip(*self._asked, strict=True))
        if self.trainer.world_size > 1:
            rows, logits, labels = (self._gathered(x) for x in (rows, logits, labels))
        # A distributed sampler pads; the first of equal rows stands for all.
        order = rows.argsort(stable=True)
        rows, logits, labels = rows[order].cpu(), logits[order].cpu(), labels[order].cpu()
        first = torch.cat([torch.ones(1, dtype=torch.bool), rows[1:] != rows[:-1]])
        scores = logits.double().softmax(dim=1)[:, 1]  # float32 would tie the surest cells at 1
        return Predictions(rows[first], scores[first], labels[first])

    def _gathered(self, column: Tensor) -> Tensor:
        gathered = self.all_gather(column)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    def _ask(self, batch: Batch) -> Tensor:
        logits: Tensor = self(batch["images"]).float()
        self._asked.append((batch["rows"], logits, batch["labels"]))
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, or AdamW where there is weight decay."""
        rate, decay = self.optim.learning_rate, self.optim.weight_decay
        if decay:
            return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)
        return torch.optim.Adam(self.parameters(), lr=rate)


def two_class(logit: Tensor) -> Tensor:
    """One logit ``(B, 1)`` of leukemia as ``(B, 2)`` logits with the same probability.

    softmax(-z/2, z/2) is (1 - sigmoid(z), sigmoid(z)), so cross-entropy on the pair is binary
    cross-entropy on z.
    """
    return torch.cat([-logit / 2, logit / 2], dim=1)

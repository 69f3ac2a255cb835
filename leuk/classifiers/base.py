"""Base class of the classifiers: interface, training, validation and test predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.classification import BinaryAUROC

from leuk.classifiers.optim import Optim, ParameterGroup, build_optimizer, plateau_of, schedule_of
from leuk.data.pixels import Batch
from leuk.errors import ConfigError, TrainingError
from leuk.metrics.calibration import prior_free_loss
from leuk.training import EVERY, FirstBad, SeededModule, Stack, save_arguments

ADVICE = (
    "the best checkpoint so far is kept: lower model.optim.learning_rate or set "
    "trainer.precision=32-true"
)
"""Remedy for a loss that is NaN or infinite."""

BROKEN = (
    "the trained weights give no finite scores, although every training loss was finite: the last "
    "update broke them; lower model.optim.learning_rate or set trainer.precision=32-true"
)
"""Error if only the weights after the last update are broken."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a classifier for N images."""

    rows: Tensor  # of the images in the bank, int64 (N,), unique and ascending
    scores: Tensor  # probabilities of leukemia, float64 (N,)
    labels: Tensor  # true classes, int64 (N,)


class Classifier(SeededModule, ABC):
    """Base class of the classifiers: two logits from images in [0, 1].

    A subclass defines :meth:`features`, :meth:`logits` and, for Grad-CAM, :attr:`cam_layer`. Its
    constructor takes plain values only. They are saved, so that every checkpoint can be read with
    ``torch.load(weights_only=True)``; ``optim`` may be a mapping, as read from it.

    Attributes:
        stamp: identity stored in every checkpoint: the class name as ``form``, and hashes that the
            run adds.
        has_patches: True if :meth:`tokens`, :meth:`from_tokens` and :meth:`attention` work.
    """

    has_patches: bool = False

    mean: Tensor
    std: Tensor
    class_weights: Tensor

    def __init__(self, optim: Optim | Mapping[str, Any], stack: Stack = "torch") -> None:
        super().__init__()
        save_arguments(self)
        self.optim = optim if isinstance(optim, Optim) else Optim(**optim)
        self.stack = stack
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))
        self.register_buffer("class_weights", torch.ones(2))
        self.val_auroc = BinaryAUROC()
        self.first_bad = FirstBad()
        self.stamp = {"form": type(self).__name__}
        self._plateau: ReduceLROnPlateau | None = None
        self._stopped_plateau: dict[str, Any] | None = None
        self._collected: list[tuple[Tensor, Tensor, Tensor]] = []

    # --- Interface

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 2)``, healthy first, of images ``(B, 3, R, R)`` in [0, 1]."""
        return self.logits(self.features(images))

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features ``(B, D)``, the input of the head, of images ``(B, 3, R, R)`` in [0, 1]."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Logits ``(B, 2)`` from features ``(B, D)``."""

    @property
    @abstractmethod
    def cam_layer(self) -> nn.Module:
        """Layer whose activations Grad-CAM weighs."""

    def cam_grid(self, activations: Tensor) -> Tensor:
        """Activations of :attr:`cam_layer` as a map ``(B, C, h, w)``, which they are by default."""
        return activations

    def tokens(self, images: Tensor) -> Tensor:
        """Patches ``(B, N, D)``, row by row; ConfigError unless :attr:`has_patches`."""
        raise ConfigError(self.no_patches_message())

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Logits ``(B, 2)`` from :meth:`tokens`, with the same errors."""
        raise ConfigError(self.no_patches_message())

    def attention(self, images: Tensor) -> Tensor:
        """Attention ``(B, depth, heads, 1 + N, 1 + N)``, [CLS] first; errors as :meth:`tokens`."""
        raise ConfigError(self.no_patches_message())

    def no_patches_message(self) -> str:
        """Error message for a classifier without patches."""
        return (
            f"{type(self).__name__} has no patches; choose model=vit, or model=hybrid with "
            "model.stride equal to model.patch"
        )

    def normalize_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation of the training images' channels, saved with weights."""
        self.mean.copy_(torch.tensor(mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(std).view(3, 1, 1))

    def normalized(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, R, R)`` minus the channel mean, over the standard deviation."""
        return (images - self.mean) / self.std

    def weigh_by(self, weights: Sequence[float]) -> None:
        """Set the weights of healthy and leukemic images in the training loss."""
        self.class_weights.copy_(torch.tensor(weights))

    # --- Training

    def parameter_groups(self) -> list[ParameterGroup]:
        """Group the parameters by the factor on their learning rate."""
        return [(list(self.parameters()), 1.0)]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedule from :class:`leuk.classifiers.optim.Optim`."""
        optimizer = build_optimizer(self.optim, self.parameter_groups(), self.stack)
        if self.optim.schedule == "plateau":
            self._plateau = plateau_of(self.optim, optimizer, self.stack)
            if self._stopped_plateau is not None:
                self._plateau.load_state_dict(self._stopped_plateau)
            return optimizer
        if self.optim.schedule == "constant" and not self.optim.warmup_epochs:
            return optimizer
        epochs, steps = self.trainer.max_epochs or 1, int(self.trainer.estimated_stepping_batches)
        schedule = schedule_of(self.optim, optimizer, epochs, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def training_logits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, 2)`` of a training batch, and an additional scalar loss of the model."""
        logits: Tensor = self(images)
        return logits, logits.new_zeros(())

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy of a batch plus the model's additional loss."""
        logits, cost = self.training_logits(batch["images"], batch["labels"])
        loss = cost.float() + F.cross_entropy(
            logits.float(),
            batch["labels"],
            self.class_weights,
            label_smoothing=self.optim.label_smoothing,
        )
        self.first_bad.note(loss, self.global_step)
        # Also at the end of an epoch, before a checkpoint of broken weights could be written.
        if self.trainer.is_last_batch or batch_index % EVERY == EVERY - 1:
            self.first_bad.check(self.trainer.strategy, "step", ADVICE)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["rows"]))
        return loss

    def on_train_epoch_end(self) -> None:
        # Not stepped by Lightning, which does so only after writing the epoch's checkpoint.
        if self._plateau is not None:
            self._plateau.step(float(self.trainer.callback_metrics["val/loss"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["stamp"] = self.stamp
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._stopped_plateau = checkpoint.get("plateau")

    # --- Validation and test

    def predict_logits(self, images: Tensor) -> Tensor:
        """Logits ``(B, 2)`` for scores: the mean over ``test_views``, unlike in explanations."""
        views = dihedral(images) if self.optim.test_views > 1 else [images]
        return torch.stack([self(view).float() for view in views]).mean(dim=0)

    def _collect(self, batch: Batch) -> Tensor:
        logits = self.predict_logits(batch["images"])
        self._collected.append((batch["rows"], logits, batch["labels"]))
        return logits

    def on_validation_epoch_start(self) -> None:
        self._collected.clear()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log ``val/loss`` and ``val/auroc``."""
        logits = self._collect(batch)
        loss = F.cross_entropy(logits, batch["labels"])
        self.val_auroc.update(logits.softmax(dim=1)[:, 1], batch["labels"])
        self.log("val/loss", loss, batch_size=len(batch["rows"]), sync_dist=True)
        self.log("val/auroc", self.val_auroc)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/prior_free_loss``."""
        _, logits, labels = self._each_once()
        log_odds = (logits[:, 1].double() - logits[:, 0].double()).numpy()
        self.log("val/prior_free_loss", prior_free_loss(log_odds, labels.numpy()), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._collected.clear()

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Keep the predictions of a batch for :meth:`collected`."""
        self._collect(batch)

    def collected(self) -> Predictions:
        """Predictions of the last validation or test pass of all processes, without duplicates.

        Raises:
            TrainingError: a logit is NaN or infinite.
        """
        rows, logits, labels = self._each_once()
        if not bool(logits.isfinite().all()):
            raise TrainingError(BROKEN)
        scores = logits.double().softmax(dim=1)[:, 1]  # in float32 high scores would tie at 1
        return Predictions(rows, scores, labels)

    def _each_once(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (ascending and unique), logits and labels of the last pass, on the CPU."""
        columns: Any = [torch.cat(column) for column in zip(*self._collected, strict=True)]
        if self.trainer.world_size > 1:
            columns = [gathered.flatten(0, 1) for gathered in self.all_gather(columns)]
        # A distributed sampler pads with repeated rows; the first of equal rows is kept.
        order = columns[0].argsort(stable=True)
        rows, logits, labels = (column[order].cpu() for column in columns)
        first = torch.cat([torch.ones(1, dtype=torch.bool), rows[1:] != rows[:-1]])
        return rows[first], logits[first], labels[first]


def dihedral(images: Tensor) -> list[Tensor]:
    """Eight views of images ``(B, C, H, H)``: rotations by 90 degrees, with and without a flip."""
    turned = [torch.rot90(images, turns, dims=(2, 3)) for turns in range(4)]
    return [*turned, *(view.flip(3) for view in turned)]


def two_class(logit: Tensor) -> Tensor:
    """Logits ``(B, 2)`` with the same probability as a single logit ``(B, 1)`` of leukemia.

    softmax(-z/2, z/2) = (1 - sigmoid(z), sigmoid(z)), so cross-entropy of the pair is binary
    cross-entropy of z.
    """
    return torch.cat([-logit / 2, logit / 2], dim=1)

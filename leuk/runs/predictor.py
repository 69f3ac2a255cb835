"""Predictions of a finished classifier for arrays of pixels, without a data loader."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import Tensor

from leuk.classifiers.classifier import BROKEN, Classifier, dihedral
from leuk.errors import TrainingError
from leuk.evaluate.vectors import Floats, Images
from leuk.runs.finished import FinishedRun
from leuk.runs.fitting import build_named, build_trainer, memory_errors, one_device


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of a classifier for N images.

    Attributes:
        scores: ``float64 (N,)``, probability of leukemia, computed as for test images.
        features: ``float32 (N, D)``, features without test-time augmentation.
    """

    scores: Floats
    features: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictor:
    """Classifier on a device, by default with the precision of the run's evaluation.

    Attributes:
        classifier: classifier on its device, in evaluation mode.
        trainer: provides device and precision.
        batch_size: images per forward pass.
    """

    classifier: Classifier
    trainer: Trainer
    batch_size: int

    @classmethod
    def build(cls, cfg: DictConfig, finished: FinishedRun) -> "Predictor":
        """Load a run's classifier onto the configured device.

        Args:
            cfg: config with ``trainer``, ``callbacks`` and ``batch_size``.
            finished: the finished run.

        Raises:
            ConfigError: the trainer cannot be built on this host.
            StoreError: the checkpoint cannot be read or belongs to another run.
        """
        classifier = finished.classifier()
        callbacks = build_named(cfg.callbacks, ("channels_last",))
        trainer = trainer_for(cfg, finished, [*callbacks.values()])
        classifier.to(trainer.strategy.root_device)
        for callback in callbacks.values():
            callback.setup(trainer, classifier, "test")
        return cls(classifier, trainer, int(cfg.batch_size))

    @property
    def device(self) -> torch.device:
        """Device of the classifier and its input."""
        device: torch.device = self.trainer.strategy.root_device
        return device

    def images(self, pixels: Images) -> Tensor:
        """Move pixels ``uint8 (N, R, R, 3)`` to the device as images ``(N, 3, R, R)`` in [0, 1]."""
        moved = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        return moved.permute(0, 3, 1, 2).float().div_(255)

    @torch.no_grad()
    def predict(self, pixels: Images) -> Outputs:
        """Predict scores and features.

        Args:
            pixels: ``uint8 (N, R, R, 3)`` at the run's resolution and framing.

        Raises:
            TrainingError: a score is not finite, or a batch does not fit into memory.
        """
        outputs = []
        with memory_errors("batch_size", self.batch_size):
            for start in range(0, len(pixels), self.batch_size):
                batch = self.images(pixels[start : start + self.batch_size])
                with self.trainer.precision_plugin.forward_context():
                    outputs.append(self._logits_and_features(batch))
        logits, features = (torch.cat(column).cpu() for column in zip(*outputs, strict=True))
        if not bool(logits.isfinite().all()):
            raise TrainingError(BROKEN)
        return Outputs(logits.double().softmax(dim=1)[:, 1].numpy(), features.numpy())

    def _logits_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits as of :meth:`Classifier.predict_logits`, and features of the original view."""
        views = dihedral(images) if self.classifier.optim.test_views > 1 else [images]
        features = [self.classifier.features(view) for view in views]
        logits = [self.classifier.logits(of_view).float() for of_view in features]
        return torch.stack(logits).mean(dim=0), features[0].float()


def trainer_for(cfg: DictConfig, finished: FinishedRun, callbacks: list[Any]) -> Trainer:
    """Build a trainer on one device, with the precision of the run unless another is set.

    Raises:
        ConfigError: the trainer cannot be built on this host.
    """
    changes = {
        "logger": False,
        "enable_checkpointing": False,
        "inference_mode": False,
        **one_device(cfg),
    }
    if cfg.trainer.precision is None:
        changes["precision"] = finished.record.device["precision"]
    return build_trainer(cfg, finished.folder, callbacks, **changes)

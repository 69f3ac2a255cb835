"""The images that are explained together, with their labels and predicted scores.

Built from a data module and its predictions, or from image files; used by the explainers, the
checks and the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leuk.classifiers.classifier import Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import UNLABELED, Label
from leuk.explain.choice import choose_background, choose_images

OUTCOMES = ("true positive", "false negative", "true negative", "false positive")
"""Outcomes of a prediction at :data:`DECIDED`; leukemic is positive."""

DECIDED = 0.5
"""Lowest score that is predicted as leukemic."""

UNKNOWN = "unknown"
"""Outcome of an image without a label."""

MEANING = {
    "true positive": "leukemic, predicted leukemic",
    "false negative": "leukemic, predicted healthy",
    "true negative": "healthy, predicted healthy",
    "false positive": "healthy, predicted leukemic",
    UNKNOWN: "no label",
}
"""Captions of the outcomes."""

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images to explain.

    Attributes:
        table: a row per image, in the order of ``images``: ``row`` (in the bank, or the number of
            the file), ``subject``, ``patient`` (both empty if unknown), ``file``,
            ``label``, ``score`` (probability of leukemia), ``outcome`` (:data:`OUTCOMES` or
            :data:`UNKNOWN`) and ``shown`` (has a figure of its own; shown images come first).
        images: ``float32 (N, 3, R, R)`` in [0, 1], on the CPU.
        background: ``float32 (K, 3, R, R)`` in [0, 1], training images of both classes, on the CPU.
    """

    table: pd.DataFrame
    images: Tensor
    background: Tensor

    @property
    def rows(self) -> Tensor:
        """Rows of the images in the bank, ``int64 (N,)``."""
        return torch.tensor(self.table["row"].to_numpy(np.int64))

    @property
    def shown(self) -> list[int]:
        """Positions of images with a figure, in the order of :data:`OUTCOMES`, then by position."""
        order = [*OUTCOMES, UNKNOWN]
        outcomes = self.table["outcome"].tolist()
        positions = np.flatnonzero(self.table["shown"].to_numpy()).tolist()
        return sorted(positions, key=lambda position: (order.index(outcomes[position]), position))

    def of(self, outcome: str) -> list[int]:
        """Positions of the images with this outcome."""
        return [int(i) for i in np.flatnonzero((self.table["outcome"] == outcome).to_numpy())]

    @property
    def outcomes(self) -> list[str]:
        """Possible outcomes: all of :data:`OUTCOMES`, or only :data:`UNKNOWN` without labels."""
        unknown = (self.table["outcome"] == UNKNOWN).all()
        return [UNKNOWN] if unknown else list(OUTCOMES)

    @property
    def missing(self) -> list[str]:
        """Outcomes that no predicted image has; empty if the cohort is too small to decide."""
        # The choice takes outcomes in turn, so each that occurs is among the first images.
        if len(self.table) < len(self.outcomes):
            return []
        return [outcome for outcome in self.outcomes if not self.of(outcome)]


def evaluated_cohort(
    data: CNMCDataModule, predictions: Predictions, shown: int, count: int, background: int
) -> Cohort:
    """Sample test images, stratified by outcome and subject, with training images as background.

    Args:
        data: data module with the predicted images.
        predictions: predictions of the test stage.
        shown: number of images with a figure.
        count: number of images to explain, shown images included.
        background: number of training images, chosen with the seed of ``data``.
    """
    index = data.dataset.index.iloc[predictions.rows.numpy()].reset_index(drop=True)
    scores, labels = predictions.scores.numpy(), predictions.labels.numpy()
    table = pd.DataFrame(
        {
            "row": predictions.rows.numpy(),
            "subject": index["subject"],
            "patient": index["patient"].astype(str),
            "file": index["path"],
            "label": labels,
            "score": scores,
            "outcome": [
                outcome_of(*both) for both in zip(labels.tolist(), scores.tolist(), strict=True)
            ],
        }
    )
    decided = table.assign(decided=(scores >= DECIDED).astype(np.int64))
    chosen = table.iloc[choose_images(decided, count)].reset_index(drop=True)
    chosen["shown"] = np.arange(len(chosen)) < shown
    rows = torch.tensor(chosen["row"].to_numpy(np.int64))
    compared = choose_background(data.stage("train"), background, data.seed)
    return Cohort(
        chosen,
        data.bank.gather(rows, _CPU)["images"],
        data.bank.gather(torch.tensor(compared), _CPU)["images"],
    )


def unlabeled_cohort(
    files: Sequence[str], images: Tensor, scores: Sequence[float], background: Tensor, shown: int
) -> Cohort:
    """Cohort of images without label, subject or patient.

    Args:
        files: names of the N images.
        images: ``(N, 3, R, R)`` in [0, 1], on the CPU.
        scores: predicted probability of leukemia of each image.
        background: ``(K, 3, R, R)`` training images in [0, 1], on the CPU.
        shown: number of images with a figure, from the start.
    """
    table = pd.DataFrame(
        {
            "row": np.arange(len(files)),
            "subject": "",
            "patient": "",
            "file": list(files),
            "label": UNLABELED,
            "score": list(scores),
            "outcome": UNKNOWN,
            "shown": np.arange(len(files)) < shown,
        }
    )
    return Cohort(table, images, background)


def outcome_of(label: int, score: float) -> str:
    """Return the outcome, one of :data:`OUTCOMES`, of a score at :data:`DECIDED`."""
    sick, called = label == Label.ALL, score >= DECIDED
    if sick:
        return "true positive" if called else "false negative"
    return "false positive" if called else "true negative"

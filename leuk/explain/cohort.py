"""The images that are explained together: their choice, labels, scores and outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leuk.classifiers.base import Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import UNLABELED, Label

DECIDED = 0.5
"""Lowest score that is predicted as leukemic."""

OUTCOMES = ("true positive", "false negative", "true negative", "false positive")
"""Outcomes of a prediction at :data:`DECIDED`; leukemic is positive."""

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


def choose_images(images: pd.DataFrame, count: int) -> list[int]:
    """Choose positions in a table of test images, deterministically.

    The four outcomes (each label, predicted rightly or wrongly) take turns, and within an outcome
    the subjects take turns, so that neither a frequent outcome nor a large subject dominates. A
    smaller choice is the start of a larger. ``images`` have the columns ``label``, ``decided`` (the
    predicted label) and ``subject``.
    """
    return _by_turns(images.reset_index(drop=True), ["label", "decided"])[:count]


def choose_background(train: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Choose rows of training images, the same number from both classes as far as possible.

    ``train`` has the columns ``label`` and ``subject`` and is indexed by row of the bank.
    """
    shuffled = train.iloc[np.random.default_rng(seed).permutation(len(train))]
    return sorted(_by_turns(shuffled, ["label"])[:count])


def _by_turns(table: pd.DataFrame, keys: list[str]) -> list[int]:
    """Index values in an order in which groups take turns, and subjects within each group."""
    turns = table.groupby([*keys, "subject"]).cumcount()
    ordered = table.iloc[np.argsort(turns.to_numpy(), kind="stable")]
    ordered = ordered.assign(turn=ordered.groupby(keys).cumcount())
    return [int(index) for index in ordered.sort_values(["turn", *keys], kind="stable").index]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images to explain.

    The table has a row per image: ``row`` (in the bank, or the number of the file), ``subject``,
    ``patient`` (both empty if unknown), ``file``, ``label``, ``score`` (probability of leukemia),
    ``outcome`` and ``shown`` (has a figure of its own; shown images come first).
    """

    table: pd.DataFrame
    images: Tensor  # float32 (N, 3, R, R) in [0, 1], on the CPU
    background: Tensor  # float32 (K, 3, R, R), training images of both classes

    @property
    def shown(self) -> list[int]:
        """Positions of images with a figure, in the order of :data:`OUTCOMES`, then by position."""
        outcomes = self.table["outcome"].tolist()
        positions = np.flatnonzero(self.table["shown"].to_numpy()).tolist()
        return sorted(positions, key=lambda position: list(MEANING).index(outcomes[position]))

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
    """Sample ``count`` test images, stratified by outcome and subject; the first ones are shown.

    ``background`` is the number of training images, chosen with the seed of ``data``.
    """
    rows, scores = predictions.rows.numpy(), predictions.scores.numpy()
    index = data.dataset.index.iloc[rows].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "row": rows,
            "subject": index["subject"],
            "patient": index["patient"].astype(str),
            "file": index["path"],
            "label": predictions.labels.numpy(),
            "score": scores,
        }
    )
    table["outcome"] = [
        outcome_of(label, score) for label, score in zip(table["label"], scores, strict=True)
    ]
    decided = table.assign(decided=(scores >= DECIDED).astype(np.int64))
    chosen = table.iloc[choose_images(decided, count)].reset_index(drop=True)
    chosen["shown"] = np.arange(len(chosen)) < shown
    compared = choose_background(data.stage("train"), background, data.seed)
    images, behind = (
        data.bank.gather(torch.tensor(rows, dtype=torch.int64), _CPU)["images"]
        for rows in (chosen["row"].tolist(), compared)
    )
    return Cohort(chosen, images, behind)


def unlabeled_cohort(
    files: Sequence[str], images: Tensor, scores: Sequence[float], background: Tensor, shown: int
) -> Cohort:
    """Cohort of images without label, subject or patient, of which the first ones are shown."""
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
    called = score >= DECIDED
    if label == Label.ALL:
        return "true positive" if called else "false negative"
    return "false positive" if called else "true negative"

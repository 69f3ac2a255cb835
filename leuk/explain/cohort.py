"""The cells that are explained together, and what the classifier said of each.

Made from a data module and its predictions, or from image files; read by everything that explains,
checks and draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leuk.classifiers.classifier import Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import UNLABELLED, Label
from leuk.explain.choice import choose_background, choose_cells

OUTCOMES = ("true positive", "false negative", "true negative", "false positive")
"""Positive is leukemic; decided at :data:`DECIDED`."""

DECIDED = 0.5
"""The score from which a cell is called leukemic."""

UNKNOWN = "unknown"
"""The outcome of a cell without a label."""

MEANING = {
    "true positive": "leukemic, called leukemic",
    "false negative": "leukemic, called healthy",
    "true negative": "healthy, called healthy",
    "false positive": "healthy, called leukemic",
    UNKNOWN: "no label",
}
"""Each outcome in words."""

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Cells that are explained.

    Attributes:
        cells: one line each, in the order of the images: ``row`` (of the bank, or the number of the
            file), ``subject``, ``group`` (the person; both empty where unknown), ``file``,
            ``label``, ``score``, ``outcome`` (:data:`OUTCOMES` or :data:`UNKNOWN`) and ``shown``,
            whether it has a picture of its own; these come first.
        images: ``float32 (N, 3, R, R)`` in [0, 1], on the CPU.
        background: ``float32 (K, 3, R, R)``, training cells of both classes, on the CPU.
    """

    cells: pd.DataFrame
    images: Tensor
    background: Tensor

    @property
    def rows(self) -> Tensor:
        """``int64 (N,)``."""
        return torch.tensor(self.cells["row"].to_numpy(np.int64))

    @property
    def shown(self) -> list[int]:
        """Positions with pictures, by outcome as :data:`OUTCOMES` has them, then position."""
        order = [*OUTCOMES, UNKNOWN]
        outcomes = self.cells["outcome"].tolist()
        positions = np.flatnonzero(self.cells["shown"].to_numpy()).tolist()
        return sorted(positions, key=lambda position: (order.index(outcomes[position]), position))

    def of(self, outcome: str) -> list[int]:
        """Positions with this outcome."""
        return [int(i) for i in np.flatnonzero((self.cells["outcome"] == outcome).to_numpy())]

    @property
    def outcomes(self) -> list[str]:
        """Which there can be: all of :data:`OUTCOMES`, or :data:`UNKNOWN` alone."""
        unknown = (self.cells["outcome"] == UNKNOWN).all()
        return [UNKNOWN] if unknown else list(OUTCOMES)

    @property
    def missing(self) -> list[str]:
        """Outcomes that no judged cell has; of fewer cells than outcomes nothing can be told."""
        # Outcomes take turns, so that each that there is has one of the first cells.
        if len(self.cells) < len(self.outcomes):
            return []
        return [outcome for outcome in self.outcomes if not self.of(outcome)]


def judged_cohort(
    data: CNMCDataModule, predictions: Predictions, shown: int, count: int, background: int
) -> Cohort:
    """Test cells stratified by subject and outcome, with training cells behind them.

    Args:
        data: whose cells were judged.
        predictions: of the test part.
        shown: how many get pictures.
        count: how many are explained at all, the shown ones first.
        background: how many training cells; their choice follows the data's seed.
    """
    cells = data.dataset.cells.iloc[predictions.rows.numpy()].reset_index(drop=True)
    scores, labels = predictions.scores.numpy(), predictions.labels.numpy()
    table = pd.DataFrame(
        {
            "row": predictions.rows.numpy(),
            "subject": cells["subject"],
            "group": cells["group"].astype(str),
            "file": cells["path"],
            "label": labels,
            "score": scores,
            "outcome": [
                outcome_of(*both) for both in zip(labels.tolist(), scores.tolist(), strict=True)
            ],
        }
    )
    decided = table.assign(decided=(scores >= DECIDED).astype(np.int64))
    chosen = table.iloc[choose_cells(decided, count)].reset_index(drop=True)
    chosen["shown"] = np.arange(len(chosen)) < shown
    rows = torch.tensor(chosen["row"].to_numpy(np.int64))
    behind = choose_background(data.part("train"), background, data.seed)
    return Cohort(
        chosen,
        data.bank.gather(rows, _CPU)["images"],
        data.bank.gather(torch.tensor(behind), _CPU)["images"],
    )


def unlabelled_cohort(
    files: Sequence[str], images: Tensor, scores: Sequence[float], background: Tensor, shown: int
) -> Cohort:
    """Cells of which nothing is known but how they look.

    Args:
        files: names of the images.
        images: ``(N, 3, R, R)`` in [0, 1], on the CPU.
        scores: what the classifier said of each.
        background: ``(K, 3, R, R)`` training cells, on the CPU.
        shown: how many get pictures; the first.
    """
    table = pd.DataFrame(
        {
            "row": np.arange(len(files)),
            "subject": "",
            "group": "",
            "file": list(files),
            "label": UNLABELLED,
            "score": list(scores),
            "outcome": UNKNOWN,
            "shown": np.arange(len(files)) < shown,
        }
    )
    return Cohort(table, images, background)


def outcome_of(label: int, score: float) -> str:
    """One of :data:`OUTCOMES`, decided at :data:`DECIDED`."""
    sick, called = label == Label.ALL, score >= DECIDED
    if sick:
        return "true positive" if called else "false negative"
    return "false positive" if called else "true negative"

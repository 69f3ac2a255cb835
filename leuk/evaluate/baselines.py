"""What no model is worth reporting without: the majority class, and cell area alone."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


class Majority:
    """Every cell scores the share of leukemic cells in the training part."""

    def __init__(self, areas: Floats, labels: Labels) -> None:
        self.share = float(labels.mean())

    def scores(self, areas: Floats) -> Tensor:
        """Probability of leukemia ``(N,)``, the same for all."""
        return torch.full((len(areas),), self.share, dtype=torch.float64)


class AreaOnly:
    """Logistic regression on the area of the cell, fitted on the training part."""

    def __init__(self, areas: Floats, labels: Labels) -> None:
        self.mean, self.spread = float(areas.mean()), float(areas.std()) or 1.0
        self.model = LogisticRegression().fit(self._columns(areas), labels)

    def scores(self, areas: Floats) -> Tensor:
        """Probability of leukemia ``(N,)``."""
        return torch.from_numpy(self.model.predict_proba(self._columns(areas))[:, 1].copy())

    def _columns(self, areas: Floats) -> Floats:
        return ((areas - self.mean) / self.spread)[:, None]


class Baseline(Protocol):
    """Fitted on the training part's areas and labels; gives scores for other areas."""

    def __init__(self, areas: Floats, labels: Labels) -> None: ...

    def scores(self, areas: Floats) -> Tensor:
        """Probability of leukemia ``(N,)``."""


BASELINES: dict[str, type[Baseline]] = {"majority": Majority, "area": AreaOnly}

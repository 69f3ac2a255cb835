"""Baselines that every model is compared with: majority class, cell area, morphology."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from leuk.evaluate.morphology import MEASURES
from leuk.evaluate.vectors import Floats, Integers

Scorer = Callable[[pd.DataFrame], Floats]
"""From a table of measures, a row per image, to the probability of leukemia ``(N,)``."""

_STEPS = 1000


@dataclass(frozen=True)
class Baseline:
    """Logistic regression on a few measures of each cell, standardized on training images.

    Attributes:
        columns: the measures it uses; without any, every image gets the share of leukemic images
            among the training images.
    """

    columns: tuple[str, ...] = ()

    def fitted(self, measures: pd.DataFrame, labels: Integers) -> Scorer:
        """Fit on training images.

        Args:
            measures: a row per image, with :attr:`columns` among its columns.
            labels: ``(N,)``, 1 = leukemic; both classes present.
        """
        if self.columns:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS))
        else:
            model = DummyClassifier(strategy="prior")
        model.fit(self._chosen(measures), labels)
        return lambda table: np.asarray(model.predict_proba(self._chosen(table))[:, 1])

    def _chosen(self, measures: pd.DataFrame) -> Floats:
        return measures[list(self.columns)].to_numpy(np.float64)


BASELINES = {
    "majority": Baseline(),
    "area": Baseline(("area",)),
    "morphology": Baseline(MEASURES),
}

"""What a simple classifier can tell from made cells, and what it can learn from them.

A probe is a logistic regression on features. It asks two questions: can made cells be told from
real ones, and does a classifier trained with made cells work on real ones?
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from leuk.evaluate.features import Features

_FOLDS = 5
_STRENGTH = 0.01
"""Inverse of the L2 penalty: strong, since there are more features than cells."""

_STEPS = 1000


def telling_apart(made: Features, real: Features, seed: int) -> float:
    """How well made cells are told from real ones: the classifier two-sample test.

    Real cells of other subjects are told from real ones too, by their stain, so that the figure
    belongs beside the same of training cells (Lopez-Paz & Oquab 2017).

    Returns:
        AUROC of five-fold cross-validation: 0.5 when they cannot be told apart, 1 when always.
    """
    features, labels = _stacked(made, real)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(_probe(), features, labels, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, scores))


def usefulness(
    train: Features, train_other: Features, test: Features, test_other: Features
) -> float:
    """How well a probe that was trained on one pair of sets tells the classes of another.

    Train on made cells and test on real ones (Esteban et al. 2017), and set the figure beside that
    of as many real training cells. With only one class made, the probe can take the easy way and
    learn what made cells look like; the figure then falls, as it should.

    Args:
        train: cells of one class, made or real.
        train_other: cells of the other class.
        test: held-out real cells of the class of ``train``.
        test_other: held-out real cells of the other class.

    Returns:
        AUROC on the test sets: 0.5 for nothing learned, below it for the wrong lesson.
    """
    probe = _probe().fit(*_stacked(train, train_other))
    features, labels = _stacked(test, test_other)
    return float(roc_auc_score(labels, probe.decision_function(features)))


def _probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=_STEPS))


def _stacked(
    one: Features, other: Features
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    if one.name != other.name:
        raise ValueError(f"features of different extractors: {one.name} and {other.name}")
    features = np.concatenate([one.pooled, other.pooled]).astype(np.float64)
    return features, np.repeat([1, 0], [len(one), len(other)])

"""What a simple classifier can tell from made cells, and what it can learn from them.

A probe is a logistic regression on features. It asks two questions: can made cells be told from
real ones, and does a classifier trained with made cells work on real ones?
"""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from leuk.evaluate.distances import Patients, patient_numbers
from leuk.evaluate.features import Features

_FOLDS = 5
_STRENGTH = 0.01
"""Inverse of the L2 penalty: strong, since there are more features than cells."""

_STEPS = 1000


def two_sample_auroc(
    made: Features,
    real: Features,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> float | None:
    """How well made cells are told from real ones: the classifier two-sample test.

    Real cells of other subjects are told from real ones too, by their stain, so that the figure
    belongs beside the same of training cells (Lopez-Paz & Oquab 2017). A patient's images are all
    in one fold: a probe that knows a patient's other images recognizes the patient, not the set.

    Args:
        made: features of one set.
        real: features of the other, by the same extractor.
        seed: of the folds.
        synthetic_patients: ``(N,)`` of ``made`` where that is of real cells; None where its images are
            independent, such as those of a GAN.
        real_patients: ``(N,)`` of ``real``; likewise.

    Returns:
        AUROC of cross-validation in five folds, or as many as the set with the fewest patients has:
        0.5 when they cannot be told apart, 1 when always. None with a set of one patient.
    """
    features, labels = _stacked(made, real)
    codes = [
        patient_numbers(synthetic_patients, len(made)),
        patient_numbers(real_patients, len(real)),
    ]
    count = min(_FOLDS, *(int(patients.max()) + 1 for patients in codes))
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    folds = PredefinedSplit(np.concatenate([_folds(one, count, generator) for one in codes]))
    scores = cross_val_predict(_probe(), features, labels, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, scores))


def _folds(
    patients: npt.NDArray[np.int64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Fold of each image: patients whole, the largest first, each into the smallest fold."""
    images = np.bincount(patients)
    order = generator.permutation(len(images))
    filled = np.zeros(count)
    fold_of = np.zeros(len(images), np.int64)
    for patient in order[np.argsort(-images[order], kind="stable")]:
        fold_of[patient] = np.argmin(filled)
        filled[fold_of[patient]] += images[patient]
    return fold_of[patients]


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

"""Probes of synthetic images: separability from real images, and usefulness for training.

A probe is a logistic regression on features. Two tests: can it separate synthetic from real images,
and does it classify real images when trained on synthetic ones?
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
"""Inverse of the L2 penalty, which is strong as features outnumber images."""

_STEPS = 1000


def two_sample_auroc(
    synthetic: Features,
    real: Features,
    seed: int,
    synthetic_patients: Patients | None = None,
    real_patients: Patients | None = None,
) -> float | None:
    """Separate synthetic from real images: the classifier two-sample test.

    The stain alone separates real images of different subjects, so the value must be compared with
    that of training images (Lopez-Paz & Oquab 2017). All images of a patient are in the same fold,
    since a probe that has seen other images of a patient recognizes the patient, not the set.

    Args:
        synthetic: features of the set to evaluate.
        real: features of the real images, from the same extractor.
        seed: seed of the folds.
        synthetic_patients: ``(N,)`` patients of ``synthetic`` if these are real images; None if its
            images are independent, such as those of a GAN.
        real_patients: ``(N,)`` patients of ``real``; None if its images are independent.

    Returns:
        AUROC of cross-validation in five folds, or in as many as the set with the fewest patients
        has: 0.5 for sets that cannot be separated, 1 for perfect separation. None if a set has a
        single patient.
    """
    features, labels = _stacked(synthetic, real)
    codes = [
        patient_numbers(synthetic_patients, len(synthetic)),
        patient_numbers(real_patients, len(real)),
    ]
    count = min(_FOLDS, *(int(patients.max()) + 1 for patients in codes))
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    folds = PredefinedSplit(
        np.concatenate([_folds(patients, count, generator) for patients in codes])
    )
    scores = cross_val_predict(_probe(), features, labels, cv=folds, method="decision_function")
    return float(roc_auc_score(labels, scores))


def _folds(
    patients: npt.NDArray[np.int64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Assign whole patients to folds, the largest first, each to the smallest fold so far."""
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
    """Train a probe on a pair of sets and classify another pair.

    With synthetic training images this is "train on synthetic, test on real" (Esteban et al. 2017),
    to be compared with as many real training images. If a single class is synthetic, the probe may
    learn the look of synthetic images instead of the class; the AUROC then falls, as it should.

    Args:
        train: features of images of a class, synthetic or real.
        train_other: features of images of the other class.
        test: features of held-out real images of the class of ``train``.
        test_other: features of held-out real images of the other class.

    Returns:
        AUROC on the test sets: 0.5 for no information, below 0.5 for a misleading probe.
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

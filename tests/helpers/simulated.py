"""Simulated test sets with known true metrics, in which images of a patient are alike."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from leuk.metrics.classification import Sample

SUBJECT, IMAGE = 0.7, 1.0
"""Standard deviation between subjects and within a subject, on the scale of the gap."""


HEM_IMAGES = (789, 400, 373, 185, 162, 119, 108, 69, 47, 18, 18)
"""Images per healthy patient of C-NMC's folds 0 and 1, with linked subjects merged."""

ALL_IMAGES = (
    *(757, 402, 352, 280, 268, 253, 246, 219, 212, 201, 190, 181, 155, 145, 142),
    *(113, 112, 103, 99, 97, 92, 92, 84, 11, 9),
)
"""Images per leukemic patient of the same folds."""

TEST_FOLDS = (
    ((789, 18, 18), (352, 280, 268, 246, 142, 113, 103, 92, 9)),
    ((400, 162, 119, 47), (757, 219, 212, 145, 97, 92, 84)),
    ((373, 185, 108, 69), (402, 253, 201, 190, 181, 155, 112, 99, 11)),
)
"""Images per healthy and per leukemic patient in three folds of these patients."""


def true_auroc(gap: float, noise: float = float(np.hypot(SUBJECT, IMAGE))) -> float:
    """AUROC in the population, for two normal classes a gap apart."""
    return float(norm.cdf(gap / (noise * np.sqrt(2))))


def true_recall(gap: float, noise: float = float(np.hypot(SUBJECT, IMAGE))) -> float:
    """Recall of either class at 0.5 in the population."""
    return float(norm.cdf(gap / 2 / noise))


def subjects_and_labels(hem: int, leukemic: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Subject number and label of each image."""
    subjects = np.repeat(np.arange(hem + leukemic), images)
    return subjects, (subjects >= hem).astype(np.int64)


def simulate(
    generator: np.random.Generator, hem: int, leukemic: int, images: int, gap: float, name: str = ""
) -> Sample:
    """Predictions of a model for a test set."""
    subjects, labels = subjects_and_labels(hem, leukemic, images)
    shift = generator.normal(0, SUBJECT, hem + leukemic)[subjects]
    scores = gap * (labels - 0.5) + shift + generator.normal(0, IMAGE, len(labels))
    return Sample(expit(scores), labels, np.char.add(name, subjects.astype(str)))


PAIR_NOISE = float(np.sqrt(0.6**2 + 0.5**2 + 0.6**2 + 0.6**2))
"""Standard deviation of each model's scores in :func:`two_models`, within a class."""


def two_models(
    generator: np.random.Generator,
    counts: tuple[int, int],
    gaps: tuple[float, float],
    *,
    name: str = "",
    seeds: int = 1,
    luck: float = 0.0,
) -> list[tuple[Sample, Sample]]:
    """Predictions of two models for one test set, with shared and separate errors per subject.

    Args:
        generator: generator of all random numbers.
        counts: numbers of healthy and of leukemic subjects.
        gaps: distance between the class means of the first and the second model.
        name: prefix of the subjects' names.
        seeds: number of seeds of each model.
        luck: standard deviation of the gap over seeds.
    """
    subjects, labels = subjects_and_labels(*counts, 20)
    count = sum(counts)

    def by_subject(spread: float) -> np.ndarray:
        return generator.normal(0, spread, count)[subjects]

    shared = by_subject(0.6) + generator.normal(0, 0.6, len(labels))
    own = [by_subject(0.5) for _ in gaps]
    names = np.char.add(name, subjects.astype(str))
    runs = []
    for _ in range(seeds):
        pair = []
        # The second model is twice as confident, so scores differ in meaning.
        for gap, errors, confidence in zip(gaps, own, (1, 2), strict=True):
            lucky = gap + generator.normal(0, luck)
            noise = generator.normal(0, 0.6, len(labels))
            scores = expit(confidence * (lucky * (labels - 0.5) + shared + errors + noise))
            pair.append(Sample(scores, labels, names))
        runs.append((pair[0], pair[1]))
    return runs


def three_folds(
    generator: np.random.Generator,
    gaps: tuple[float, float],
    seeds: int = 1,
    luck: float = 0.0,
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Runs of two models on three folds of four healthy and ten leukemic subjects each."""
    runs = [
        pair
        for fold in range(3)
        for pair in two_models(generator, (4, 10), gaps, name=f"{fold}-", seeds=seeds, luck=luck)
    ]
    return [one for one, _ in runs], [other for _, other in runs]


def unequal(
    generator: np.random.Generator,
    images: tuple[Sequence[int], Sequence[int]],
    gaps: Sequence[float],
    share: float = 1.0,
    name: str = "",
) -> list[Sample]:
    """Predictions of models for one test set with given numbers of images per patient.

    Models differ by their gaps and by chance: if the gaps are equal, scores of any patient are
    exchangeable between models.

    Args:
        generator: generator of all random numbers.
        images: images of each healthy and of each leukemic patient.
        gaps: distance between the class means of each model.
        share: share of each patient's images to simulate, to save time; at least one image.
        name: prefix of the patients' names.
    """
    counts = [max(1, round(share * n)) for n in (*images[0], *images[1])]
    patients = np.repeat(np.arange(len(counts)), counts)
    labels = (patients >= len(images[0])).astype(np.int64)
    shared = generator.normal(0, SHARED, len(counts))[patients]
    shared += generator.normal(0, SHARED_IMAGE, len(labels))
    names = np.char.add(name, patients.astype(str))
    models = []
    for gap in gaps:
        own = generator.normal(0, OWN, len(counts))[patients] + generator.normal(
            0, OWN_IMAGE, len(labels)
        )
        models.append(Sample(expit(gap * (labels - 0.5) + shared + own), labels, names))
    return models


SHARED, SHARED_IMAGE, OWN, OWN_IMAGE = 0.5, 0.7, 0.5, 0.7
UNEQUAL_NOISE = float(np.sqrt(SHARED**2 + SHARED_IMAGE**2 + OWN**2 + OWN_IMAGE**2))
"""Standard deviation of the scores of :func:`unequal`, within a class."""

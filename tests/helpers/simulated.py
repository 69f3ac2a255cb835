"""Simulated test sets with known true metrics, in which images of a patient are alike."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from leuk.metrics.classification import Sample

Images = tuple[Sequence[int], Sequence[int]]
"""Images of each healthy and of each leukemic patient."""

HEM_IMAGES = (789, 400, 373, 185, 162, 119, 108, 69, 47, 18, 18)
"""Images per healthy patient of C-NMC's folds 0 and 1, with linked subjects merged."""

ALL_IMAGES = (
    *(757, 402, 352, 280, 268, 253, 246, 219, 212, 201, 190, 181, 155, 145, 142),
    *(113, 112, 103, 99, 97, 92, 92, 84, 11, 9),
)
"""Images per leukemic patient of the same folds."""

TEST_FOLDS: tuple[Images, ...] = (
    ((789, 18, 18), (352, 280, 268, 246, 142, 113, 103, 92, 9)),
    ((400, 162, 119, 47), (757, 219, 212, 145, 97, 92, 84)),
    ((373, 185, 108, 69), (402, 253, 201, 190, 181, 155, 112, 99, 11)),
)
"""Images per healthy and per leukemic patient in three folds of these patients."""

SHARED, SHARED_IMAGE, OWN, OWN_IMAGE = 0.5, 0.7, 0.5, 0.7
"""Standard deviations between patients and between images, common to all models and of each."""

UNEQUAL_NOISE = float(np.sqrt(SHARED**2 + SHARED_IMAGE**2 + OWN**2 + OWN_IMAGE**2))
"""Standard deviation of the scores of a model, within a class."""


def true_auroc(gap: float, noise: float = UNEQUAL_NOISE) -> float:
    """AUROC in the population, for two normal classes a gap apart."""
    return float(norm.cdf(gap / (noise * np.sqrt(2))))


def true_recall(gap: float, noise: float = UNEQUAL_NOISE) -> float:
    """Recall of either class at 0.5 in the population."""
    return float(norm.cdf(gap / 2 / noise))


def unequal(
    generator: np.random.Generator,
    images: Images,
    gaps: Sequence[float],
    share: float = 1.0,
    name: str = "",
    *,
    seeds: int = 1,
    luck: float = 0.0,
    confidence: float = 1.0,
) -> list[Sample]:
    """Predictions of models for one test set, the seeds of the first model first.

    Models differ by their gaps and by chance: if the gaps are equal and the confidence is 1, scores
    of any patient are exchangeable between models.

    Args:
        generator: generator of all random numbers.
        images: images of each healthy and of each leukemic patient.
        gaps: distance between the class means of each model.
        share: share of each patient's images to simulate, to save time; at least one image.
        name: prefix of the patients' names.
        seeds: number of seeds of each model.
        luck: standard deviation of the gap over seeds.
        confidence: factor of the log odds of each model after the first.
    """
    counts = [max(1, round(share * n)) for n in (*images[0], *images[1])]
    patients = np.repeat(np.arange(len(counts)), counts)
    labels = (patients >= len(images[0])).astype(np.int64)
    shared = generator.normal(0, SHARED, len(counts))[patients]
    shared += generator.normal(0, SHARED_IMAGE, len(labels))
    names = np.char.add(name, patients.astype(str))
    samples = []
    for model, gap in enumerate(gaps):
        own = generator.normal(0, OWN, len(counts))[patients]
        for _ in range(seeds):
            lucky = gap + generator.normal(0, luck) if luck else gap
            noise = own + generator.normal(0, OWN_IMAGE, len(labels))
            scores = lucky * (labels - 0.5) + shared + noise
            samples.append(Sample(expit(scores * confidence ** (model > 0)), labels, names))
    return samples


def simulate(
    generator: np.random.Generator, hem: int, leukemic: int, images: int, gap: float, name: str = ""
) -> Sample:
    """Predictions of a model for patients with equally many images."""
    (sample,) = unequal(generator, ([images] * hem, [images] * leukemic), [gap], name=name)
    return sample


def three_folds(
    generator: np.random.Generator, gaps: tuple[float, float], seeds: int = 1, luck: float = 0.0
) -> tuple[list[Sample], list[Sample]]:
    """Runs of two models on three folds of four healthy and ten leukemic patients each.

    The second model is twice as confident, so scores differ in meaning.
    """
    first: list[Sample] = []
    second: list[Sample] = []
    for fold in range(3):
        runs = unequal(
            generator,
            ([20] * 4, [20] * 10),
            gaps,
            name=f"{fold}-",
            seeds=seeds,
            luck=luck,
            confidence=2,
        )
        first += runs[:seeds]
        second += runs[seeds:]
    return first, second


def nine_patients(steps: int | None = None) -> Sample:
    """400 images of nine patients, one with images of both classes, with calibrated scores.

    Args:
        steps: number of steps to which scores are rounded, so that many tie; None for none.
    """
    generator = np.random.default_rng(0)
    subjects = generator.integers(0, 9, 400)
    labels = np.where(subjects < 3, 0, 1)
    labels[subjects == 8] = generator.integers(0, 2, int((subjects == 8).sum()))
    scores = generator.normal(0.4 + 0.2 * labels, 0.2).clip(0, 1)
    if steps:
        scores = (scores * steps).round() / steps
    return Sample(scores, labels.astype(np.int64), subjects, calibrated=scores**2)

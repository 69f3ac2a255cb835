"""Test sets with known truths: the cells of a person are alike."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from leuk.evaluate.intervals import Sample

SUBJECT, CELL = 0.7, 1.0
"""Spread of the subjects and of the cells of a subject, on the scale of the gap."""


HEM_IMAGES = (789, 400, 373, 185, 162, 119, 108, 69, 47, 18, 18)
"""Images per healthy patient of C-NMC's folds 0 and 1, where linked subjects are one patient."""

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
"""Images per healthy and per leukemic patient of three folds over them."""


def true_auroc(gap: float, noise: float = float(np.hypot(SUBJECT, CELL))) -> float:
    """AUROC over all persons there could be, for two normal classes a gap apart."""
    return float(norm.cdf(gap / (noise * np.sqrt(2))))


def true_recall(gap: float, noise: float = float(np.hypot(SUBJECT, CELL))) -> float:
    """Recall of either class at 0.5."""
    return float(norm.cdf(gap / 2 / noise))


def people(hem: int, leukemic: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of the subject and label of each cell."""
    subjects = np.repeat(np.arange(hem + leukemic), cells)
    return subjects, (subjects >= hem).astype(np.int64)


def judged(
    generator: np.random.Generator, hem: int, leukemic: int, cells: int, gap: float, name: str = ""
) -> Sample:
    """One model on one test set."""
    subjects, labels = people(hem, leukemic, cells)
    shift = generator.normal(0, SUBJECT, hem + leukemic)[subjects]
    scores = gap * (labels - 0.5) + shift + generator.normal(0, CELL, len(labels))
    return Sample(expit(scores), labels, np.char.add(name, subjects.astype(str)))


PAIR_NOISE = float(np.sqrt(0.6**2 + 0.5**2 + 0.6**2 + 0.6**2))
"""Spread of the scores of each of two models by :func:`judged_by_two`."""


def judged_by_two(
    generator: np.random.Generator,
    people_of: tuple[int, int],
    gaps: tuple[float, float],
    *,
    name: str = "",
    seeds: int = 1,
    luck: float = 0.0,
) -> list[tuple[Sample, Sample]]:
    """Two models, of several seeds, on one test set: they share persons and have their own errors.

    Args:
        generator: of everything.
        people_of: healthy and leukemic subjects.
        gaps: of the first and the second model.
        name: begins the subjects' names.
        seeds: how many of each.
        luck: spread of the gap over seeds.
    """
    subjects, labels = people(*people_of, 20)
    count = sum(people_of)

    def persons(spread: float) -> np.ndarray:
        return generator.normal(0, spread, count)[subjects]

    shared = persons(0.6) + generator.normal(0, 0.6, len(labels))
    own = [persons(0.5) for _ in gaps]
    names = np.char.add(name, subjects.astype(str))
    runs = []
    for _ in range(seeds):
        pair = []
        # The second model's scores mean something else: it is twice as sure.
        for gap, errors, sure in zip(gaps, own, (1, 2), strict=True):
            lucky = gap + generator.normal(0, luck)
            noise = generator.normal(0, 0.6, len(labels))
            scores = expit(sure * (lucky * (labels - 0.5) + shared + errors + noise))
            pair.append(Sample(scores, labels, names))
        runs.append((pair[0], pair[1]))
    return runs


def three_folds(
    generator: np.random.Generator,
    gaps: tuple[float, float],
    seeds: int = 1,
    luck: float = 0.0,
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Both models' runs on three folds of four healthy and ten leukemic subjects each."""
    runs = [
        pair
        for fold in range(3)
        for pair in judged_by_two(generator, (4, 10), gaps, name=f"{fold}-", seeds=seeds, luck=luck)
    ]
    return [one for one, _ in runs], [other for _, other in runs]


def unequal(
    generator: np.random.Generator,
    images: tuple[Sequence[int], Sequence[int]],
    gaps: Sequence[float],
    share: float = 1.0,
    name: str = "",
) -> list[Sample]:
    """Models on one test set whose patients have these many images.

    Models differ by their gaps and by chance: if the gaps are equal, scores of any patient may be
    exchanged between models.

    Args:
        generator: of everything.
        images: per healthy and per leukemic patient.
        gaps: of each model.
        share: of each patient's images, to be quick; at least one remains.
        name: begins the patients' names.
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
"""Spread of the scores by :func:`unequal`: of patients and images, shared by models and not."""

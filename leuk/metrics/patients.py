"""Patient-level evaluation: a score per patient, with intervals that hold for a dozen patients.

A child has leukemia, not an image. :func:`by_patient` turns a sample of images into a sample of
patients; every metric, threshold and comparison of images then applies to patients unchanged. The
intervals here replace the bootstrap, which is too narrow for few patients and has no width where
all are classified correctly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata

from leuk.data.labels import Label
from leuk.metrics.arrays import Floats, Integers
from leuk.metrics.classification import Sample

_EDGE = 1e-6
"""Distance from 0 and 1 to which scores are clipped before their log odds are averaged."""

Interval = tuple[float, float]


def mean_logit(scores: Floats) -> float:
    """Mean log odds of scores ``(n,)``, as a probability."""
    # Rounded, so that patients with equal scores of all images tie whatever their number.
    return round(float(expit(logit(scores.clip(_EDGE, 1 - _EDGE)).mean())), 12)


SCORES: Mapping[str, Callable[[Floats], float]] = {
    "mean_logit": mean_logit,
    "median": lambda scores: float(np.median(scores)),
    "mean_probability": lambda scores: float(scores.mean()),
    "share_above": lambda scores: float((scores >= 0.5).mean()),
}
"""Name to the function from the scores of a patient's images to the patient's score, in [0, 1]."""


def by_patient(sample: Sample, score: str = "mean_logit") -> Sample:
    """Reduce a sample of images to a sample with a row per patient, in the order of their names.

    Args:
        sample: images, with calibrated scores if there are any: these are then used.
        score: a name of :data:`SCORES`.

    Returns:
        A sample of S patients. A patient with images of both classes counts as leukemic.

    Raises:
        ValueError: an unknown name, or patients of a single class.
    """
    if score not in SCORES:
        raise ValueError(f"no patient score {score}; choose from {', '.join(SCORES)}")
    images, labels, names = _grouped(sample)
    return Sample(np.array([SCORES[score](own) for own in images]), labels, names)


def _grouped(sample: Sample) -> tuple[list[Floats], Integers, npt.NDArray[np.generic]]:
    """Return the scores of each patient's images, and the label and name of each patient."""
    given = sample.scores if sample.calibrated is None else sample.calibrated
    order = np.argsort(sample.codes, kind="stable")
    starts = np.flatnonzero(np.diff(sample.codes[order], prepend=-1))
    images = np.split(given[order], starts[1:])
    labels = np.maximum.reduceat(sample.labels[order], starts)
    return images, labels, sample.subjects[order][starts]


# --- Intervals


def auroc(scores: Floats, labels: Integers) -> float:
    """AUROC of scores ``(N,)``; ties count half. NaN without both classes."""
    positive = labels == Label.ALL
    leukemic, healthy = int(positive.sum()), int((~positive).sum())
    if not leukemic or not healthy:
        return float("nan")
    ranks = float(rankdata(scores)[positive].sum())
    return (ranks - leukemic * (leukemic + 1) / 2) / (leukemic * healthy)


def auroc_interval(value: float, leukemic: int, healthy: int, level: float = 0.95) -> Interval:
    """Score-type interval of an AUROC of independent patients.

    The interval has the values that a test with their own standard error does not reject, so that
    it has a width at AUROC 1 and stays within [0, 1] (Newcombe 2006, Statistics in Medicine 25,
    559-573, method 5, with the standard error of Hanley and McNeil 1982).

    Args:
        value: AUROC in [0, 1].
        leukemic: number of leukemic patients.
        healthy: number of healthy patients.
        level: confidence level, in (0, 1).
    """
    z = norm.ppf((1 + level) / 2)
    extra = (leukemic + healthy) / 2 - 1

    def excess(true: float) -> float:
        spread = 1 + extra * ((1 - true) / (2 - true) + true / (1 + true))
        return float((value - true) ** 2 - z**2 * true * (1 - true) * spread / leukemic / healthy)

    # At 0 and 1 the standard error is 0, which is a root of its own: it is divided out.
    hair = 1e-9
    low = brentq(excess, 0.0, min(value, 1 - hair)) if value > 0 else 0.0
    high = brentq(excess, max(value, hair), 1.0) if value < 1 else 1.0
    return float(low), float(high)


def share_interval(hits: int, count: int, level: float = 0.95) -> Interval:
    """Wilson interval of a share of independent patients (Wilson 1927); [0, 1] without patients."""
    if not count:
        return 0.0, 1.0
    found = binomtest(hits, count).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(shares: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent shares, from theirs (MOVER, Donner and Zou 2012)."""
    mean, count = float(np.mean(shares)), len(shares)
    below = sum((share - low) ** 2 for share, (low, _) in zip(shares, intervals, strict=True))
    above = sum((high - share) ** 2 for share, (_, high) in zip(shares, intervals, strict=True))
    return mean - float(np.sqrt(below)) / count, mean + float(np.sqrt(above)) / count


# --- Metrics


@dataclass(frozen=True)
class PatientMetrics:
    """Metrics of patients at a threshold that was chosen on others, each with a 95 % interval.

    Attributes:
        values: name to value: ``auroc``, ``balanced_accuracy``, ``sensitivity``, ``specificity``.
        intervals: name to the ends of the interval.
        leukemic: number of leukemic patients.
        healthy: number of healthy patients.
        images: smallest, median and largest number of images per patient.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    leukemic: int
    healthy: int
    images: tuple[int, float, int]


def patient_metrics(
    scores: Floats,
    labels: Integers,
    called: npt.NDArray[np.bool_],
    images: Integers,
) -> PatientMetrics:
    """Compute the metrics of patients, pooled over folds if they come from several.

    Args:
        scores: ``(S,)`` score per patient.
        labels: ``(S,)``, 1 = leukemic; both classes present.
        called: ``(S,)`` True for patients called leukemic.
        images: ``(S,)`` number of images per patient.
    """
    positive = labels == Label.ALL
    leukemic, healthy = int(positive.sum()), int((~positive).sum())
    hits, passed = int((called & positive).sum()), int((~called & ~positive).sum())
    shares = hits / leukemic, passed / healthy
    of_shares = share_interval(hits, leukemic), share_interval(passed, healthy)
    area = auroc(scores, labels)
    return PatientMetrics(
        {
            "auroc": area,
            "balanced_accuracy": float(np.mean(shares)),
            "sensitivity": shares[0],
            "specificity": shares[1],
        },
        {
            "auroc": auroc_interval(area, leukemic, healthy),
            "balanced_accuracy": mean_interval(shares, of_shares),
            "sensitivity": of_shares[0],
            "specificity": of_shares[1],
        },
        leukemic,
        healthy,
        (int(images.min()), float(np.median(images)), int(images.max())),
    )


def patient_threshold(scores: Floats, labels: Integers) -> float:
    """Choose the threshold of patients' scores on validation patients.

    It maximizes sensitivity + specificity and lies in the middle between two patients' scores: with
    few patients the maximum is a wide gap, and its ends would call the next patient by a hair. Of
    several maxima the middle of the widest gap is taken.

    Args:
        scores: ``(S,)`` in [0, 1].
        labels: ``(S,)``, 1 = leukemic.
    """
    positive = labels == Label.ALL
    if not positive.any() or positive.all():
        return 0.5
    edges = np.concatenate([[0.0], np.unique(scores), [1.0]])
    cuts, gaps = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    called = scores >= cuts[:, None]
    gained = (called[:, positive].mean(axis=1) - called[:, ~positive].mean(axis=1)).round(12)
    best = np.flatnonzero(gained == gained.max())
    return float(cuts[best[np.argmax(gaps[best])]])


# --- Number of images per decision

COUNTS = (1, 2, 5, 10, 20)


def image_count_curve(
    sample: Sample, threshold: float, score: str = "mean_logit", draws: int = 100, seed: int = 0
) -> dict[int, tuple[float, float]]:
    """AUROC and error rate of patients against the number of images drawn per patient.

    Args:
        sample: images with scores.
        threshold: threshold of the patients' scores.
        score: a name of :data:`SCORES`.
        draws: repeated draws, without replacement; patients with fewer images keep all.
        seed: seed of the draws.

    Returns:
        Number of images to the mean over draws of AUROC and of the mean error of both classes; the
        key 0 is for all images.
    """
    generator = np.random.default_rng(seed)
    images, labels, _ = _grouped(sample)
    positive = labels == Label.ALL
    function, curve = SCORES[score], {}
    for count in (*COUNTS, 0):
        found = []
        for _ in range(draws if count else 1):
            scores = np.array(
                [function(generator.permutation(own)[:count] if count else own) for own in images]
            )
            called = scores >= threshold
            error = ((~called[positive]).mean() + called[~positive].mean()) / 2
            found.append((auroc(scores, labels), float(error)))
        area, wrong = np.mean(found, axis=0)
        curve[count] = float(area), float(wrong)
    return curve

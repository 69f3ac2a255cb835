"""Referral band: scores around the threshold whose images are referred to an expert.

The band is chosen on validation images so that the 95 % lower confidence bound of the share of
correct decisions outside it, not the observed share, reaches an aim. Images of the same patient are
alike: in 54 published runs a band chosen by the observed share reached its aim on test images in 31
of 53 runs for images called healthy and in 3 of 29 for images called leukemic. The bound resamples
patients. With too few validation patients no band can guarantee the aim, and every image is
referred. The performance of a band is measured on test images, which play no role in its choice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from leuk.data.labels import Label
from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.data.splits import effective_patients
from leuk.metrics.arrays import Flags, Floats
from leuk.metrics.bootstrap import Fold, estimates
from leuk.metrics.classification import Sample

AIM = 0.95
"""Desired share of correct decisions outside the band."""

CONFIDENCE = 0.95
"""Confidence of the lower bound that must reach the aim."""

_DRAWS = 500
_CUTS = 50
"""Largest number of cuts tried on each side: all scores, or evenly spaced ones of many."""

_STARTS = 5
"""Evenly spaced cuts at which a sequence of tests starts, each at a fifth of the level."""


@dataclass(frozen=True)
class Share:
    """A share of images with its interval over patients; None without images."""

    value: float | None
    low: float | None
    high: float | None
    images: int  # in the denominator
    patients: float  # their effective number


@dataclass(frozen=True)
class Band:
    """Range of calibrated scores whose images are referred to an expert.

    An image called healthy is referred from the score ``low`` on, an image called leukemic below
    ``high``; without a cut that can guarantee the aim, None, every such image is referred. A bound
    is the lower confidence bound of the share of correct decisions on images called so, of the
    chosen cut or else the largest of any cut; None if no cut was tried.
    """

    aim: float  # share of correct decisions, for each decision separately
    low: float | None
    high: float | None
    referred: float  # share of the validation images
    right: float | None  # share of correct decisions on the others; None if all are referred
    healthy_bound: float | None = None
    leukemic_bound: float | None = None
    healthy_patients: float = 0.0  # effective number of validation patients with such images
    leukemic_patients: float = 0.0

    def refers(self, scores: Floats, leukemic: Flags) -> Flags:
        """Return flags ``(N,)`` of the referred images, from calibrated scores and decisions."""
        healthy = ~leukemic & (scores >= (-np.inf if self.low is None else self.low))
        unsure = leukemic & (scores < (np.inf if self.high is None else self.high))
        return np.asarray(healthy | unsure)

    @property
    def reason(self) -> str:
        """Reason why a side has no cut; empty if both have a cut."""
        sides = {
            "healthy": (self.low, self.healthy_bound),
            "leukemic": (self.high, self.leukemic_bound),
        }
        missing = [(name, bound) for name, (cut, bound) in sides.items() if cut is None]
        if not missing:
            return ""
        patients = {"healthy": self.healthy_patients, "leukemic": self.leukemic_patients}
        few = [f"{n:.1f} effective {name}" for name, n in patients.items() if n < FEWEST_PATIENTS]
        if few:
            return (
                f"validation has too few patients ({' and '.join(few)}; at least "
                f"{FEWEST_PATIENTS:.0f} of each class are needed)"
            )
        counted = " and ".join(f"{n:.1f} effective {name}" for name, n in patients.items())
        reached = " and ".join(
            f"no image is called {name}"
            if bound is None
            else f"of images called {name} at least {bound:.1%} are correct"
            for name, bound in missing
        )
        return f"with {counted} patients the best guarantee is: {reached}"

    @property
    def message(self) -> str:
        """Describe the band in one or two sentences."""
        aim = f"{self.aim:.0%} correct decisions"
        if self.low is None and self.high is None:
            return f"No band can guarantee {aim}: {self.reason}. Every image is referred."
        if self.high is None:
            which = f"all images called leukemic and images called healthy from {self.low:.3f} on"
        elif self.low is None:
            which = f"all images called healthy and images called leukemic below {self.high:.3f}"
        else:
            which = f"images with a score from {self.low:.3f} to {self.high:.3f}"
        lacking = f" ({self.reason})" if self.reason else ""
        return (
            f"For {aim}, {which} are referred{lacking}, by calibrated score. Of the validation "
            f"images used to choose the band, {self.referred:.0%} are referred and "
            f"{self.right:.1%} of the other decisions are correct."
        )


@dataclass(frozen=True)
class Achieved:
    """Performance of a band on images that were not used to choose it."""

    referred: Share
    healthy: Share  # correct decisions among images called so and not referred
    leukemic: Share

    @classmethod
    def of(cls, sample: Sample, right: Flags, kept: Flags, bands: Sequence[Band]) -> "Achieved":
        """Measure bands on images, from the flags ``(3, N)`` that :func:`outcomes` returns."""
        referred, healthy, leukemic = shares(sample, right, kept)
        if all(band.low is None and band.high is None for band in bands):
            # Referring everything is a rule that does not depend on the patients.
            referred = replace(referred, low=1.0, high=1.0)
        return cls(referred, healthy, leukemic)

    @property
    def message(self) -> str:
        """One sentence with the three shares and their intervals by patient."""
        kept = [
            f"of {share.images} images called {name} and not referred "
            f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}] are correct"
            for name, share in (("healthy", self.healthy), ("leukemic", self.leukemic))
            if share.value is not None
        ]
        statements = [f"{self.referred.value:.0%} of the images are referred", *kept]
        return f"On the run's test images {'; '.join(statements)} (95 % intervals by patient)."


def choose_band(sample: Sample, threshold: float, aim: float = AIM) -> Band:
    """Choose the band that refers the fewest images while both decisions reach the aim.

    Each side is chosen separately, since referring every image of the rarer class would reach an
    aim for both together. A cut guarantees the aim if a one-sided lower bound of :func:`shares`
    reaches it. Cuts are tested in fixed sequences, from the cut that refers most to those that
    refer less, until one fails (Angelopoulos et al. 2021, *Learn then Test*, algorithm 1);
    :data:`_STARTS` sequences share the level. The probability that the chosen cut misses the aim is
    thus at most 1 - :data:`CONFIDENCE` on each side. In 600 simulated validation sets of each of 12
    designs with the image counts of C-NMC's patients, and aims of 0.8, 0.9 and 0.95, it was at most
    0.025; with each cut tried at the full level, up to 0.12 (``tests/benchmarks/intervals.py``). A
    range of scores next to the band without validation images counts as part of the band.

    Images with at least the threshold, before calibration, are called leukemic.

    Raises:
        ValueError: an aim out of range, or scores that are not calibrated.
    """
    if not 0.5 < aim < 1:
        raise ValueError(f"aim={aim}: must be between 0.5 and 1")
    scores, leukemic = _calibrated(sample), sample.scores >= threshold
    patients = [sample.effective_subjects_of(label) for label in Label]
    low = high = healthy_bound = leukemic_bound = None
    if min(patients) >= FEWEST_PATIENTS:
        high, leukemic_bound = _cut(sample, scores, leukemic, Label.ALL, aim)
        # Images below this cut, not at it, are kept: mirror the scores, then take one step up.
        mirrored, healthy_bound = _cut(sample, -scores, ~leukemic, Label.HEM, aim)
        low = None if mirrored is None else float(np.nextafter(-mirrored, np.inf))
    band = Band(aim, low, high, 0.0, None, healthy_bound, leukemic_bound, *patients)
    referred = band.refers(scores, leukemic)
    right = (leukemic == (sample.labels == Label.ALL))[~referred]
    share = float(right.mean()) if len(right) else None
    return replace(band, referred=float(referred.mean()), right=share)


def _calibrated(sample: Sample) -> Floats:
    if sample.calibrated is None:
        raise ValueError("a band refers by calibrated scores; this sample has none")
    return sample.calibrated


def _cut(
    sample: Sample, scores: Floats, called: Flags, label: Label, aim: float
) -> tuple[float | None, float | None]:
    """Find the lowest score from which the aim is guaranteed, and the bound there.

    Without such a score: None and the largest bound at a start, which is the largest aim that can
    be guaranteed. Both are None if no image is called so.
    """
    cuts = np.unique(scores[called])
    if not len(cuts):
        return None, None
    if len(cuts) > _CUTS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, _CUTS).round().astype(int)]
    kept = called & (scores >= cuts[:, None])
    starts = np.unique(np.linspace(0, len(cuts) - 1, _STARTS).round().astype(int))
    confidence = 1 - (1 - CONFIDENCE) / len(starts)
    # Lower end of a two-sided interval with the error of a one-sided bound on either side.
    found = shares(sample, kept & (sample.labels == label), kept, 2 * confidence - 1)
    bounds = np.array([share.low for share in found])
    fails = bounds < aim
    reached = []
    for start in starts[~fails[starts]]:
        below = np.flatnonzero(fails[:start])
        reached.append(int(below[-1]) + 1 if len(below) else 0)
    if reached:
        return float(cuts[min(reached)]), float(bounds[min(reached)])
    return None, float(bounds[starts].max())


def achieved(sample: Sample, threshold: float, band: Band) -> Achieved:
    """Measure a band on other images, such as test images; for arguments see :func:`outcomes`."""
    return Achieved.of(sample, *outcomes(sample, threshold, band), [band])


def outcomes(sample: Sample, threshold: float, band: Band) -> tuple[Flags, Flags]:
    """Flag the images in numerator and denominator of each share of :class:`Achieved`.

    Returns:
        ``(3, N)`` numerators and ``(3, N)`` denominators.

    Raises:
        ValueError: scores that are not calibrated.
    """
    leukemic = sample.scores >= threshold
    referred = band.refers(_calibrated(sample), leukemic)
    healthy, positive = ~leukemic & ~referred, leukemic & ~referred
    truth = sample.labels == Label.ALL
    right = np.stack([referred, healthy & ~truth, positive & truth])
    return right, np.stack([np.ones_like(referred), healthy, positive])


def shares(sample: Sample, right: Flags, kept: Flags, level: float = 0.95) -> list[Share]:
    """Compute shares of images, from K numerators and denominators ``(K, N)`` of N images."""
    counted, whole = (
        np.stack([np.bincount(sample.codes, row) for row in flags.astype(np.float64)])
        for flags in (right, kept)
    )  # (K, S)

    def of_weights(_: None, weights: Floats) -> Floats:
        return (counted @ weights.T) / np.maximum(whole @ weights.T, np.finfo(np.float64).tiny)

    fold = Fold([None], sample.strata, sample.images)
    found = []
    for estimate, row in zip(estimates([fold], of_weights, _DRAWS), kept, strict=True):
        if not row.any():
            found.append(Share(None, None, None, 0, 0.0))
            continue
        patients = effective_patients(sample.subjects[row].tolist())
        low, high = estimate.interval_within(level, 0.0, 1.0, patients)
        found.append(Share(estimate.value, low, high, int(row.sum()), patients))
    return found


def referral_record(val: Sample, test: Sample, threshold: float, name: str) -> dict[str, Any]:
    """Choose and measure a run's band for its record.

    Returns:
        ``threshold`` (its ``name``), ``band`` (:class:`Band` and ``reason``), and ``test``
        (:class:`Achieved`), as plain values.
    """
    band = choose_band(val, threshold)
    return {
        "threshold": name,
        "band": asdict(band) | {"reason": band.reason},
        "test": asdict(achieved(test, threshold, band)),
    }

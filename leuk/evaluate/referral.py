"""Referral band: scores about the threshold whose images are left to an expert.

The band is chosen on validation images so that a 95 % lower confidence bound, not the observed
share, of correct decisions outside it reaches an aim. Images of one patient are alike: of 54
published runs a band chosen by the observed share reached its aim on test images in 31 of 53 for
images called healthy and in 3 of 29 for images called leukemic. The bound resamples patients. Where
validation has too few of them no band can be promised, and every image is referred. What a band
achieved is measured on test images, which had no part in its choice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from leuk.data.effective import FEWEST as FEWEST_PATIENTS
from leuk.data.effective import effective_patients
from leuk.data.labels import Label
from leuk.evaluate.hierarchy import Bootstrap, Fold
from leuk.evaluate.sample import Sample
from leuk.evaluate.vectors import Flags, Floats

AIM = 0.95
"""Share of correct decisions that is wanted outside the band."""

CONFIDENCE = 0.95
"""Of the lower bound that has to reach the aim."""

_LEVEL = 0.95
"""Of the intervals on test images."""

_DRAWS = 500
_CUTS = 50
"""Cuts tried on each side: every score where there are no more, else evenly spaced ones."""

_STARTS = 5
"""Evenly spaced cuts at which a sequence of tests starts, each at a fifth of the level."""

_SIDES = {Label.HEM: "healthy", Label.ALL: "leukemic"}


@dataclass(frozen=True)
class Share:
    """A share of images with its interval over patients.

    Attributes:
        value: in [0, 1]; None without images.
        low: lower end of the interval; None where the value is None.
        high: upper end.
        images: how many it is a share of.
        patients: the effective number of patients behind these.
    """

    value: float | None
    low: float | None
    high: float | None
    images: int
    patients: float


@dataclass(frozen=True)
class Band:
    """Scores whose images are left to an expert.

    Attributes:
        aim: wanted share of correct decisions, of each decision by itself.
        low: an image called healthy is referred from this calibrated score on; None where no cut
            can promise the aim, so that every such image is.
        high: an image called leukemic is referred below this score; None likewise.
        referred: share of the validation images that is referred.
        right: share of correct decisions about the others; None where there are none.
        healthy_bound: largest lower confidence bound of the share correct that a cut reaches, of
            images called healthy; that of the chosen cut where there is one. None where no cut was
            tried.
        leukemic_bound: the same of images called leukemic.
        healthy_patients: effective number of validation patients with healthy images.
        leukemic_patients: effective number of validation patients with leukemic images.
    """

    aim: float
    low: float | None
    high: float | None
    referred: float
    right: float | None
    healthy_bound: float | None = None
    leukemic_bound: float | None = None
    healthy_patients: float = 0.0
    leukemic_patients: float = 0.0

    def refers(self, scores: Floats, leukemic: Flags) -> Flags:
        """Flags of the referred images.

        Args:
            scores: ``(N,)`` on the scale that the band was chosen on.
            leukemic: ``(N,)`` what was decided.
        """
        healthy = ~leukemic & (scores >= (-np.inf if self.low is None else self.low))
        unsure = leukemic & (scores < (np.inf if self.high is None else self.high))
        return np.asarray(healthy | unsure)

    @property
    def reason(self) -> str:
        """Why a side has no cut; empty where both have one."""
        if self.low is not None and self.high is not None:
            return ""
        patients = {"healthy": self.healthy_patients, "leukemic": self.leukemic_patients}
        few = [f"{n:.1f} effective {name}" for name, n in patients.items() if n < FEWEST_PATIENTS]
        if few:
            return (
                f"validation has too few patients ({' and '.join(few)}; at least "
                f"{FEWEST_PATIENTS:.0f} of each class are needed)"
            )
        sides = (("healthy", self.low, self.healthy_bound),
                 ("leukemic", self.high, self.leukemic_bound))  # fmt: skip
        counted = " and ".join(f"{n:.1f} effective {name}" for name, n in patients.items())
        reached = " and ".join(
            f"no image is called {name}"
            if bound is None
            else f"of images called {name} at least {bound:.1%} are correct"
            for name, cut, bound in sides
            if cut is None
        )
        return f"with {counted} patients the most that can be promised is: {reached}"

    @property
    def said(self) -> str:
        """One or two sentences for a reader, with what validation images can promise."""
        aim = f"{self.aim:.0%} correct decisions"
        if self.low is None and self.high is None:
            return f"No band can promise {aim}: {self.reason}. Every image is referred."
        if self.high is None:
            which = f"all images called leukemic and images called healthy from {self.low:.3f} on"
        elif self.low is None:
            which = f"all images called healthy and images called leukemic below {self.high:.3f}"
        else:
            which = f"images with a score from {self.low:.3f} to {self.high:.3f}"
        lacking = f" ({self.reason})" if self.reason else ""
        return (
            f"For {aim}, {which} are referred{lacking}, by calibrated score. On the validation "
            f"images that this was chosen on, {self.referred:.0%} are referred and "
            f"{self.right:.1%} of the other decisions are correct."
        )


@dataclass(frozen=True)
class Achieved:
    """What a band does on images that had no part in its choice.

    Attributes:
        referred: share of all images that is referred.
        healthy: share correct of the images called healthy that are not referred.
        leukemic: share correct of the images called leukemic that are not referred.
    """

    referred: Share
    healthy: Share
    leukemic: Share

    @classmethod
    def of(cls, sample: Sample, right: Flags, kept: Flags, bands: Sequence[Band]) -> "Achieved":
        """Measure bands on images.

        Args:
            sample: the images.
            right: see :func:`outcomes`.
            kept: likewise.
            bands: that the flags are of.
        """
        referred, healthy, leukemic = shares(sample, right, kept)
        if all(band.low is None and band.high is None for band in bands):
            # Everything is referred by rule, whoever the patients are.
            referred = replace(referred, low=1.0, high=1.0)
        return cls(referred, healthy, leukemic)

    @property
    def said(self) -> str:
        """One sentence with the three shares and their intervals by patient."""
        kept = [
            f"of {share.images} images called {name} and not referred "
            f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}] are correct"
            for name, share in (("healthy", self.healthy), ("leukemic", self.leukemic))
            if share.value is not None
        ]
        figures = [f"{self.referred.value:.0%} of the images are referred", *kept]
        return f"On the run's test images {'; '.join(figures)} (95 % intervals by patient)."


def choose_band(sample: Sample, threshold: float, aim: float = AIM) -> Band:
    """Choose the band that refers the fewest images while both decisions promise the aim.

    Each side is chosen by itself, since an aim for both together would be reached by referring
    every image of the rarer class. A cut promises the aim if a one-sided lower bound of
    :func:`shares` reaches it. Cuts are tested in fixed sequences, from the cut that refers most to
    those that refer less, until one fails (Angelopoulos et al. 2021, *Learn then Test*, algorithm
    1); :data:`_STARTS` sequences share the level. So the chance that the cut chosen from all those
    tried keeps less than the aim is at most 1 - :data:`CONFIDENCE` on each side. In 600 simulated
    validation sets of each of 12 designs with the image counts of C-NMC's patients, and aims of
    0.8, 0.9 and 0.95, it was at most 0.025; with each cut tried at the full level, up to 0.12
    (``tests/benchmarks/referral.py``). Where no validation image has a score, next to the band, it
    counts as inside.

    Args:
        sample: validation images, calibrated.
        threshold: images with at least this score, before calibration, are called leukemic.
        aim: in (0.5, 1).

    Raises:
        ValueError: an aim out of range, or scores that are not calibrated.
    """
    if not 0.5 < aim < 1:
        raise ValueError(f"aim={aim}: it lies between 0.5 and 1")
    if sample.calibrated is None:
        raise ValueError("a band is chosen on calibrated scores; this sample has none")
    scores, leukemic = sample.calibrated, sample.scores >= threshold
    healthy_patients, leukemic_patients = (
        effective_patients(sample.subjects[sample.labels == label].tolist()) for label in Label
    )
    low = high = healthy_bound = leukemic_bound = None
    if min(healthy_patients, leukemic_patients) >= FEWEST_PATIENTS:
        high, leukemic_bound = _cut(sample, scores, leukemic, Label.ALL, aim)
        # Below a cut and not at it: the mirror image, then one step up.
        mirrored, healthy_bound = _cut(sample, -scores, ~leukemic, Label.HEM, aim)
        low = None if mirrored is None else float(np.nextafter(-mirrored, np.inf))
    referred = Band(aim, low, high, 0.0, None).refers(scores, leukemic)
    right = (leukemic == (sample.labels == Label.ALL))[~referred]
    return Band(
        aim,
        low,
        high,
        float(referred.mean()),
        float(right.mean()) if len(right) else None,
        healthy_bound,
        leukemic_bound,
        healthy_patients,
        leukemic_patients,
    )


def _cut(
    sample: Sample, scores: Floats, called: Flags, label: Label, aim: float
) -> tuple[float | None, float | None]:
    """The lowest score from which on the aim can be promised, and the bound there.

    Without such a score, None and the largest bound at a start, which is the largest aim that could
    be promised; None for both where no image is called so.
    """
    cuts = np.unique(scores[called])
    if not len(cuts):
        return None, None
    if len(cuts) > _CUTS:
        cuts = cuts[np.linspace(0, len(cuts) - 1, _CUTS).round().astype(int)]
    kept = called & (scores >= cuts[:, None])
    starts = np.unique(np.linspace(0, len(cuts) - 1, _STARTS).round().astype(int))
    confidence = 1 - (1 - CONFIDENCE) / len(starts)
    # Both ends of a two-sided interval leave out as much as the one of a one-sided bound.
    found = shares(sample, kept & (sample.labels == label), kept, 2 * confidence - 1)
    bounds = np.array([one.low for one in found])
    fails = bounds < aim
    reached = []
    for start in starts[~fails[starts]]:
        below = np.flatnonzero(fails[:start])
        reached.append(int(below[-1]) + 1 if len(below) else 0)
    if reached:
        return float(cuts[min(reached)]), float(bounds[min(reached)])
    return None, float(bounds[starts].max())


def achieved(sample: Sample, threshold: float, band: Band) -> Achieved:
    """Measure a band on other images, such as those of the test stage.

    Args:
        sample: the images, calibrated by the temperature that the band was chosen with.
        threshold: as in :func:`choose_band`.
        band: chosen on validation images.

    Raises:
        ValueError: scores that are not calibrated.
    """
    return Achieved.of(sample, *outcomes(sample, threshold, band), [band])


def outcomes(sample: Sample, threshold: float, band: Band) -> tuple[Flags, Flags]:
    """The images behind each share of :class:`Achieved`.

    Returns:
        ``(3, N)`` the images that count, and ``(3, N)`` those of which the share is taken.

    Raises:
        ValueError: scores that are not calibrated.
    """
    if sample.calibrated is None:
        raise ValueError("a band refers by calibrated scores; this sample has none")
    leukemic = sample.scores >= threshold
    referred = band.refers(sample.calibrated, leukemic)
    healthy, positive = ~leukemic & ~referred, leukemic & ~referred
    truth = sample.labels == Label.ALL
    right = np.stack([referred, healthy & ~truth, positive & truth])
    return right, np.stack([np.ones_like(referred), healthy, positive])


def shares(sample: Sample, right: Flags, kept: Flags, level: float = _LEVEL) -> list[Share]:
    """Shares of images, each with an interval over patients.

    The interval is that of :mod:`leuk.evaluate.intervals`: patients resampled within their class, t
    standard errors on the log-odds. A share of 0 or 1 has no spread between patients; there every
    patient counts as one observation, the worst case of images that are alike, and the interval is
    the exact one of the effective number of patients (Clopper & Pearson 1934).

    Args:
        sample: the images.
        right: ``(K, N)`` the images that count, among the kept ones.
        kept: ``(K, N)`` the images of which each share is taken.
        level: of the interval.
    """
    count = int(sample.codes.max()) + 1

    def sums(flags: Flags) -> Floats:
        rows = [np.bincount(sample.codes, row, count) for row in flags.astype(np.float64)]
        return np.stack(rows).astype(np.float64)

    counted, whole = sums(right), sums(kept)
    least = np.finfo(np.float64).tiny
    fold = Fold([None], sample.strata, count, sample.images)
    estimates = Bootstrap([fold], _DRAWS, 0).estimates(
        lambda _, weights: (counted @ weights.T) / np.maximum(whole @ weights.T, least)
    )
    found = []
    for estimate, row in zip(estimates, kept, strict=True):
        patients = effective_patients(sample.subjects[row].tolist())
        images = int(row.sum())
        if not images:
            found.append(Share(None, None, None, 0, 0.0))
            continue
        low, high = estimate.interval_within(level, 0.0, 1.0, patients)
        found.append(Share(estimate.value, low, high, images, patients))
    return found


def referral_record(val: Sample, test: Sample, threshold: float, name: str) -> dict[str, Any]:
    """What a run's record holds of its band.

    Args:
        val: validation images, calibrated: the band is chosen on them.
        test: test images, likewise.
        threshold: chosen on validation images.
        name: of the threshold.

    Returns:
        ``threshold`` (its name), ``band`` (:class:`Band` and ``reason``), and ``test``
        (:class:`Achieved`), as plain values.
    """
    band = choose_band(val, threshold)
    return {
        "threshold": name,
        "band": asdict(band) | {"reason": band.reason},
        "test": asdict(achieved(test, threshold, band)),
    }

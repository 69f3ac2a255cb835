"""Which cells are left to an expert: a band of scores about the threshold, chosen on validation.

Outside the band a decision is right often enough, inside it is not. Like the threshold it is chosen
once and then used on cells that had no part in it, where it may keep less than it promises.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leuk.data.labels import Label
from leuk.evaluate.vectors import Floats, Vector, as_scores_and_labels

Flags = npt.NDArray[np.bool_]

AIM = 0.95
"""Share of right decisions that is wanted outside the band."""

_ALL = "all cells called {}, as no part of them reaches it, and"


@dataclass(frozen=True)
class Band:
    """Scores whose cells are left to an expert.

    Attributes:
        aim: wanted share of right decisions, of each decision by itself.
        low: a cell called healthy is left to an expert from this score on; None where no cut
            reached the aim, so that every such cell is.
        high: a cell called leukemic is left to an expert below this score; None likewise.
        referred: share of the validation cells that is left to an expert.
        right: share of right decisions about the others; None where there are none.
    """

    aim: float
    low: float | None
    high: float | None
    referred: float
    right: float | None

    def refers(self, scores: Floats, leukemic: Flags) -> Flags:
        """Whether each cell is left to an expert.

        Args:
            scores: ``(N,)`` on the scale that the band was chosen on.
            leukemic: ``(N,)`` what was decided.
        """
        healthy = ~leukemic & (scores >= (-np.inf if self.low is None else self.low))
        unsure = leukemic & (scores < (np.inf if self.high is None else self.high))
        return np.asarray(healthy | unsure)

    @property
    def said(self) -> str:
        """One or two sentences for a reader, with what was seen on validation cells."""
        aim = f"an aim of {self.aim:.0%} right decisions"
        if self.low is None and self.high is None:
            return f"No band reaches {aim} on validation cells: every cell is referred."
        if self.high is None:
            which = f"{_ALL.format('leukemic')} cells called healthy from {self.low:.3f} on"
        elif self.low is None:
            which = f"{_ALL.format('healthy')} cells called leukemic below {self.high:.3f}"
        else:
            which = f"cells with a score from {self.low:.3f} to {self.high:.3f}"
        return (
            f"For {aim}, {which} are referred, by calibrated score. On validation cells, which "
            f"this was chosen on, {self.referred:.0%} are referred and {self.right:.1%} of the "
            "other decisions are right."
        )


def choose_band(scores: Vector, labels: Vector, leukemic: Flags, aim: float = AIM) -> Band:
    """The band outside which both decisions reach the aim and the fewest cells are left out.

    Each side is chosen by itself: of the cells called leukemic above the band at least the share
    ``aim`` are, and of those called healthy below it likewise. An aim for both together would be
    reached by leaving every cell of the rarer class to the expert. A side needs 1 / (1 - aim) cells
    outside, as with fewer a share of ``aim`` could not be told from all. Where no validation cell
    has a score, next to the band, it counts as inside.

    Args:
        scores: ``(N,)`` of validation cells, calibrated, in [0, 1].
        labels: ``(N,)``, 1 = leukemic; both classes present.
        leukemic: ``(N,)`` what the frozen threshold decides.
        aim: in (0.5, 1).

    Raises:
        ValueError: an aim out of range, one class only, or scores outside [0, 1].
    """
    if not 0.5 < aim < 1:
        raise ValueError(f"an aim lies between 0.5 and 1, found {aim}")
    checked, truth = as_scores_and_labels(scores, labels)
    high = _cut(checked[leukemic], truth[leukemic] == Label.ALL, aim)
    healthy = ~leukemic
    # Below a cut and not at it: the mirror image, then one step up.
    low = _cut(-checked[healthy], truth[healthy] == Label.HEM, aim)
    if low is not None:
        low = float(np.nextafter(-low, np.inf))
    band = Band(aim, low, high, 0.0, None)
    referred = band.refers(checked, leukemic)
    right = (leukemic == (truth == Label.ALL))[~referred]
    return Band(aim, low, high, float(referred.mean()), float(right.mean()) if len(right) else None)


def _cut(scores: Floats, right: Flags, aim: float) -> float | None:
    """The lowest score from which on the share ``aim`` of the decisions is right."""
    order = np.argsort(-scores, kind="stable")
    counts = np.arange(1, len(scores) + 1)
    enough = np.cumsum(right[order]) >= aim * counts - 1e-9
    # Equal scores stay together.
    last = np.diff(scores[order], append=-np.inf) < 0
    there = np.flatnonzero(enough & last & (counts * (1 - aim) >= 1 - 1e-9))
    return float(scores[order][there[-1]]) if len(there) else None

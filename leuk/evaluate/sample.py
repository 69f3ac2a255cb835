"""Scores, labels and subjects of the images of a stage."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from leuk.data.effective import effective_number
from leuk.data.labels import Label
from leuk.evaluate.resampling import Reweighted
from leuk.evaluate.thresholds import DEFAULT, Thresholds
from leuk.evaluate.vectors import Flags, Floats, Integers, as_scores_and_labels
from leuk.store.digest import digest


@dataclass(frozen=True, eq=False)
class Sample:
    """Images of a stage with the scores of a model.

    Attributes:
        scores: ``float64 (N,)`` probability of leukemia, in [0, 1].
        labels: ``int64 (N,)``, 1 = leukemic; both classes present.
        subjects: ``(N,)`` the patient of each image; linked subjects share a name.
        calibrated: ``float64 (N,)`` scores after temperature scaling; None without calibration.

    Raises:
        ValueError: columns of different lengths, a single class, or scores outside [0, 1].
    """

    scores: Floats
    labels: Integers
    subjects: npt.NDArray[np.generic]
    calibrated: Floats | None = None

    def __post_init__(self) -> None:
        for scores in (self.scores, self.calibrated):
            if scores is not None:
                as_scores_and_labels(scores, self.labels)
        if self.subjects.shape != self.labels.shape:
            raise ValueError(f"{len(self.labels)} images but {len(self.subjects)} subjects")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of labels and subjects, equal for samples of the same images in the same order."""
        return digest([self.labels.tolist(), self.subjects.astype(str).tolist()])

    @cached_property
    def codes(self) -> Integers:
        """``(N,)`` number of each image's subject, from 0."""
        return np.unique(self.subjects.astype(str), return_inverse=True)[1]

    @cached_property
    def images(self) -> Integers:
        """``(S,)`` images per subject, in the order of their numbers."""
        return np.bincount(self.codes)

    @cached_property
    def strata(self) -> list[Integers]:
        """Numbers of the subjects with only healthy, only leukemic, and both kinds of images."""
        classes = np.zeros(int(self.codes.max()) + 1, np.int64)
        for label in Label:
            classes[np.unique(self.codes[self.labels == label])] |= 1 << label
        return [np.flatnonzero(classes == kind) for kind in (1, 2, 3) if (classes == kind).any()]

    @cached_property
    def at_half(self) -> Reweighted:
        """Metrics for any weights of the subjects, decided at 0.5; cached for frequent use."""
        return self.reweighted({DEFAULT: 0.5})

    @cached_property
    def image_weights(self) -> Floats:
        """``(N,)`` weight of each image under which the patients of a class weigh the same."""
        return self.at_half.image_weights

    def reweighted(self, thresholds: Thresholds) -> Reweighted:
        """Metrics for any weights of the subjects, decided at these thresholds."""
        decided = self.decided(thresholds)
        return Reweighted(self.scores, self.labels, self.codes, decided, self.calibrated)

    def subjects_of(self, label: Label) -> int:
        """Count the subjects with images of a class."""
        return len(np.unique(self.codes[self.labels == label]))

    def effective_subjects_of(self, label: Label) -> float:
        """Effective number of subjects with images of a class."""
        return effective_number(np.bincount(self.codes[self.labels == label]))

    def decided(self, thresholds: Thresholds) -> dict[str, Flags]:
        """Threshold name to ``(N,)`` True for images called leukemic."""
        return {name: self.scores >= threshold for name, threshold in thresholds.items()}

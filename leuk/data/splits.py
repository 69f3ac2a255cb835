"""Splits of the images into training, validation and test stages.

A rule (:mod:`leuk.data.rules`) assigns images to stages; patients of a later stage are then removed
from earlier stages. Rules that do not separate patients describe the leak.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.data.labels import Label
from leuk.errors import DataError

# --- Effective number of patients

FEWEST = 3.0
"""Minimum effective patients for conclusions about other patients: two patients give a single
difference, from which the variance between patients cannot be estimated."""


def effective_patients(patients: Iterable[Hashable]) -> float:
    """Effective number of patients, from the patient of each image ``(N,)``.

    A patient with 789 of 825 images dominates any average over images, which the number of patients
    hides (effective sample size: Kish, *Survey Sampling*, 1965, section 8.2).

    Returns:
        ``(sum n)^2 / sum n^2`` with ``n`` images per patient; 0 without images.
    """
    return effective_number(pd.Series(list(patients)).value_counts().to_numpy())


def effective_number(images: npt.NDArray[np.integer]) -> float:
    """Return :func:`effective_patients` for images per patient ``(P,)``."""
    counts = images.astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if len(counts) else 0.0


def patient_quantile(
    values: npt.NDArray[np.floating], patients: npt.NDArray[np.generic], share: float
) -> float:
    """Quantile of image values ``(N,)``, N > 0, with equal total weight per patient.

    With equal weights per image, the patient with the most images would determine it. The position
    of a value is the weight of smaller values plus half its own; positions between are interpolated
    (Hazen's rule; definition 5 of Hyndman & Fan 1996).
    """
    _, codes = np.unique(patients, return_inverse=True)
    order = np.argsort(values, kind="stable")
    weights = (1 / np.bincount(codes)[codes])[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    return float(np.interp(share, below, values[order]))


# --- Stages and rules

Rows = npt.NDArray[np.int64]
Stages = dict[str, Rows]
Seed = int | tuple[int, ...]

STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Rows ``int64 (N,)`` of the images of each stage, ascending."""

    train: Rows
    val: Rows
    test: Rows
    dropped: dict[str, int] = field(default_factory=dict)  # removed images by "stage: reason"
    leaky: str = ""  # description of the leak between stages; empty without a leak


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Rule that splits a table of images.

    The table has ``source_fold``, ``subject`` and ``label``; optional are ``patient`` (linked
    subjects; default: the subject), ``original`` (row of the first identical image; default: the
    row itself) and ``conflict`` (True if an identical image has the other label).
    """

    link_subjects: bool = True  # treat linked subjects as one patient
    drop_copies: bool = True  # keep one of each set of identical images, in the latest stage
    purge: bool = True  # remove patients of later stages from earlier stages

    @property
    def leaky(self) -> str:
        """Description of a possible leak between stages; empty without a leak."""
        if not self.purge:
            return "a patient can be in two stages: split.purge is off"
        if not self.link_subjects:
            return "linked subjects can be in two stages: split.link_subjects is off"
        return ""

    def check(self) -> None:  # noqa: B027, optional for subclasses
        """Raise DataError for settings that no data can satisfy."""

    @abstractmethod
    def assign(self, table: pd.DataFrame) -> tuple[Stages, tuple[float, Seed] | None]:
        """Assign rows to stages.

        Without ``val``, the second value is the share of the training images for it, by whole
        patients, and the seed of their choice.
        """

    def __call__(self, table: pd.DataFrame) -> Split:
        """Split a table.

        Raises:
            DataError: a source fold is missing or in two stages, a share cannot be held out, or a
                stage lacks a class.
        """
        self.check()
        linked = "patient" in table and self.link_subjects
        table = table.assign(patient=table["patient"] if linked else table["subject"])
        stages, hold_out = self.assign(table)
        dropped: dict[str, int] = {}

        def drop(stage: str, unwanted: "pd.Series[bool]", reason: str) -> None:
            if unwanted.any():
                dropped[f"{stage}: {reason}"] = int(unwanted.sum())
            stages[stage] = stages[stage][~unwanted.to_numpy()]

        assigned = [stage for stage in STAGES if stage in stages]
        if "conflict" in table:
            for stage in assigned:
                conflict = table["conflict"].iloc[stages[stage]]
                drop(stage, conflict, "identical image with the other label")
        if self.drop_copies and "original" in table:
            seen: set[int] = set()
            for stage in reversed(assigned):
                original = table["original"].iloc[stages[stage]]
                drop(stage, original.duplicated() | original.isin(seen), "copy of another image")
                seen.update(original)
        if self.purge:
            for later, earlier in (("test", "val"), ("test", "train"), ("val", "train")):
                if later in stages and earlier in stages:
                    own, others = (table["patient"].iloc[stages[s]] for s in (earlier, later))
                    drop(earlier, own.isin(others), f"same patient in {later}")
        if hold_out is not None:
            stages["train"], stages["val"] = _hold_out(table, stages["train"], *hold_out)
        for stage in STAGES:
            images = table["label"].iloc[stages[stage]]
            if images.empty:
                raise DataError(f"split.{stage}: no images; choose a source fold with images")
            for label in Label:
                if label not in set(images):
                    raise DataError(
                        f"split.{stage}: no {label.folder} images among {len(images)}; choose "
                        "source folds with both classes"
                    )
        return Split(**stages, dropped=dropped, leaky=self.leaky)


# --- Choice of the patients to hold out for validation

_DRAWS = 4000
_NEAREST = 50
"""Number of subsets of patients to compare, those nearest to the requested share of images. With a
fixed maximum deviation, few and unequal patients would give the same subsets for all seeds."""
_FARTHEST = 0.3
"""Maximum relative deviation from the requested share, if any subset satisfies it."""
_GOOD = 0.7
"""Share of the best score from which subsets count as equally good."""


def _hold_out(table: pd.DataFrame, rows: Rows, share: float, seed: Seed) -> tuple[Rows, Rows]:
    """Divide rows into remaining rows and those of patients held out, ``share`` of each class."""
    generator = np.random.default_rng(seed)
    chosen = table.iloc[rows]
    of_class = [
        (label, chosen.loc[chosen["label"] == label, "patient"].value_counts().sort_index())
        for label in Label
    ]
    held: set[str] = set()
    aim = share
    for label, counts in sorted(of_class, key=lambda item: len(item[1])):
        if len(counts) < 2:
            raise DataError(
                f"split.val={share}: {len(counts)} {label.folder} patient(s) in split.train, but "
                "at least 2 are needed to hold one out; choose more source folds"
            )
        subset = _informative_subset(counts, share, aim, generator)
        # The second class, with more patients, aims at the share of the first: equal priors.
        aim = counts[list(subset)].sum() / counts.sum()
        held |= subset
    is_held = chosen["patient"].isin(held).to_numpy()
    return rows[~is_held], rows[is_held]


def _informative_subset(
    counts: "pd.Series[int]", share: float, aim: float, generator: np.random.Generator
) -> set[str]:
    """Draw patients of a class, by their numbers of images, with a high effective number.

    Random subsets with a share of images near the aim are scored by their effective number of
    patients times the number of patients that remain for training. One of those with a good score
    is drawn, so that different seeds validate on different patients.
    """
    images = counts.to_numpy(np.float64)
    chance = generator.uniform(0, 2 * share, (_DRAWS, 1))
    drawn = generator.random((_DRAWS, len(images))) < chance
    number = drawn.sum(axis=1)
    drawn = np.unique(drawn[(number > 0) & (number < len(images))], axis=0)
    held = drawn @ images / images.sum()
    miss = np.abs(held - share)
    allowed = miss <= max(_FARTHEST * share, miss.min())
    drawn, held = drawn[allowed], held[allowed]
    near = drawn[np.argsort(np.abs(held - aim), kind="stable")[:_NEAREST]]
    effective = (near @ images) ** 2 / (near @ images**2)
    score = effective * (~near).sum(axis=1)
    good = near[score >= _GOOD * score.max()]
    return set(counts.index[good[generator.integers(len(good))]])

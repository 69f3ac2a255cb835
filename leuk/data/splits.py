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
    """Effective number of patients, with the images per patient as weights.

    A patient with 789 of 825 images dominates any average over images, which the number of patients
    hides (effective sample size: Kish, *Survey Sampling*, 1965, section 8.2).

    Args:
        patients: patient of each image, ``(N,)``.

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
    """Quantile of image values with equal total weight per patient.

    With equal weights per image, the patient with the most images would determine it.

    Args:
        values: ``(N,)``, value of each image; at least one.
        patients: ``(N,)``, patient of each image.
        share: share of the distribution below the quantile, in [0, 1].

    Returns:
        The quantile with weight 1 / (images of the patient) per image. The position of a value is
        the weight of smaller values plus half its own; positions between are interpolated (Hazen's
        rule; definition 5 of Hyndman & Fan 1996).
    """
    _, codes = np.unique(patients, return_inverse=True)
    order = np.argsort(values, kind="stable")
    weights = (1 / np.bincount(codes)[codes])[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    return float(np.interp(share, below, values[order]))


# --- Stages and rules

Rows = npt.NDArray[np.int64]
Stages = dict[str, Rows]

STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of the images of each stage, ascending.

    Attributes:
        train: ``int64 (N,)``, rows of the training images.
        val: ``int64 (N,)``, rows of the validation images.
        test: ``int64 (N,)``, rows of the test images.
        dropped: number of removed images by ``stage: reason``.
        leaky: description of the leak between stages; empty without a leak.
    """

    train: Rows
    val: Rows
    test: Rows
    dropped: dict[str, int] = field(default_factory=dict)
    leaky: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Rule that splits a table of images.

    The table has ``source_fold``, ``subject`` and ``label``; optional are ``patient`` (linked
    subjects; default: the subject), ``original`` (row of the first identical image; default: the
    row itself) and ``conflict`` (True if an identical image has the other label).

    Attributes:
        link_subjects: treat linked subjects as one patient.
        drop_copies: keep one of each set of identical images, in the latest stage.
        purge: remove patients of later stages from earlier stages.
    """

    link_subjects: bool = True
    drop_copies: bool = True
    purge: bool = True

    @property
    def leaky(self) -> str:
        """Description of a possible leak between stages; empty without a leak."""
        if not self.purge:
            return "a patient can be in two stages: split.purge is off"
        if not self.link_subjects:
            return "linked subjects can be in two stages: split.link_subjects is off"
        return ""

    def check(self) -> None:  # noqa: B027, optional for subclasses
        """Refuse settings that no data can satisfy.

        Raises:
            DataError: a value is out of range.
        """

    @abstractmethod
    def assign(self, table: pd.DataFrame) -> Stages:
        """Assign rows to stages; :meth:`complete` can add ``val`` later."""

    def complete(self, table: pd.DataFrame, stages: Stages) -> Stages:
        """Add stages that are chosen after copies and repeated patients are removed."""
        return stages

    def __call__(self, table: pd.DataFrame) -> Split:
        """Split a table.

        Raises:
            DataError: a source fold is missing or in two stages, a share cannot be held out, or a
                stage lacks a class.
        """
        self.check()
        linked = "patient" in table and self.link_subjects
        table = table.assign(patient=table["patient"] if linked else table["subject"])
        stages = self.assign(table)
        dropped: dict[str, int] = {}

        def keep(stage: str, kept: npt.NDArray[np.bool_], reason: str) -> None:
            if not kept.all():
                dropped[f"{stage}: {reason}"] = int((~kept).sum())
            stages[stage] = stages[stage][kept]

        latest_first = [stage for stage in reversed(STAGES) if stage in stages]
        if "conflict" in table:
            conflict = table["conflict"].to_numpy()
            for stage in reversed(latest_first):
                keep(stage, ~conflict[stages[stage]], "identical image with the other label")
        if self.drop_copies and "original" in table:
            original = table["original"].to_numpy()
            seen: set[int] = set()
            for stage in latest_first:
                first = pd.Series(original[stages[stage]])
                keep(
                    stage,
                    ~(first.duplicated() | first.isin(seen)).to_numpy(),
                    "copy of another image",
                )
                seen.update(original[stages[stage]].tolist())
        if self.purge:
            patients = table["patient"].to_numpy()
            for later, earlier in (("test", "val"), ("test", "train"), ("val", "train")):
                if later in stages and earlier in stages:
                    repeated = set(patients[stages[later]])
                    kept = ~pd.Series(patients[stages[earlier]]).isin(repeated).to_numpy()
                    keep(earlier, kept, f"same patient in {later}")
        stages = self.complete(table, stages)
        for stage in STAGES:
            _require_all_classes(table, stages[stage], stage)
        return Split(**stages, dropped=dropped, leaky=self.leaky)


def _require_all_classes(table: pd.DataFrame, rows: Rows, stage: str) -> None:
    if not len(rows):
        raise DataError(f"split.{stage}: no images; choose a source fold with images")
    labels = set(table["label"].to_numpy()[rows])
    for label in Label:
        if label not in labels:
            raise DataError(
                f"split.{stage}: no {label.folder} images among {len(rows)}; choose source folds "
                "with both classes"
            )

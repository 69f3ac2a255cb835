"""Splits: which cells train, which validate, which test.

A rule (:mod:`leuk.data.rules`) proposes; then who is in a later stage too leaves the earlier one,
so that no person is in two. Rules that cannot promise this say why they are leaky.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.data.labels import Label
from leuk.errors import DataError

Rows = npt.NDArray[np.int64]
Stages = dict[str, Rows]

STAGES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of a table of cells, one array a stage, ascending.

    Attributes:
        dropped: why cells left, and how many did.
        leaky: what leaks between the stages; empty if nothing does.
    """

    train: Rows
    val: Rows
    test: Rows
    dropped: dict[str, int] = field(default_factory=dict)
    leaky: str = ""


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """From a table of cells to a split.

    The table has ``part``, ``subject`` and ``label``; ``group`` (linked subjects) is the subject
    where it is missing, and ``original`` (the row of the first identical image) the row itself.

    Attributes:
        link_subjects: treat subjects that share cells as one.
        drop_copies: keep one of each set of identical images, in the latest stage that has one.
        purge: take out of a stage whoever is in a later one too.
    """

    link_subjects: bool = True
    drop_copies: bool = True
    purge: bool = True

    @property
    def leaky(self) -> str:
        """What may leak between the stages; empty if nothing can."""
        if not self.purge:
            return "a person may be in two stages: split.purge is off"
        if not self.link_subjects:
            return "linked subjects may be in two stages: split.link_subjects is off"
        return ""

    def check(self) -> None:  # noqa: B027, most rules can be satisfied by some data
        """Refuse what no data could satisfy.

        Raises:
            DataError: naming the key.
        """

    @abstractmethod
    def assign(self, cells: pd.DataFrame) -> Stages:
        """Propose rows of each stage; ``val`` may be left to :meth:`complete`."""

    def complete(self, cells: pd.DataFrame, stages: Stages) -> Stages:
        """Add what is chosen among the cells that are left."""
        return stages

    def __call__(self, cells: pd.DataFrame) -> Split:
        """Split a table.

        Raises:
            DataError: a part that is not there, a part in two stages, a share that cannot be held
                out, or a stage that lacks a class.
        """
        self.check()
        known = "patient" in cells and self.link_subjects
        cells = cells.assign(patient=cells["patient"] if known else cells["subject"])
        stages = self.assign(cells)
        dropped: dict[str, int] = {}
        if "conflict" in cells:
            for stage in list(stages):
                agreed = ~cells["conflict"].to_numpy()[stages[stage]]
                _keep(stages, stage, agreed, dropped, "identical image with the other label")
        if self.drop_copies and "original" in cells:
            self._drop_copies(cells["original"].to_numpy(), stages, dropped)
        if self.purge:
            self._purge(cells["patient"].to_numpy(), stages, dropped)
        stages = self.complete(cells, stages)
        for stage in STAGES:
            _require_both_classes(cells, stages[stage], stage)
        return Split(**stages, dropped=dropped, leaky=self.leaky)

    def _drop_copies(self, original: Rows, stages: Stages, dropped: dict[str, int]) -> None:
        seen: set[int] = set()
        for stage in (stage for stage in reversed(STAGES) if stage in stages):
            first = pd.Series(original[stages[stage]])
            keep = ~(first.duplicated() | first.isin(seen)).to_numpy()
            _keep(stages, stage, keep, dropped, "copy of another image")
            seen.update(original[stages[stage]].tolist())

    def _purge(
        self, group: npt.NDArray[np.object_], stages: Stages, dropped: dict[str, int]
    ) -> None:
        for later, earlier in (("test", "val"), ("test", "train"), ("val", "train")):
            if later in stages and earlier in stages:
                there = set(group[stages[later]])
                keep = ~pd.Series(group[stages[earlier]]).isin(there).to_numpy()
                _keep(stages, earlier, keep, dropped, f"same person in {later}")


def _keep(
    stages: Stages, stage: str, keep: npt.NDArray[np.bool_], dropped: dict[str, int], why: str
) -> None:
    if not keep.all():
        dropped[f"{stage}: {why}"] = int((~keep).sum())
    stages[stage] = stages[stage][keep]


def _require_both_classes(cells: pd.DataFrame, rows: Rows, stage: str) -> None:
    if not len(rows):
        raise DataError(f"split.{stage}: no cells; name a part that has some")
    labels = set(cells["label"].to_numpy()[rows])
    for label in Label:
        if label not in labels:
            raise DataError(
                f"split.{stage}: no {label.folder} cells among its {len(rows)}; "
                "choose parts that hold both classes"
            )

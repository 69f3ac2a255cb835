"""Splits: which cells train, which validate, which test. Subjects never straddle two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from leuk.data.cnmc import Label
from leuk.errors import DataError

Rows = npt.NDArray[np.int64]

STAGES = ("train", "val", "test")
_CANDIDATES = 2000


@dataclass(frozen=True)
class Split:
    """Row numbers of a table of cells, one array a stage; no row is in two of them."""

    train: Rows
    val: Rows
    test: Rows


@dataclass(frozen=True)
class Folds:
    """Stages by the names of C-NMC's parts; validation may be a share of the training subjects.

    Attributes:
        train: names of parts.
        val: names of parts, or the share of the training parts' cells, between 0 and 1, to be held
            out as whole subjects.
        test: names of parts.
        seed: decides which subjects are held out; independent of the cell's seed, so that seeds
            are compared on the same split.
    """

    train: Sequence[str]
    val: Sequence[str] | float
    test: Sequence[str]
    seed: int = 0

    def __call__(self, cells: pd.DataFrame) -> Split:
        """Split a table with ``part``, ``subject`` and ``label``.

        Raises:
            DataError: a part that is not there, a part in two stages, a share that cannot be
                held out, or a stage that lacks a class.
        """
        named = {"train": list(self.train), "test": list(self.test)}
        if not isinstance(self.val, float | int):
            named["val"] = list(self.val)
        rows = {stage: _rows_of(cells, stage, parts) for stage, parts in named.items()}
        _refuse_overlap(named)
        if isinstance(self.val, float | int):
            share = float(self.val)
            rows["train"], rows["val"] = _hold_out(cells, rows["train"], share, self.seed)
        for stage in STAGES:
            _require_both_classes(cells, rows[stage], stage)
        return Split(**rows)


def _rows_of(cells: pd.DataFrame, stage: str, parts: Sequence[str]) -> Rows:
    there = sorted(cells["part"].unique())
    for part in parts:
        if part not in there:
            raise DataError(
                f"split.{stage}: no part {part} in the data; there are {', '.join(there)}"
            )
    return np.flatnonzero(cells["part"].isin(parts))


def _refuse_overlap(named: Mapping[str, Sequence[str]]) -> None:
    stage_of: dict[str, str] = {}
    for stage, parts in named.items():
        for part in parts:
            if part in stage_of:
                raise DataError(f"split: part {part} is in both {stage_of[part]} and {stage}")
            stage_of[part] = stage


def _hold_out(cells: pd.DataFrame, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Take whole subjects of each class until ``share`` of its cells is held out.

    Of many random subsets of subjects the one nearest to the share is taken, and among the
    near ones that with most subjects, since one subject is no sample of a class.
    """
    if not 0 < share < 1:
        raise DataError(f"split.val={share}: a share must lie between 0 and 1")
    generator = np.random.default_rng(seed)
    chosen = cells.iloc[rows]
    held: set[str] = set()
    for label in Label:
        counts = chosen.loc[chosen["label"] == label, "subject"].value_counts().sort_index()
        if len(counts) < 2:
            raise DataError(
                f"split.val={share}: {len(counts)} {label.folder} subject(s) in split.train; "
                "at least 2 are needed to hold one out"
            )
        held |= _nearest_subset(counts, share, generator)
    is_held = chosen["subject"].isin(held).to_numpy()
    return rows[~is_held], rows[is_held]


def _nearest_subset(
    counts: "pd.Series[int]", share: float, generator: np.random.Generator
) -> set[str]:
    sizes = counts.to_numpy()
    drawn = generator.random((_CANDIDATES, len(sizes))) < share
    number = drawn.sum(axis=1)
    drawn = drawn[(number > 0) & (number < len(sizes))]
    if not len(drawn):
        drawn = np.eye(len(sizes), dtype=bool)
    miss = np.abs(drawn @ sizes / sizes.sum() - share)
    near = drawn[miss <= max(0.01, miss.min())]
    best = near[np.argmax(near.sum(axis=1))]
    return set(counts.index[best])


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

"""The rules a split may follow; each is an option of ``conf/split``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

from leuk.config.ranges import CountOrZero
from leuk.data.labels import Label
from leuk.data.layouts import MERGED, PRELIM
from leuk.data.splits import Rows, Rule, Stages
from leuk.errors import DataError

_DRAWS = 2000
_ATTEMPTS = 200

_FEWEST = 3
"""Groups of a class that each fold should have."""


@dataclass(frozen=True)
class Folds(Rule):
    """Stages by the names of C-NMC's parts; validation may be a share of the training subjects.

    What is not given follows from the parts that are there: with the preliminary set, train on
    fold_0 and fold_1, validate on fold_2, test on prelim; without it, train on fold_0, hold out a
    fifth of its subjects, test on fold_1.

    Attributes:
        train: names of parts.
        val: names of parts, or the share of the training parts' cells, between 0 and 1, to be held
            out as whole groups of subjects.
        test: names of parts.
        seed: decides which subjects are held out; independent of the cell's seed, so that seeds
            are compared on the same split.
    """

    train: Sequence[str] | None = None
    val: Sequence[str] | float | None = None
    test: Sequence[str] | None = None
    seed: CountOrZero = 0

    def check(self) -> None:
        if isinstance(self.val, float | int) and not 0 < self.val < 1:
            raise DataError(f"split.val={self.val}: a share must lie between 0 and 1")

    def assign(self, cells: pd.DataFrame) -> Stages:
        named = {
            stage: list(parts)
            for stage, parts in self._resolved(cells).items()
            if not isinstance(parts, float | int)
        }
        stages = {stage: rows_of(cells, stage, parts) for stage, parts in named.items()}
        _refuse_overlap(named)
        return stages

    def complete(self, cells: pd.DataFrame, stages: Stages) -> Stages:
        share = self._resolved(cells)["val"]
        if not isinstance(share, float | int):
            return stages
        train, val = _hold_out(cells, stages["train"], float(share), self.seed)
        return {**stages, "train": train, "val": val}

    def _resolved(self, cells: pd.DataFrame) -> dict[str, Sequence[str] | float]:
        """Parts of each stage, or the share of the validation part."""
        parts: dict[str, Sequence[str] | float] = {
            "train": ["fold_0"],
            "val": 0.2,
            "test": ["fold_1"],
        }
        if {PRELIM, "fold_0", "fold_1", "fold_2"} <= set(cells["part"]):
            parts = {"train": ["fold_0", "fold_1"], "val": ["fold_2"], "test": [PRELIM]}
        given = {"train": self.train, "val": self.val, "test": self.test}
        return parts | {stage: value for stage, value in given.items() if value is not None}


@dataclass(frozen=True)
class SubjectKFold(Rule):
    """Stratified folds of whole groups of subjects: one tests, the next validates, others train.

    Attributes:
        n_folds: how many.
        fold: which of them tests.
        parts: names of the parts to split; all if None.
        seed: decides the folds.
    """

    n_folds: int = 5
    fold: CountOrZero = 0
    parts: Sequence[str] | None = None
    seed: CountOrZero = 0

    def check(self) -> None:
        if self.n_folds < 3 or self.fold >= self.n_folds:
            raise DataError(
                f"split.fold={self.fold}, split.n_folds={self.n_folds}: there must be 3 folds or "
                "more, numbered from 0"
            )

    def assign(self, cells: pd.DataFrame) -> Stages:
        rows = rows_of(cells, "parts", self.parts)
        labels = cells["label"].to_numpy()[rows]
        groups = cells["group"].to_numpy()[rows]
        smallest = min(len(set(groups[labels == label])) for label in Label)
        if smallest < self.n_folds:
            raise DataError(
                f"split.n_folds={self.n_folds}: a class has {smallest} subject(s); choose fewer "
                "folds or more parts"
            )
        number = self._number_folds(labels, groups)
        test, val = self.fold, (self.fold + 1) % self.n_folds
        chosen = {"test": number == test, "val": number == val}
        chosen["train"] = ~(chosen["test"] | chosen["val"])
        return {stage: rows[mask] for stage, mask in chosen.items()}

    def _number_folds(self, labels: Rows, groups: npt.NDArray[np.object_]) -> Rows:
        """The fold of each cell: of several attempts, the one with the most even class shares.

        scikit-learn's StratifiedGroupKFold leaves shares 6 points apart on sets like these.
        """
        names, who = np.unique(groups.astype(str), return_inverse=True)
        cells = np.stack([np.bincount(who, labels == label) for label in Label], axis=1)
        generator = np.random.default_rng(self.seed)
        best, least = np.zeros(len(names), np.int64), np.inf
        for _ in range(_ATTEMPTS):
            folds = self._accompanied(self._dealt(cells, generator), cells)
            held = np.stack([np.bincount(folds, column, self.n_folds) for column in cells.T], 1)
            uneven = float((np.ptp(held, axis=0) / cells.sum(axis=0)).sum())
            if uneven < least:
                best, least = folds, uneven
        return best[who]

    def _dealt(
        self, cells: npt.NDArray[Any], generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Deal groups out, roughly the largest first, each to the fold with least of its class."""
        folds = np.zeros(len(cells), np.int64)
        load = np.zeros((self.n_folds, len(Label)))
        order = np.argsort(-cells.sum(axis=1) * generator.uniform(0.7, 1.3, len(cells)))
        for group in order:
            least = load[:, cells[group].argmax()] + generator.uniform(0, 1e-3, self.n_folds)
            folds[group] = least.argmin()
            load[folds[group]] += cells[group]
        return folds

    def _accompanied(
        self, folds: npt.NDArray[np.int64], cells: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        """Move the smallest groups to folds that have fewer than three of a class, where it can be.

        A third of C-NMC's healthy cells of folds 0 and 1 are of one person, who would be alone:
        nothing could be said of how persons differ from a fold with one.
        """
        for column in cells.T:
            own = np.flatnonzero(column)
            fewest = min(_FEWEST, len(own) // self.n_folds)
            while (held := np.bincount(folds[own], minlength=self.n_folds)).min() < fewest:
                donors = own[held[folds[own]] > fewest]
                folds[donors[column[donors].argmin()]] = held.argmin()
        return folds


@dataclass(frozen=True)
class RandomImages(Rule):
    """Images at random, whoever they are of: the leaky split of many published figures.

    Attributes:
        val: share of the cells.
        test: share of the cells.
        parts: names of the parts to split; all if None.
        seed: decides the draw.
    """

    val: float = 0.1
    test: float = 0.2
    parts: Sequence[str] | None = None
    seed: CountOrZero = 0
    purge: bool = False
    drop_copies: bool = False

    @property
    def leaky(self) -> str:
        return "images are split at random: the same persons are in all stages"

    def check(self) -> None:
        if not (self.val > 0 and self.test > 0 and self.val + self.test < 1):
            raise DataError(
                f"split.val={self.val}, split.test={self.test}: shares above 0 that leave some"
            )

    def assign(self, cells: pd.DataFrame) -> Stages:
        rows = rows_of(cells, "parts", self.parts)
        labels = cells["label"].to_numpy()
        share = self.val / (1 - self.test)
        try:
            rest, test = train_test_split(
                rows, test_size=self.test, stratify=labels[rows], random_state=self.seed
            )
            train, val = train_test_split(
                rest, test_size=share, stratify=labels[rest], random_state=self.seed
            )
        except ValueError as error:
            raise DataError(
                f"split.val={self.val}, split.test={self.test}: too small for {len(rows)} cells "
                f"({error})"
            ) from error
        return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


@dataclass(frozen=True)
class Thesis(Rule):
    """The thesis's protocol: one part for early stopping and for the tables.

    Attributes:
        test: names of the parts that validate and test; the preliminary set if None, or the last
            fold where it is missing.
        train: names of parts; all others if None.
    """

    train: Sequence[str] | None = None
    test: Sequence[str] | None = None
    purge: bool = False
    drop_copies: bool = False

    @property
    def leaky(self) -> str:
        return "the test part drives early stopping and thresholds"

    def assign(self, cells: pd.DataFrame) -> Stages:
        there = sorted(cells["part"].unique())
        test = list(self.test or [PRELIM if PRELIM in there else there[-1]])
        train = list(self.train or [part for part in there if part not in test])
        _refuse_overlap({"train": train, "test": test})
        tested = rows_of(cells, "test", test)
        return {"train": rows_of(cells, "train", train), "val": tested, "test": tested.copy()}


def rows_of(cells: pd.DataFrame, key: str, parts: Sequence[str] | None) -> Rows:
    """Rows of the named parts, all if None; ``key`` is the key of ``split`` that named them."""
    if parts is None:
        return np.arange(len(cells))
    there = sorted(cells["part"].unique())
    for part in parts:
        if part not in there:
            hint = "; folds are lost there: split=subject_kfold" if MERGED in there else ""
            raise DataError(
                f"split.{key}: no part {part} in the data; there are {', '.join(there)}{hint}"
            )
    return np.flatnonzero(cells["part"].isin(list(parts)))


def _refuse_overlap(named: Mapping[str, Sequence[str]]) -> None:
    stage_of: dict[str, str] = {}
    for stage, parts in named.items():
        for part in parts:
            if part in stage_of:
                raise DataError(f"split: part {part} is in both {stage_of[part]} and {stage}")
            stage_of[part] = stage


def _hold_out(cells: pd.DataFrame, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Take whole groups of subjects of each class until ``share`` of its cells is held out.

    Of many random subsets of groups the one nearest to the share is taken, and among the near ones
    that with most groups, since one person is no sample of a class.
    """
    generator = np.random.default_rng(seed)
    chosen = cells.iloc[rows]
    held: set[str] = set()
    for label in Label:
        counts = chosen.loc[chosen["label"] == label, "group"].value_counts().sort_index()
        if len(counts) < 2:
            raise DataError(
                f"split.val={share}: {len(counts)} {label.folder} subject(s) in split.train; "
                "at least 2 are needed to hold one out"
            )
        held |= _nearest_subset(counts, share, generator)
    is_held = chosen["group"].isin(held).to_numpy()
    return rows[~is_held], rows[is_held]


def _nearest_subset(
    counts: "pd.Series[int]", share: float, generator: np.random.Generator
) -> set[str]:
    sizes = counts.to_numpy()
    drawn = generator.random((_DRAWS, len(sizes))) < share
    number = drawn.sum(axis=1)
    drawn = drawn[(number > 0) & (number < len(sizes))]
    if not len(drawn):
        drawn = np.eye(len(sizes), dtype=bool)
    miss = np.abs(drawn @ sizes / sizes.sum() - share)
    near = drawn[miss <= max(0.01, miss.min())]
    best = near[np.argmax(near.sum(axis=1))]
    return set(counts.index[best])

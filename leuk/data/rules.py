"""The rules a split may follow; each is an option of ``conf/split``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

from leuk.config.ranges import CountOrZero
from leuk.data.labels import Label
from leuk.data.layouts import MERGED, PRELIM
from leuk.data.splits import Rows, Rule, Stages
from leuk.errors import DataError

_DRAWS = 4000
_NEAREST = 50
"""Subsets of patients that are compared: those whose images come nearest to the share to hold out.
Where patients are few and unequal, a fixed deviation would leave the same few under every seed."""
_FARTHEST = 0.3
"""Largest relative deviation from that share, where a subset lies within it."""
_GOOD = 0.7
"""Subsets that reach this share of the best score are equally good."""

_STARTS = 20
_EVEN = 0.2
"""Relative deviation from an even share of a class's images that a fold may have."""
_PRIOR = 0.05
"""Difference between a fold's even shares of the two classes that leaves its prior as it is."""
_FEWEST = 3
"""Patients of a class that each fold should have."""


@dataclass(frozen=True)
class Folds(Rule):
    """Stages by the names of C-NMC's parts; validation may be a share of the training subjects.

    What is not given follows from the parts that are there: with the preliminary set, train on
    fold_0 and fold_1, validate on fold_2, test on prelim; without it, train on fold_0, hold out
    patients with about a fifth of its images, test on fold_1.

    Attributes:
        train: names of parts.
        val: names of parts, or the share of the training parts' images, between 0 and 1, to be held
            out as whole patients.
        test: names of parts.
        seed: decides which patients are held out; independent of the run's seed, so that seeds
            are compared on the same split.
    """

    train: Sequence[str] | None = None
    val: Sequence[str] | float | None = None
    test: Sequence[str] | None = None
    seed: CountOrZero = 0

    def check(self) -> None:
        if isinstance(self.val, float | int):
            _require_share(self.val)

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
        if {PRELIM, "fold_0", "fold_1", "fold_2"} <= set(cells["source_fold"]):
            parts = {"train": ["fold_0", "fold_1"], "val": ["fold_2"], "test": [PRELIM]}
        given = {"train": self.train, "val": self.val, "test": self.test}
        return parts | {stage: value for stage, value in given.items() if value is not None}


@dataclass(frozen=True)
class SubjectKFold(Rule):
    """Stratified folds of whole patients: one tests; of the others a share validates.

    Attributes:
        n_folds: how many.
        fold: which of them tests.
        val: share of the images outside the test fold, between 0 and 1, to be held out as whole
            patients. A whole fold for validation would leave a third of the images to train on
            where there are three.
        parts: names of the parts to split; all if None.
        seed: decides the folds and the patients of validation.
    """

    n_folds: int = 5
    fold: CountOrZero = 0
    val: float = 0.2
    parts: Sequence[str] | None = None
    seed: CountOrZero = 0

    def check(self) -> None:
        if self.n_folds < 3 or self.fold >= self.n_folds:
            raise DataError(
                f"split.fold={self.fold}, split.n_folds={self.n_folds}: there must be 3 folds or "
                "more, numbered from 0"
            )
        _require_share(self.val)

    def assign(self, cells: pd.DataFrame) -> Stages:
        rows = rows_of(cells, "parts", self.parts)
        labels = cells["label"].to_numpy()[rows]
        groups = cells["patient"].to_numpy()[rows]
        smallest = min(len(set(groups[labels == label])) for label in Label)
        if smallest < self.n_folds:
            raise DataError(
                f"split.n_folds={self.n_folds}: a class has {smallest} subject(s); choose fewer "
                "folds or more parts"
            )
        is_test = self._number_folds(labels, groups) == self.fold
        return {"train": rows[~is_test], "test": rows[is_test]}

    def complete(self, cells: pd.DataFrame, stages: Stages) -> Stages:
        train, val = _hold_out(cells, stages["train"], self.val, (self.seed, self.fold))
        return {**stages, "train": train, "val": val}

    def _number_folds(self, labels: Rows, groups: npt.NDArray[np.object_]) -> Rows:
        """The fold of each image, by local search from random starts: the best found.

        scikit-learn's StratifiedGroupKFold leaves shares 6 points apart on sets like these.
        """
        names, who = np.unique(groups.astype(str), return_inverse=True)
        images = np.stack([np.bincount(who, labels == label) for label in Label], 1).astype(float)
        generator = np.random.default_rng(self.seed)
        best, most = np.zeros(len(names), np.int64), -np.inf
        for _ in range(_STARTS):
            folds, score = self._improved(generator.integers(self.n_folds, size=len(names)), images)
            if score > most + 1e-9:
                best, most = folds, score
        return best[who]

    def _improved(self, folds: Rows, images: npt.NDArray[np.float64]) -> tuple[Rows, float]:
        """Move one patient at a time to another fold for as long as the score rises.

        Args:
            folds: ``(G,)`` of each patient.
            images: ``(G, 2)`` of each patient and class.
        """
        own = np.stack([images, images**2, images > 0])  # (3, G, 2)
        one_hot = np.eye(self.n_folds)
        score = -np.inf
        while True:
            held = np.einsum("gf,mgk->mfk", one_hot[folds], own)
            change = one_hot[None, :] - one_hot[folds][:, None]  # (G, to, F)
            moved = held[:, None, None] + np.einsum("gtf,mgk->mgtfk", change, own)
            scores = self._score(*moved)
            group, to = np.unravel_index(scores.argmax(), scores.shape)
            if scores[group, to] <= score + 1e-9:
                return folds, score
            score = float(scores[group, to])
            folds = folds.copy()
            folds[group] = to

    def _score(
        self,
        images: npt.NDArray[np.float64],
        squares: npt.NDArray[np.float64],
        patients: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Score folds, ``(...)``, by sums over their patients, each ``(..., F, 2)``.

        First, each fold has three patients of each class where there are enough; second, its
        images of each class are an even share within a fifth, and its prior that of the whole;
        third, the fold with the fewest effective patients has as many as possible, then the next.
        A third of C-NMC's healthy images of folds 0 and 1 are of one patient, who would be all but
        alone in a fold if images alone counted.
        """
        fewest = np.minimum(_FEWEST, patients.sum(axis=-2, keepdims=True) // self.n_folds)
        missing = np.maximum(0, fewest - patients).sum(axis=(-2, -1))
        share = self.n_folds * images / images.sum(axis=-2, keepdims=True)
        uneven = np.maximum(0, np.abs(share - 1) - _EVEN).sum(axis=(-2, -1))
        shifted = np.maximum(0, np.abs(share[..., 0] - share[..., 1]) - _PRIOR).sum(axis=-1)
        effective = images**2 / np.maximum(squares, 1)
        whole = images.sum(axis=-2, keepdims=True) ** 2 / squares.sum(axis=-2, keepdims=True)
        ordered = np.sort(self.n_folds * effective / whole, axis=-2)
        informative = np.einsum("...fk,f->...", ordered, 0.1 ** np.arange(self.n_folds))
        score: npt.NDArray[np.float64] = informative - 100 * missing - 10 * uneven - 5 * shifted
        return score


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
        there = sorted(cells["source_fold"].unique())
        test = list(self.test or [PRELIM if PRELIM in there else there[-1]])
        train = list(self.train or [part for part in there if part not in test])
        _refuse_overlap({"train": train, "test": test})
        tested = rows_of(cells, "test", test)
        return {"train": rows_of(cells, "train", train), "val": tested, "test": tested.copy()}


def rows_of(cells: pd.DataFrame, key: str, parts: Sequence[str] | None) -> Rows:
    """Rows of the named parts, all if None; ``key`` is the key of ``split`` that named them."""
    if parts is None:
        return np.arange(len(cells))
    there = sorted(cells["source_fold"].unique())
    for part in parts:
        if part not in there:
            hint = "; folds are lost there: split=subject_kfold" if MERGED in there else ""
            raise DataError(
                f"split.{key}: no part {part} in the data; there are {', '.join(there)}{hint}"
            )
    return np.flatnonzero(cells["source_fold"].isin(list(parts)))


def _refuse_overlap(named: Mapping[str, Sequence[str]]) -> None:
    stage_of: dict[str, str] = {}
    for stage, parts in named.items():
        for part in parts:
            if part in stage_of:
                raise DataError(f"split: part {part} is in both {stage_of[part]} and {stage}")
            stage_of[part] = stage


def _require_share(val: float) -> None:
    if not 0 < val < 1:
        raise DataError(f"split.val={val}: a share must lie between 0 and 1")


def _hold_out(
    cells: pd.DataFrame, rows: Rows, share: float, seed: int | Sequence[int]
) -> tuple[Rows, Rows]:
    """Hold out whole patients of each class with about ``share`` of its images.

    Returns:
        Rows that stay and rows that are held out.

    Raises:
        DataError: a class with fewer than two patients.
    """
    generator = np.random.default_rng(seed)
    chosen = cells.iloc[rows]
    of_class = {
        label: chosen.loc[chosen["label"] == label, "patient"].value_counts().sort_index()
        for label in Label
    }
    held: set[str] = set()
    aim = share
    for label, counts in sorted(of_class.items(), key=lambda item: len(item[1])):
        if len(counts) < 2:
            raise DataError(
                f"split.val={share}: {len(counts)} {label.folder} subject(s) in split.train; "
                "at least 2 are needed to hold one out: choose more parts"
            )
        subset = _informative_subset(counts, share, aim, generator)
        # The class of more patients follows the other, so that both stages have the same prior.
        aim = counts[list(subset)].sum() / counts.sum()
        held |= subset
    is_held = chosen["patient"].isin(held).to_numpy()
    return rows[~is_held], rows[is_held]


def _informative_subset(
    counts: "pd.Series[int]", share: float, aim: float, generator: np.random.Generator
) -> set[str]:
    """Draw one of the good subsets of the patients of a class.

    Of many random subsets those whose images come nearest to the aim are scored by their
    effective number of patients, as one patient is no sample of a class, times the number of
    patients that are left to train on; of those with a good score one is drawn, so that no patient
    has to validate under every seed.

    Args:
        counts: images of each patient.
        share: of the images, which a subset may miss by a few tenths of it.
        aim: a share within those limits.
        generator: decides the draw.
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

"""Rules of splits, the options of ``conf/split``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

from leuk.config.schema import CountOrZero
from leuk.data.labels import Label
from leuk.data.layouts import MERGED, PRELIM
from leuk.data.splits import Rows, Rule, Stages
from leuk.errors import DataError

_DRAWS = 4000
_NEAREST = 50
"""Number of subsets of patients to compare, those nearest to the requested share of images. With a
fixed maximum deviation, few and unequal patients would give the same subsets for all seeds."""
_FARTHEST = 0.3
"""Maximum relative deviation from the requested share, if any subset satisfies it."""
_GOOD = 0.7
"""Share of the best score from which subsets count as equally good."""

_STARTS = 20
_EVEN = 0.2
"""Tolerated relative deviation of a fold from an even share of a class's images."""
_PRIOR = 0.05
"""Tolerated difference between a fold's relative shares of the two classes."""
_FEWEST = 3
"""Desired minimum of patients per class and fold."""


@dataclass(frozen=True)
class Folds(Rule):
    """Stages by source folds; validation can be a share of the training patients.

    Defaults depend on the data: with the preliminary set, train on fold_0 and fold_1, validate on
    fold_2, test on prelim; without it, train on fold_0, hold out patients with about a fifth of its
    images, test on fold_1.

    Attributes:
        train: source folds.
        val: source folds, or the share of the training images, between 0 and 1, that whole patients
            are held out for.
        test: source folds.
        seed: seed of the choice of patients; independent of the run's seed, so that all seeds of a
            sweep have the same split.
    """

    train: Sequence[str] | None = None
    val: Sequence[str] | float | None = None
    test: Sequence[str] | None = None
    seed: CountOrZero = 0

    def check(self) -> None:
        if isinstance(self.val, float | int):
            _require_share(self.val)

    def assign(self, table: pd.DataFrame) -> Stages:
        named = {
            stage: list(folds)
            for stage, folds in self._resolved(table).items()
            if not isinstance(folds, float | int)
        }
        return _select_stages(table, named)

    def complete(self, table: pd.DataFrame, stages: Stages) -> Stages:
        share = self._resolved(table)["val"]
        if not isinstance(share, float | int):
            return stages
        train, val = _hold_out(table, stages["train"], float(share), self.seed)
        return {**stages, "train": train, "val": val}

    def _resolved(self, table: pd.DataFrame) -> dict[str, Sequence[str] | float]:
        """Return the source folds of each stage, or the validation share."""
        chosen: dict[str, Sequence[str] | float] = {
            "train": ["fold_0"],
            "val": 0.2,
            "test": ["fold_1"],
        }
        if {PRELIM, "fold_0", "fold_1", "fold_2"} <= set(table["source_fold"]):
            chosen = {"train": ["fold_0", "fold_1"], "val": ["fold_2"], "test": [PRELIM]}
        given = {"train": self.train, "val": self.val, "test": self.test}
        return chosen | {stage: value for stage, value in given.items() if value is not None}


@dataclass(frozen=True)
class SubjectKFold(Rule):
    """Stratified cross-validation folds of whole patients, with a validation share.

    Attributes:
        n_folds: number of folds, 3 or more.
        fold: test fold, from 0.
        val: share of the images outside the test fold, between 0 and 1, that whole patients are
            held out for. A whole fold for validation would leave only a third of the images for
            training with three folds.
        source_folds: source folds to split; all if None.
        seed: seed of the folds and of the validation patients.
    """

    n_folds: int = 5
    fold: CountOrZero = 0
    val: float = 0.2
    source_folds: Sequence[str] | None = None
    seed: CountOrZero = 0

    def check(self) -> None:
        if self.n_folds < 3 or self.fold >= self.n_folds:
            raise DataError(
                f"split.fold={self.fold}, split.n_folds={self.n_folds}: choose 3 or more folds, "
                "numbered from 0"
            )
        _require_share(self.val)

    def assign(self, table: pd.DataFrame) -> Stages:
        rows = select_rows(table, "source_folds", self.source_folds)
        labels = table["label"].to_numpy()[rows]
        patients = table["patient"].to_numpy()[rows]
        smallest = min(len(set(patients[labels == label])) for label in Label)
        if smallest < self.n_folds:
            raise DataError(
                f"split.n_folds={self.n_folds}: a class has {smallest} patient(s); choose fewer "
                "folds or more source folds (split.source_folds)"
            )
        is_test = self._number_folds(labels, patients) == self.fold
        return {"train": rows[~is_test], "test": rows[is_test]}

    def complete(self, table: pd.DataFrame, stages: Stages) -> Stages:
        train, val = _hold_out(table, stages["train"], self.val, (self.seed, self.fold))
        return {**stages, "train": train, "val": val}

    def _number_folds(self, labels: Rows, patients: npt.NDArray[np.object_]) -> Rows:
        """Assign a fold to each image, by local search from several random starts.

        With scikit-learn's StratifiedGroupKFold, class shares differ by up to 6 points on C-NMC.
        """
        names, codes = np.unique(patients.astype(str), return_inverse=True)
        images = np.stack([np.bincount(codes, labels == label) for label in Label], 1).astype(float)
        generator = np.random.default_rng(self.seed)
        best, best_score = np.zeros(len(names), np.int64), -np.inf
        for _ in range(_STARTS):
            folds, score = self._improved(generator.integers(self.n_folds, size=len(names)), images)
            if score > best_score + 1e-9:
                best, best_score = folds, score
        return best[codes]

    def _improved(self, folds: Rows, images: npt.NDArray[np.float64]) -> tuple[Rows, float]:
        """Move single patients to other folds until the score no longer increases.

        Args:
            folds: ``(P,)``, fold of each patient.
            images: ``(P, 2)``, images per patient and class.

        Returns:
            The folds and their score.
        """
        own = np.stack([images, images**2, images > 0])  # (3, P, 2)
        one_hot = np.eye(self.n_folds)
        score = -np.inf
        while True:
            held = np.einsum("gf,mgk->mfk", one_hot[folds], own)
            change = one_hot[None, :] - one_hot[folds][:, None]  # (P, new fold, F)
            moved = held[:, None, None] + np.einsum("gtf,mgk->mgtfk", change, own)
            scores = self._score(*moved)
            patient, fold = np.unravel_index(scores.argmax(), scores.shape)
            if scores[patient, fold] <= score + 1e-9:
                return folds, score
            score = float(scores[patient, fold])
            folds = folds.copy()
            folds[patient] = fold

    def _score(
        self,
        images: npt.NDArray[np.float64],
        squares: npt.NDArray[np.float64],
        patients: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Score assignments to folds by three criteria of decreasing weight.

        First, at least three patients per class and fold, if the data has enough; second, even
        shares of images within 20 %, and the class prior of the whole data; third, as many
        effective patients as possible in the fold with the fewest, then in the next. One patient
        has a third of the healthy images of folds 0 and 1 of C-NMC, and would be nearly alone in a
        fold with criteria for images only.

        Args:
            images: ``(..., F, 2)``, images per fold and class.
            squares: ``(..., F, 2)``, sums of the squared images per patient.
            patients: ``(..., F, 2)``, number of patients.

        Returns:
            ``(...)``, the scores; higher is better.
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
    """Random images regardless of patients: the leaky split of many published results.

    Attributes:
        val: validation share of the images.
        test: test share of the images.
        source_folds: source folds to split; all if None.
        seed: seed of the split.
    """

    val: float = 0.1
    test: float = 0.2
    source_folds: Sequence[str] | None = None
    seed: CountOrZero = 0
    purge: bool = False
    drop_copies: bool = False

    @property
    def leaky(self) -> str:
        return "images are split at random: the same patients are in all stages"

    def check(self) -> None:
        if not (self.val > 0 and self.test > 0 and self.val + self.test < 1):
            raise DataError(
                f"split.val={self.val}, split.test={self.test}: choose shares above 0, together "
                "below 1"
            )

    def assign(self, table: pd.DataFrame) -> Stages:
        rows = select_rows(table, "source_folds", self.source_folds)
        labels = table["label"].to_numpy()
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
                f"split.val={self.val}, split.test={self.test}: too small for {len(rows)} images "
                f"({error}); choose larger shares"
            ) from error
        return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


@dataclass(frozen=True)
class Thesis(Rule):
    """Protocol of the thesis: the test images are also the validation stage.

    Attributes:
        train: source folds for training; all others if None.
        test: source folds for validation and test; if None, the preliminary set or, without it,
            the last fold.
    """

    train: Sequence[str] | None = None
    test: Sequence[str] | None = None
    purge: bool = False
    drop_copies: bool = False

    @property
    def leaky(self) -> str:
        return "early stopping and thresholds use the test images"

    def assign(self, table: pd.DataFrame) -> Stages:
        folds = sorted(table["source_fold"].unique())
        test = list(self.test or [PRELIM if PRELIM in folds else folds[-1]])
        train = list(self.train or [fold for fold in folds if fold not in test])
        stages = _select_stages(table, {"train": train, "test": test})
        return {**stages, "val": stages["test"].copy()}


def select_rows(table: pd.DataFrame, key: str, folds: Sequence[str] | None) -> Rows:
    """Select the rows of source folds.

    Args:
        table: table with ``source_fold``.
        key: key of ``split`` that lists the source folds, for error messages.
        folds: source folds; all if None.

    Raises:
        DataError: a source fold has no images.
    """
    if folds is None:
        return np.arange(len(table))
    found = sorted(table["source_fold"].unique())
    for fold in folds:
        if fold not in found:
            hint = "; for merged folders, use split=subject_kfold" if MERGED in found else ""
            raise DataError(
                f"split.{key}: no source fold {fold}; choose from {', '.join(found)}{hint}"
            )
    return np.flatnonzero(table["source_fold"].isin(list(folds)))


def _select_stages(table: pd.DataFrame, named: Mapping[str, Sequence[str]]) -> Stages:
    """Select the rows of each stage's source folds, none of which may be in two stages."""
    stages = {stage: select_rows(table, stage, folds) for stage, folds in named.items()}
    stage_of: dict[str, str] = {}
    for stage, folds in named.items():
        for fold in folds:
            if fold in stage_of:
                raise DataError(
                    f"split.{stage}: {fold} is also in split.{stage_of[fold]}; list it once"
                )
            stage_of[fold] = stage
    return stages


def _require_share(val: float) -> None:
    if not 0 < val < 1:
        raise DataError(f"split.val={val}: choose a share between 0 and 1")


def _hold_out(
    table: pd.DataFrame, rows: Rows, share: float, seed: int | Sequence[int]
) -> tuple[Rows, Rows]:
    """Hold out whole patients of each class with about ``share`` of its images.

    Returns:
        The remaining rows and the rows held out.

    Raises:
        DataError: a class with fewer than two patients.
    """
    generator = np.random.default_rng(seed)
    chosen = table.iloc[rows]
    of_class = {
        label: chosen.loc[chosen["label"] == label, "patient"].value_counts().sort_index()
        for label in Label
    }
    held: set[str] = set()
    aim = share
    for label, counts in sorted(of_class.items(), key=lambda item: len(item[1])):
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
    """Draw a subset of the patients of a class with many effective patients.

    Random subsets with a share of images near the aim are scored by their effective number of
    patients times the number of patients that remain for training. One of those with a good score
    is drawn, so that different seeds validate on different patients.

    Args:
        counts: images of each patient.
        share: requested share of the images, met within 30 % if possible.
        aim: share to come close to, within those limits.
        generator: random generator of the draw.

    Returns:
        The patients of the subset.
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

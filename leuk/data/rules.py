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
from leuk.data.splits import Rows, Rule, Seed, Stages
from leuk.errors import DataError


@dataclass(frozen=True)
class Folds(Rule):
    """Stages by source folds; validation can be a share of the training patients.

    Defaults depend on the data: with the preliminary set, train on fold_0 and fold_1, validate on
    fold_2, test on prelim; without it, train on fold_0, hold out patients with about a fifth of its
    images, test on fold_1.
    """

    train: Sequence[str] | None = None  # source folds
    val: Sequence[str] | float | None = None  # source folds, or the share of the training images
    test: Sequence[str] | None = None  # source folds
    seed: CountOrZero = 0  # not the run's seed, so that all seeds of a sweep have the same split

    def check(self) -> None:
        if isinstance(self.val, float | int):
            _require_share(self.val)

    def assign(self, table: pd.DataFrame) -> tuple[Stages, tuple[float, Seed] | None]:
        train, val, test = self.train, self.val, self.test
        whole = {PRELIM, "fold_0", "fold_1", "fold_2"} <= set(table["source_fold"])
        if train is None:
            train = ["fold_0", "fold_1"] if whole else ["fold_0"]
        if val is None:
            val = ["fold_2"] if whole else 0.2
        if test is None:
            test = [PRELIM] if whole else ["fold_1"]
        if isinstance(val, float | int):
            return _stages(table, {"train": train, "test": test}), (float(val), self.seed)
        return _stages(table, {"train": train, "val": val, "test": test}), None


@dataclass(frozen=True)
class SubjectKFold(Rule):
    """Stratified cross-validation folds of whole patients, with a validation share.

    A whole fold for validation would leave only a third of the images for training with 3 folds.
    """

    n_folds: int = 5  # 3 or more
    fold: CountOrZero = 0  # test fold, from 0
    val: float = 0.2  # share of the images outside the test fold, by whole patients
    source_folds: Sequence[str] | None = None  # to split; all if None
    seed: CountOrZero = 0  # of the folds and of the validation patients

    def check(self) -> None:
        if self.n_folds < 3 or self.fold >= self.n_folds:
            raise DataError(
                f"split.fold={self.fold}, split.n_folds={self.n_folds}: choose 3 or more folds, "
                "numbered from 0"
            )
        _require_share(self.val)

    def assign(self, table: pd.DataFrame) -> tuple[Stages, tuple[float, Seed] | None]:
        rows = _rows(table, "source_folds", self.source_folds)
        labels, patients = (table[name].to_numpy()[rows] for name in ("label", "patient"))
        smallest = min(len(set(patients[labels == label])) for label in Label)
        if smallest < self.n_folds:
            raise DataError(
                f"split.n_folds={self.n_folds}: a class has {smallest} patient(s); choose fewer "
                "folds or more source folds (split.source_folds)"
            )
        is_test = _number_folds(labels, patients, self.n_folds, self.seed) == self.fold
        held = (self.val, (self.seed, self.fold))
        return {"train": rows[~is_test], "test": rows[is_test]}, held


@dataclass(frozen=True)
class RandomImages(Rule):
    """Random images regardless of patients: the leaky split of many published results."""

    val: float = 0.1  # shares of the images
    test: float = 0.2
    source_folds: Sequence[str] | None = None  # to split; all if None
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

    def assign(self, table: pd.DataFrame) -> tuple[Stages, None]:
        rows = _rows(table, "source_folds", self.source_folds)
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
        return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}, None


@dataclass(frozen=True)
class Thesis(Rule):
    """Protocol of the thesis: the test images are also the validation stage."""

    train: Sequence[str] | None = None  # source folds; all others if None
    test: Sequence[str] | None = None  # if None, the preliminary set, or the last fold without it
    purge: bool = False
    drop_copies: bool = False

    @property
    def leaky(self) -> str:
        return "early stopping and thresholds use the test images"

    def assign(self, table: pd.DataFrame) -> tuple[Stages, None]:
        folds = sorted(table["source_fold"].unique())
        test = list(self.test or [PRELIM if PRELIM in folds else folds[-1]])
        train = list(self.train or [fold for fold in folds if fold not in test])
        stages = _stages(table, {"train": train, "test": test})
        return {**stages, "val": stages["test"].copy()}, None


def _require_share(val: float) -> None:
    if not 0 < val < 1:
        raise DataError(f"split.val={val}: choose a share between 0 and 1")


def _rows(table: pd.DataFrame, key: str, folds: Sequence[str] | None) -> Rows:
    """Select the rows of source folds, all if None; ``key`` of ``split`` is for error messages."""
    found = sorted(table["source_fold"].unique())
    if folds is None:
        return np.arange(len(table))
    for fold in folds:
        if fold not in found:
            hint = "; for merged folders, use split=subject_kfold" if MERGED in found else ""
            raise DataError(
                f"split.{key}: no source fold {fold}; choose from {', '.join(found)}{hint}"
            )
    return np.flatnonzero(table["source_fold"].isin(list(folds)))


def _stages(table: pd.DataFrame, named: Mapping[str, Sequence[str]]) -> Stages:
    """Select the rows of each stage's source folds, none of which may be in two stages."""
    stages = {stage: _rows(table, stage, folds) for stage, folds in named.items()}
    stage_of: dict[str, str] = {}
    for stage, folds in named.items():
        for fold in folds:
            if fold in stage_of:
                raise DataError(
                    f"split.{stage}: {fold} is also in split.{stage_of[fold]}; list it once"
                )
            stage_of[fold] = stage
    return stages


# --- Folds with even shares of both classes and of the patients

_STARTS = 20
_EVEN = 0.2
"""Tolerated relative deviation of a fold from an even share of a class's images."""
_PRIOR = 0.05
"""Tolerated difference between a fold's relative shares of the two classes."""
_FEWEST = 3
"""Desired minimum of patients per class and fold."""


def _number_folds(labels: Rows, patients: npt.NDArray[np.object_], n_folds: int, seed: int) -> Rows:
    """Assign a fold to each image, by local search from several random starts.

    With scikit-learn's StratifiedGroupKFold, class shares differ by up to 6 points on C-NMC.
    """
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    images = np.stack([np.bincount(codes, labels == label) for label in Label], 1).astype(float)
    own = np.stack([images, images**2, images > 0])  # (3, P, 2)
    one_hot = np.eye(n_folds)
    generator = np.random.default_rng(seed)
    best, best_score = np.zeros(len(names), np.int64), -np.inf
    for _ in range(_STARTS):
        folds, score = generator.integers(n_folds, size=len(names)), -np.inf
        while True:  # move the patient whose move to another fold gives the highest score
            sums = np.einsum("gf,mgk->mfk", one_hot[folds], own)
            change = one_hot[None, :] - one_hot[folds][:, None]  # (P, new fold, F)
            moved = sums[:, None, None] + np.einsum("gtf,mgk->mgtfk", change, own)
            scores = _score(*moved)
            patient, fold = np.unravel_index(scores.argmax(), scores.shape)
            if scores[patient, fold] <= score + 1e-9:
                break
            score = float(scores[patient, fold])
            folds[patient] = fold
        if score > best_score + 1e-9:
            best, best_score = folds, score
    return best[codes]


def _score(
    images: npt.NDArray[np.float64],
    squares: npt.NDArray[np.float64],  # of the images per patient
    patients: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Score assignments to folds by three criteria of decreasing weight; higher is better.

    First, at least three patients per class and fold, if the data has enough; second, even shares
    of images within 20 %, and the class prior of the whole data; third, as many effective patients
    as possible in the fold with the fewest, then in the next. One patient has a third of the
    healthy images of folds 0 and 1 of C-NMC, and would be nearly alone in a fold with criteria for
    images only. All arguments are sums per fold and class, ``(..., F, 2)``.
    """
    n_folds = images.shape[-2]
    fewest = np.minimum(_FEWEST, patients.sum(axis=-2, keepdims=True) // n_folds)
    missing = np.maximum(0, fewest - patients).sum(axis=(-2, -1))
    share = n_folds * images / images.sum(axis=-2, keepdims=True)
    uneven = np.maximum(0, np.abs(share - 1) - _EVEN).sum(axis=(-2, -1))
    shifted = np.maximum(0, np.abs(share[..., 0] - share[..., 1]) - _PRIOR).sum(axis=-1)
    effective = images**2 / np.maximum(squares, 1)
    whole = images.sum(axis=-2, keepdims=True) ** 2 / squares.sum(axis=-2, keepdims=True)
    ordered = np.sort(n_folds * effective / whole, axis=-2)
    informative = np.einsum("...fk,f->...", ordered, 0.1 ** np.arange(n_folds))
    score: npt.NDArray[np.float64] = informative - 100 * missing - 10 * uneven - 5 * shifted
    return score

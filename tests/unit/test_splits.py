from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leuk.data.cnmc import index_cells
from leuk.data.labels import Label
from leuk.data.rules import Folds
from leuk.data.splits import STAGES
from leuk.errors import DataError


def table(subjects: dict[str, dict[str, int]]) -> pd.DataFrame:
    """A table from ``{part: {subject: cells}}``; a subject's class is the start of its name."""
    rows = [
        (part, subject, int(Label[subject.split("-")[0]]))
        for part, cells in subjects.items()
        for subject, count in cells.items()
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["part", "subject", "label"])


CELLS = table(
    {
        "fold_0": {f"{label.name}-{i}": 10 + i for label in Label for i in range(12)},
        "fold_1": {"ALL-90": 20, "HEM-91": 10},
        "fold_2": {"ALL-92": 20, "HEM-93": 10},
    }
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_held_out_share_is_near_and_no_subject_straddles(share: float, seed: int) -> None:
    split = Folds(["fold_0"], share, ["fold_1"], seed)(CELLS)
    train, val = CELLS.iloc[split.train], CELLS.iloc[split.val]
    assert not set(train["subject"]) & set(val["subject"])
    assert len(train) + len(val) == (CELLS["part"] == "fold_0").sum()
    for label in Label:
        held, kept = (val["label"] == label).sum(), (train["label"] == label).sum()
        assert held / (held + kept) == pytest.approx(share, abs=0.03)


def test_same_seed_same_split_and_other_seed_another() -> None:
    first, again, other = (Folds(["fold_0"], 0.2, ["fold_1"], seed)(CELLS) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.val, again.val)
    assert set(first.val) != set(other.val)


def test_validation_by_name() -> None:
    split = Folds(["fold_0"], ["fold_2"], ["fold_1"])(CELLS)
    for stage, part in zip(STAGES, ("fold_0", "fold_2", "fold_1"), strict=True):
        assert set(CELLS.iloc[getattr(split, stage)]["part"]) == {part}


def test_test_part_does_not_move_the_held_out_subjects() -> None:
    other = CELLS.copy()
    other.loc[other["part"] == "fold_1", "label"] = [1, 0] * 15
    first, second = (Folds(["fold_0"], 0.2, ["fold_1"])(cells) for cells in (CELLS, other))
    np.testing.assert_array_equal(first.val, second.val)


@pytest.mark.parametrize(
    ("train", "val", "test", "said"),
    [
        (["fold_7"], 0.2, ["fold_1"], "split.train: no part fold_7 in the data; there are fold_0"),
        (["fold_0"], ["fold_0"], ["fold_1"], "part fold_0 is in both train and val"),
        (["fold_0", "fold_1"], 0.2, ["fold_1"], "part fold_1 is in both train and test"),
        (["fold_0"], 1.5, ["fold_1"], "split.val=1.5: a share must lie between 0 and 1"),
        (["fold_0"], 0.0, ["fold_1"], "a share must lie between 0 and 1"),
        (["fold_1"], 0.2, ["fold_2"], r"1 hem subject\(s\) in split.train"),
        (["fold_0"], 0.2, [], "split.test: no cells"),
    ],
)
def test_bad_splits(train: list[str], val: float | list[str], test: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Folds(train, val, test)(CELLS)


def test_part_without_healthy_cells() -> None:
    cells = table(
        {"fold_0": {"ALL-1": 5, "ALL-2": 5, "HEM-1": 5, "HEM-2": 5}, "fold_1": {"ALL-3": 5}}
    )
    with pytest.raises(DataError, match=r"split\.test: no hem cells among its 5"):
        Folds(["fold_0"], 0.5, ["fold_1"])(cells)


def test_real_folds(cnmc: Path) -> None:
    cells = index_cells(cnmc / "224")
    split = Folds(["fold_0"], 0.2, ["fold_1"])(cells)
    shares = [cells.iloc[getattr(split, stage)]["label"].mean() for stage in STAGES]
    assert max(shares) - min(shares) < 0.03
    assert cells.iloc[split.val].groupby("label")["subject"].nunique().min() >= 3

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from leuk.data.cnmc import index_cells
from leuk.data.labels import Label
from leuk.data.links import group_subjects
from leuk.data.rules import Folds, RandomImages, SubjectKFold, Thesis
from leuk.data.splits import STAGES, Rule, Split
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


def linked(cells: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The table with the groups that follow from links between subjects."""
    first = cells.drop_duplicates("subject").reset_index().set_index("subject")["index"]
    rows = pd.DataFrame([(first[a], first[b]) for a, b in pairs], columns=["first", "second"])
    return cells.assign(group=group_subjects(cells["subject"], rows.astype(int)))


WHOLE = table(
    {
        part: {
            f"{label.name}-{100 * number + i}": 6 + (3 * i + number) % 5
            for label in Label
            for i in range(7)
        }
        for number, part in enumerate(("fold_0", "fold_1", "fold_2", "prelim"))
    }
)
SUBJECTS = sorted(set(WHOLE["subject"]))
RULES: dict[str, Rule] = {
    "default": Folds(),
    "hold out": Folds(["fold_0", "fold_1"], 0.3, ["fold_2"]),
    "subject_kfold": SubjectKFold(n_folds=3, fold=1),
}


def groups_of(cells: pd.DataFrame, split: Split) -> dict[str, set[str]]:
    return {stage: set(cells["group"].iloc[getattr(split, stage)]) for stage in STAGES}


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(
    pairs=some.lists(
        some.tuples(some.sampled_from(SUBJECTS), some.sampled_from(SUBJECTS)), max_size=30
    )
)
def test_linked_subjects_never_straddle(rule: str, pairs: list[tuple[str, str]]) -> None:
    cells = linked(WHOLE, pairs)
    try:
        split = RULES[rule](cells)
    except DataError as error:
        assert "choose" in str(error) or "at least 2 are needed" in str(error)  # noqa: PT017
        return
    groups = groups_of(cells, split)
    assert not groups["train"] & groups["val"]
    assert not (groups["train"] | groups["val"]) & groups["test"]


def test_links_matter() -> None:
    """Without the rule, the same links do straddle: the property above can fail."""
    cells = linked(WHOLE, [("ALL-0", "ALL-300"), ("HEM-1", "HEM-301")])
    kept, purged = Folds(purge=False)(cells), Folds()(cells)
    assert groups_of(cells, kept)["train"] & groups_of(cells, kept)["test"]
    lost = len(kept.train) - len(purged.train)
    assert purged.dropped["train: same person in test"] == lost
    np.testing.assert_array_equal(kept.test, purged.test)


def test_defaults_follow_the_parts_that_are_there() -> None:
    def parts(cells: pd.DataFrame) -> list[set[str]]:
        split = Folds()(cells)
        return [set(cells["part"].iloc[getattr(split, stage)]) for stage in STAGES]

    assert parts(WHOLE) == [{"fold_0", "fold_1"}, {"fold_2"}, {"prelim"}]
    two = WHOLE[WHOLE["part"].isin(["fold_0", "fold_1"])].reset_index(drop=True)
    assert parts(two) == [{"fold_0"}, {"fold_0"}, {"fold_1"}]


def test_copies_are_kept_once_in_the_latest_stage() -> None:
    original = np.arange(len(WHOLE))
    rows = {part: np.flatnonzero(WHOLE["part"] == part) for part in ("fold_0", "prelim")}
    original[rows["prelim"][0]] = rows["fold_0"][0]
    original[rows["fold_0"][5]] = rows["fold_0"][4]
    cells = WHOLE.assign(original=original)
    split, with_copies = Folds()(cells), Folds(drop_copies=False)(cells)
    assert rows["prelim"][0] in split.test
    assert set(with_copies.train) - set(split.train) == {rows["fold_0"][0], rows["fold_0"][5]}
    assert split.dropped["train: copy of another image"] == 2


@pytest.mark.parametrize("fold", range(5))
def test_subject_folds_are_even(fold: int) -> None:
    split = SubjectKFold(n_folds=5, fold=fold)(WHOLE)
    shares = [WHOLE["label"].iloc[getattr(split, stage)].mean() for stage in STAGES]
    assert max(shares) - min(shares) < 0.03
    assert len(split.test) / len(WHOLE) == pytest.approx(0.2, abs=0.03)


def test_real_subject_folds_are_as_even_as_the_persons_allow(cnmc: Path, artefacts: Path) -> None:
    from leuk.data.datamodule import CNMCDataModule

    rule = SubjectKFold(n_folds=3)
    data = CNMCDataModule(f"{cnmc}/224", rule, resolution=64, cache=str(artefacts))
    data.setup()
    shares = [data.part(stage)["label"].mean() for stage in STAGES]
    # The largest healthy person has a third of the healthy cells: the folds are all but forced.
    assert max(shares) - min(shares) < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_the_only_person_of_a_class_in_a_fold(seed: int) -> None:
    """One person has a third of the healthy cells, as in folds 0 and 1 of C-NMC."""
    healthy = [789, 405, 373, 185, 162, 119, 108, 69, 47, 18, 18]
    cells = table(
        {
            "fold_0": {
                **{f"HEM-{number}": count for number, count in enumerate(healthy)},
                **{f"ALL-{number}": 100 for number in range(20)},
            }
        }
    )
    persons, shares = [], []
    for fold in range(3):
        test = cells.iloc[SubjectKFold(n_folds=3, fold=fold, seed=seed)(cells).test]
        of_healthy = test[test["label"] == Label.HEM]
        persons.append(of_healthy["subject"].nunique())
        shares.append(len(of_healthy) / sum(healthy))
    assert min(persons) >= 3
    assert sum(persons) == len(healthy)
    assert max(shares) < 0.4


def test_every_cell_is_tested_once_over_the_folds() -> None:
    tests = [SubjectKFold(n_folds=4, fold=fold)(WHOLE).test for fold in range(4)]
    assert sorted(np.concatenate(tests)) == list(range(len(WHOLE)))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (SubjectKFold(n_folds=2), "there must be 3 folds or more"),
        (SubjectKFold(n_folds=5, fold=5), "split.fold=5, split.n_folds=5"),
        (SubjectKFold(n_folds=40), "a class has 28 subject"),
        (SubjectKFold(parts=["fold_9"]), "split.parts: no part fold_9"),
        (RandomImages(val=0.5, test=0.5), "shares above 0 that leave some"),
        (Thesis(train=["fold_0"], test=["fold_0"]), "fold_0 is in both train and test"),
    ],
)
def test_rules_say_what_they_cannot_do(rule: Rule, said: str) -> None:
    with pytest.raises(DataError, match=said):
        rule(WHOLE)


def test_merged_folders_want_another_rule() -> None:
    with pytest.raises(DataError, match=r"no part fold_0 .* merged.*split=subject_kfold"):
        Folds()(WHOLE.assign(part="merged"))


def test_leaky_rules_leak_and_say_so() -> None:
    random = RandomImages()(WHOLE)
    groups = groups_of(WHOLE.assign(group=WHOLE["subject"]), random)
    assert groups["train"] & groups["test"]
    assert random.leaky
    thesis = Thesis()(WHOLE)
    np.testing.assert_array_equal(thesis.val, thesis.test)
    assert set(WHOLE["part"].iloc[thesis.test]) == {"prelim"}
    assert thesis.leaky
    assert Folds(purge=False).leaky
    assert Folds(link_subjects=False).leaky
    assert not Folds(drop_copies=False).leaky


def test_real_folds_without_linked_subjects(cnmc: Path, artefacts: Path) -> None:
    from leuk.data.datamodule import CNMCDataModule

    data = CNMCDataModule(f"{cnmc}/224", Folds(), resolution=64, cache=str(artefacts))
    data.setup()
    train, test = data.part("train"), data.part("test")
    assert not set(train["group"]) & set(test["group"])
    assert {"ALL-43", "HEM-24"} & set(train["subject"]) == set()
    assert data.split.dropped["train: same person in test"] > 600

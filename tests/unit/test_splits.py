from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.model_selection import train_test_split

from leuk.data.labels import Label
from leuk.data.links import merge_subjects
from leuk.data.rules import Folds, RandomImages, SubjectKFold, Thesis
from leuk.data.splits import STAGES, Rule, Split, effective_patients
from leuk.errors import DataError


def table(subjects: dict[str, dict[str, int]]) -> pd.DataFrame:
    """Build a table from ``{source fold: {subject: images}}``; names start with the class."""
    rows = [
        (fold, subject, int(Label[subject.split("-")[0]]))
        for fold, counts in subjects.items()
        for subject, count in counts.items()
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["source_fold", "subject", "label"])


IMAGES = table(
    {
        "fold_0": {f"{label.name}-{i}": 10 + i for label in Label for i in range(12)},
        "fold_1": {"ALL-90": 20, "HEM-91": 10},
        "fold_2": {"ALL-92": 20, "HEM-93": 10},
    }
)


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.2, 1), (0.2, 2), (0.5, 3)])
def test_held_out_share_is_near_and_no_subject_straddles(share: float, seed: int) -> None:
    split = Folds(["fold_0"], share, ["fold_1"], seed)(IMAGES)
    train, val = IMAGES.iloc[split.train], IMAGES.iloc[split.val]
    assert not set(train["subject"]) & set(val["subject"])
    assert len(train) + len(val) == (IMAGES["source_fold"] == "fold_0").sum()
    for label in Label:
        held, kept = (val["label"] == label).sum(), (train["label"] == label).sum()
        assert held / (held + kept) == pytest.approx(share, abs=0.03)


def test_test_images_do_not_change_the_held_out_subjects() -> None:
    other = IMAGES.copy()
    other.loc[other["source_fold"] == "fold_1", "label"] = [1, 0] * 15
    first, second = (Folds(["fold_0"], 0.2, ["fold_1"])(images) for images in (IMAGES, other))
    np.testing.assert_array_equal(first.val, second.val)


@pytest.mark.parametrize(
    ("train", "val", "test", "message"),
    [
        (["fold_7"], 0.2, ["fold_1"], "split.train: no source fold fold_7; choose from fold_0"),
        (["fold_0"], ["fold_0"], ["fold_1"], "split.val: fold_0 is also in split.train"),
        (["fold_0", "fold_1"], 0.2, ["fold_1"], "split.test: fold_1 is also in split.train"),
        (["fold_0"], 1.5, ["fold_1"], "split.val=1.5: choose a share between 0 and 1"),
        (["fold_0"], 0.0, ["fold_1"], "choose a share between 0 and 1"),
        (["fold_1"], 0.2, ["fold_0"], r"1 hem patient\(s\) in split.train"),
        (["fold_0"], 0.2, [], "split.test: no images"),
        (["fold_0"], 0.2, ["fold_2"], "split.test: no hem images among 20"),
    ],
)
def test_bad_splits(
    train: list[str], val: float | list[str], test: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Folds(train, val, test)(IMAGES[IMAGES["subject"] != "HEM-93"])


def linked(images: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the table with the patients that follow from links between subjects."""
    first = images.drop_duplicates("subject").reset_index().set_index("subject")["index"]
    rows = pd.DataFrame([(first[a], first[b]) for a, b in pairs], columns=["first", "second"])
    return images.assign(patient=merge_subjects(images["subject"], rows.astype(int)))


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


def patients_of(images: pd.DataFrame, split: Split) -> dict[str, set[str]]:
    return {stage: set(images["patient"].iloc[getattr(split, stage)]) for stage in STAGES}


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=15, deadline=None)
@given(
    pairs=some.lists(
        some.tuples(some.sampled_from(SUBJECTS), some.sampled_from(SUBJECTS)), max_size=30
    )
)
def test_linked_subjects_never_straddle(rule: str, pairs: list[tuple[str, str]]) -> None:
    images = linked(WHOLE, pairs)
    try:
        split = RULES[rule](images)
    except DataError as error:
        assert "choose" in str(error) or "at least 2 are needed" in str(error)  # noqa: PT017
        return
    patients = patients_of(images, split)
    assert not patients["train"] & patients["val"]
    assert not (patients["train"] | patients["val"]) & patients["test"]


def test_links_change_the_split() -> None:
    """Without purging, linked subjects are in two stages: the property above can fail."""
    images = linked(WHOLE, [("ALL-0", "ALL-300"), ("HEM-1", "HEM-301")])
    kept, purged = Folds(purge=False)(images), Folds()(images)
    assert patients_of(images, kept)["train"] & patients_of(images, kept)["test"]
    lost = len(kept.train) - len(purged.train)
    assert purged.dropped["train: same patient in test"] == lost
    np.testing.assert_array_equal(kept.test, purged.test)


def test_defaults_depend_on_the_source_folds() -> None:
    def folds(images: pd.DataFrame) -> list[set[str]]:
        split = Folds()(images)
        return [set(images["source_fold"].iloc[getattr(split, stage)]) for stage in STAGES]

    assert folds(WHOLE) == [{"fold_0", "fold_1"}, {"fold_2"}, {"prelim"}]
    two = WHOLE[WHOLE["source_fold"].isin(["fold_0", "fold_1"])].reset_index(drop=True)
    assert folds(two) == [{"fold_0"}, {"fold_0"}, {"fold_1"}]


def test_copies_are_kept_once_in_the_latest_stage() -> None:
    original = np.arange(len(WHOLE))
    rows = {part: np.flatnonzero(WHOLE["source_fold"] == part) for part in ("fold_0", "prelim")}
    original[rows["prelim"][0]] = rows["fold_0"][0]
    original[rows["fold_0"][5]] = rows["fold_0"][4]
    images = WHOLE.assign(original=original)
    split, with_copies = Folds()(images), Folds(drop_copies=False)(images)
    assert rows["prelim"][0] in split.test
    assert set(with_copies.train) - set(split.train) == {rows["fold_0"][0], rows["fold_0"][5]}
    assert split.dropped["train: copy of another image"] == 2


REAL = table(
    {
        "fold_0": {
            "HEM-14": 404, "HEM-12": 185, "HEM-15": 162, "HEM-17": 119, "HEM-19": 108,
            "HEM-16": 69, "HEM-11": 47, "HEM-6": 18, "HEM-7": 18,
            "ALL-52": 402, "ALL-48": 268, "ALL-45": 253, "ALL-50": 246, "ALL-1": 227,
            "ALL-35": 155, "ALL-26": 142, "ALL-4": 113, "ALL-5": 112, "ALL-22": 103,
            "ALL-14": 99, "ALL-11": 92, "ALL-28": 92, "ALL-43": 73, "ALL-3": 11, "ALL-19": 9,
        },
        "fold_1": {
            "HEM-10": 405, "HEM-14": 385, "HEM-22": 373,
            "ALL-51": 757, "ALL-34": 352, "ALL-32": 212, "ALL-30": 201, "ALL-46": 190,
            "ALL-33": 181, "ALL-43": 146, "ALL-38": 145, "ALL-23": 97, "ALL-2": 84, "ALL-1": 53,
        },
    }
)  # fmt: skip
"""Images per patient of folds 0 and 1 of C-NMC, subjects of one patient linked."""


def images_of(images: pd.DataFrame, rows: np.ndarray, label: Label) -> "pd.Series[str]":
    """The patient of each image of a class."""
    chosen = images.iloc[rows]
    patients: pd.Series[str] = chosen.loc[chosen["label"] == label, "subject"]
    return patients


@pytest.mark.parametrize("seed", [0, 1])
def test_three_folds_of_the_real_patients(seed: int) -> None:
    """One patient has a third of the healthy images: no fold may rest on that one alone."""
    tested = []
    for fold in range(3):
        split = SubjectKFold(n_folds=3, fold=fold, seed=seed)(REAL)
        patients = [set(REAL["subject"].iloc[getattr(split, stage)]) for stage in STAGES]
        assert not patients[0] & patients[1]
        assert not (patients[0] | patients[1]) & patients[2]
        assert len(split.train) + len(split.val) + len(split.test) == len(REAL)
        assert len(split.train) >= 0.44 * len(REAL)
        assert len(split.val) / (len(REAL) - len(split.test)) == pytest.approx(0.2, abs=0.065)
        priors = [REAL["label"].iloc[getattr(split, stage)].mean() for stage in STAGES]
        assert max(priors) - min(priors) < 0.03
        fewest, most = {Label.HEM: 1.25, Label.ALL: 4.1}, {Label.HEM: 0.4, Label.ALL: 0.41}
        for label in Label:
            test = images_of(REAL, split.test, label)
            assert 0.26 < len(test) / (REAL["label"] == label).sum() < most[label]
            assert test.nunique() >= 3
            assert effective_patients(test) > fewest[label]
            assert effective_patients(images_of(REAL, split.val, label)) > 1.6
            assert images_of(REAL, split.train, label).nunique() >= 3
        tested.append(split.test)
    assert sorted(np.concatenate(tested)) == list(range(len(REAL)))


def test_share_of_images_that_validates_can_be_chosen() -> None:
    few, many = (SubjectKFold(n_folds=3, val=val)(REAL) for val in (0.15, 0.4))
    np.testing.assert_array_equal(few.test, many.test)
    assert len(few.val) < 0.2 * (len(REAL) - len(few.test)) < 0.3 * len(REAL) * 2 / 3
    assert len(many.val) > 0.3 * (len(REAL) - len(many.test))


def test_each_seed_validates_on_other_patients() -> None:
    """Fold 0 trains, without the patient who is in fold 1 too: 726 healthy images of 8 patients."""
    chosen: dict[Label, set[frozenset[str]]] = {label: set() for label in Label}
    for seed in range(12):
        split = Folds(seed=seed)(REAL)
        for label in Label:
            held = images_of(REAL, split.val, label)
            kept = images_of(REAL, split.train, label)
            chosen[label].add(frozenset(held))
            share = len(held) / (len(held) + len(kept))
            assert share == pytest.approx(0.2, abs=0.061)
            assert effective_patients(held) > 1.85
            assert effective_patients(kept) > 3.7
        priors = [REAL["label"].iloc[rows].mean() for rows in (split.train, split.val)]
        assert priors[0] == pytest.approx(priors[1], abs=0.015)
    for label, least in ((Label.HEM, 5), (Label.ALL, 11)):
        assert len(chosen[label]) >= least
        assert not frozenset.intersection(*chosen[label])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SubjectKFold(n_folds=2), "choose 3 or more folds"),
        (SubjectKFold(n_folds=5, fold=5), "split.fold=5, split.n_folds=5"),
        (SubjectKFold(n_folds=40), "a class has 28 patient"),
        (SubjectKFold(val=1.0), "split.val=1.0: choose a share between 0 and 1"),
        (SubjectKFold(val=0.0), "split.val=0.0: choose a share between 0 and 1"),
        (SubjectKFold(source_folds=["fold_9"]), "split.source_folds: no source fold fold_9"),
        (RandomImages(val=0.5, test=0.5), "choose shares above 0, together below 1"),
        (Thesis(train=["fold_0"], test=["fold_0"]), "split.test: fold_0 is also in split.train"),
    ],
)
def test_impossible_settings_are_refused(rule: Rule, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rule(WHOLE)
    with pytest.raises(DataError, match=r"no source fold fold_0; .*merged.*split=subject_kfold"):
        Folds()(WHOLE.assign(source_fold="merged"))


def test_leaky_rules_leak_and_declare_it() -> None:
    random = RandomImages()(WHOLE)
    patients = patients_of(WHOLE.assign(patient=WHOLE["subject"]), random)
    assert patients["train"] & patients["test"]
    assert random.leaky
    thesis = Thesis()(WHOLE)
    np.testing.assert_array_equal(thesis.val, thesis.test)
    assert set(WHOLE["source_fold"].iloc[thesis.test]) == {"prelim"}
    assert thesis.leaky
    assert Folds(purge=False).leaky
    assert Folds(link_subjects=False).leaky
    assert not Folds(drop_copies=False).leaky


def test_random_images_are_drawn_by_share_class_and_seed() -> None:
    """Of 100 images, 66 leukemic: 20 of the whole validate, although 50 are taken out first."""
    images = table({"fold_0": {"ALL-1": 66, "HEM-1": 34}})
    labels = images["label"].to_numpy()
    for seed in (0, 3):
        rest, test = train_test_split(
            np.arange(100), test_size=50, stratify=labels, random_state=seed
        )
        train, val = train_test_split(rest, test_size=20, stratify=labels[rest], random_state=seed)
        split = RandomImages(val=0.2, test=0.5, seed=seed)(images)
        for found, expected in ((split.train, train), (split.val, val), (split.test, test)):
            assert found.tolist() == sorted(expected)


def test_images_with_two_labels_are_in_no_stage() -> None:
    folds = {"train": "fold_0", "val": "fold_2", "test": "fold_1"}
    rows = {stage: np.flatnonzero(IMAGES["source_fold"] == fold) for stage, fold in folds.items()}
    conflict = np.isin(IMAGES.index, [row for own in rows.values() for row in own[:2]])
    split = Folds(["fold_0"], ["fold_2"], ["fold_1"])(IMAGES.assign(conflict=conflict))
    for stage, own in rows.items():
        assert getattr(split, stage).tolist() == own[2:].tolist()
        assert split.dropped[f"{stage}: identical image with the other label"] == 2


def test_links_between_subjects_can_be_ignored() -> None:
    """ALL-90 is tested; ALL-0, linked to it, trains only where links are ignored."""
    images = linked(IMAGES, [("ALL-0", "ALL-90")])
    for link, trains in ((True, False), (False, True)):
        split = Folds(["fold_0"], ["fold_2"], ["fold_1"], link_subjects=link)(images)
        assert ("ALL-0" in set(images["subject"].iloc[split.train])) is trains
        assert bool(split.leaky) is trains


@pytest.mark.parametrize(
    ("images", "expected"),
    [([], 0.0), ([5], 1.0), ([4, 4, 4], 3.0), ([789, 18, 18], 825**2 / (789**2 + 2 * 18**2))],
)
def test_effective_number_of_patients(images: list[int], expected: float) -> None:
    patients = [f"p{number}" for number, count in enumerate(images) for _ in range(count)]
    assert effective_patients(patients) == pytest.approx(expected)

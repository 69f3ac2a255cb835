"""Folder layouts of C-NMC and common problems of folders."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_cell

from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import index_images, labeled_images, read_cnmc
from leuk.errors import DataError

PRELIM, FINAL = "C-NMC_test_prelim_phase_data", "C-NMC_test_final_phase_data"
CSV = f"{PRELIM}_labels.csv"
ROWS = ["UID_57_29_1_all.bmp,1.bmp,1", "UID_H31_2_1_hem.bmp,2.bmp,0"]

# Folders of training folds, preliminary images, their table, and final images; suffix of images.
LAYOUTS = {
    "archive": (
        *("a b/C-NMC_training_data/{}", f"a b/{PRELIM}", f"a b/{CSV}", f"a b/{FINAL}", ".bmp"),
    ),
    "kaggle": (
        *("C/training_data/{}", f"C/validation_data/{PRELIM}", f"C/validation_data/{CSV}"),
        *(f"C/testing_data/{FINAL}", ".bmp"),
    ),
    "nested": ("{0}/{0}", f"{PRELIM}/{PRELIM}", f"{PRELIM}/{CSV}", f"{FINAL}/{FINAL}", ".bmp"),
    "png": ("C-NMC_training_data/{}", PRELIM, CSV, FINAL, ".png"),
}


def training(root: Path, folds: str = "{}", suffix: str = ".bmp") -> None:
    for fold in range(3):
        folder = root / folds.format(f"fold_{fold}")
        write_cell(folder / f"all/UID_{fold + 1}_1_1_all{suffix}")
        write_cell(folder / f"hem/UID_H{fold + 1}_1_1_hem{suffix}")


def prelim(
    root: Path, rows: list[str] = ROWS, folder: str = PRELIM, table: str = CSV, suffix: str = ".bmp"
) -> None:
    for number in (1, 2):
        write_cell(root / folder / f"{number}{suffix}")
    (root / table).write_text("\n".join(["Patient_ID,new_names,labels", *rows, ""]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_table(layout: str, tmp_path: Path) -> None:
    folds, folder, table, final, suffix = LAYOUTS[layout]
    training(tmp_path, folds, suffix)
    prelim(tmp_path, ROWS, folder, table, suffix)
    for number in (1, 2, 3):
        write_cell(tmp_path / final / f"{number}{suffix}", size=60 if number == 1 else 45)
    index = read_cnmc(tmp_path)
    assert (index.problems, index.strays) == ([], [])
    assert index.table["path"].is_monotonic_increasing
    found = index.table.sort_values(["source_fold", "name"], ignore_index=True)
    unlabeled, labeled = (found[(found["source_fold"] == "final") == one] for one in (True, False))
    assert unlabeled["label"].tolist() == [UNLABELED] * 3
    assert labeled[["source_fold", "subject", "label"]].to_numpy().tolist() == [
        *[["fold_0", "ALL-1", 1], ["fold_0", "HEM-1", 0], ["fold_1", "ALL-2", 1]],
        *[["fold_1", "HEM-2", 0], ["fold_2", "ALL-3", 1], ["fold_2", "HEM-3", 0]],
        *[["prelim", "ALL-57", 1], ["prelim", "HEM-31", 0]],
    ]
    # Unlabeled images are indexed, but do not train.
    assert len(labeled_images(index.table)) == 8


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("all/UID_5_1_1_all.bmp", ".", (1, "ALL-5", "merged")),
        ("hem/UID_H5_1_1_hem.bmp", ".", (0, "HEM-5", "merged")),
        ("fold_0/hem/UID_h3_1_1_hem.bmp", ".", (0, "HEM-3", "fold_0")),
        ("fold_2/hem/UID_H5_1_1_hem.bmp", "fold_2", (0, "HEM-5", "fold_2")),
        ("PKG - C-NMC 2019/data/fold_1/all/UID_007_1_1_all.bmp", ".", (1, "ALL-7", "fold_1")),
        ("final results/all/UID_5_1_1_all.bmp", "final results", (1, "ALL-5", "merged")),
    ],
)
def test_label_subject_and_source_fold(
    tmp_path: Path, path: str, root: str, expected: tuple[int, str, str]
) -> None:
    write_cell(tmp_path / path)
    (row,) = index_images(tmp_path / root).to_dict("records")
    assert (row["label"], row["subject"], row["source_fold"]) == expected
    assert [(label.folder, int(label)) for label in Label] == [("hem", 0), ("all", 1)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", r"nowhere: no such folder; set data\.root=DIR"),
        ("empty", "no cell images in fold_"),
        ("wrong", "in folder all, but its name ends in hem"),
    ],
)
def test_folders_without_usable_images(tmp_path: Path, name: str, message: str) -> None:
    write_cell(tmp_path / "wrong/fold_0/all/UID_H1_1_1_hem.bmp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        index_images(tmp_path / name)


def test_preliminary_set_without_its_table_is_unlabeled(tmp_path: Path) -> None:
    prelim(tmp_path)
    (tmp_path / CSV).unlink()
    with pytest.raises(DataError, match=r"prelim_phase_data: no label table; put C-NMC_test_p"):
        index_images(tmp_path)
    with pytest.raises(DataError, match=r"none of the 2 images has a label; .*_labels\.csv"):
        labeled_images(index_images(tmp_path, "skip"))


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (ROWS[:1], "file without row", "2.bmp: its label is missing in C-NMC_test_prelim"),
        ([*ROWS, "UID_3_1_1_all.bmp,3.bmp,1"], "row without file", "row 3 (UID_3_1_1_all)"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,2"], "unknown label", ".csv:3: UID_H31_2_1_hem"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,"], "unknown label", "and label 0 or 1"),
        ([ROWS[0], "unnamed,2.bmp,0"], "unknown label", "unnamed,2.bmp,0: expected UID_"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,1"], "label conflict", "name hem, but label 1"),
        ([*ROWS, "UID_H7_1_1_hem.bmp,1.bmp,0"], "label conflict", "1.bmp is UID_57_29_1_all in"),
    ],
)
def test_table_and_files_that_disagree(
    tmp_path: Path, rows: list[str], kind: str, message: str
) -> None:
    prelim(tmp_path, rows)
    found = {problem.kind: str(problem) for problem in read_cnmc(tmp_path).problems}
    assert message in found[kind]
    with pytest.raises(DataError, match=r"set data\.on_corrupt=skip"):
        index_images(tmp_path)
    assert "1.bmp" in index_images(tmp_path, "skip")["path"][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "no column Patient_ID; found: a, b"), ("", "cannot be read")],
)
def test_table_of_another_kind(tmp_path: Path, text: str, message: str) -> None:
    prelim(tmp_path)
    (tmp_path / CSV).write_text(text)
    with pytest.raises(DataError, match=message):
        read_cnmc(tmp_path)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    training(tmp_path / "kept")
    (tmp_path / "fold_0").symlink_to(tmp_path / "kept/fold_0")
    (tmp_path / "kept/fold_0/again").symlink_to(tmp_path / "kept/fold_0")
    paths = index_images(tmp_path)["path"]
    assert (len(paths), paths.str.startswith("fold_0").sum()) == (6, 2)


def test_the_same_image_twice(tmp_path: Path) -> None:
    training(tmp_path / "one")
    training(tmp_path / "two", suffix=".png")
    messages = [str(problem) for problem in read_cnmc(tmp_path).problems]
    assert "UID_1_1_1_all exists twice, first as one/fold_0" in messages[0]
    assert (len(messages), len(index_images(tmp_path, "skip"))) == (6, 6)


def test_strays_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training(tmp_path)
    strays = {"fold_0/all/Thumbs.db", "fold_0/all/cell.bmp", "readme.txt", "photo.png"}
    for stray in strays:
        (tmp_path / stray).touch()
    with open(os.fsencode(tmp_path) + b"/fold_0/all/caf\xe9.txt", "w"):
        pass
    assert set(read_cnmc(tmp_path).strays) == {*strays, "fold_0/all/caf\\xe9.txt"}
    assert len(index_images(tmp_path)) == 6
    assert "Thumbs.db" in caplog.text


def test_real_files_merged_into_two_folders(cnmc: Path, tmp_path: Path) -> None:
    before = index_images(cnmc / "original")
    for path in before["path"]:
        target = tmp_path / Path(path).parent.name / Path(path).name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(cnmc / "original" / path, target)
    tables = (before, index_images(tmp_path))
    columns = ["name", "label", "subject"]
    pd.testing.assert_frame_equal(
        *(table[columns].sort_values("name", ignore_index=True) for table in tables)
    )


def test_real_images_have_the_published_counts(cnmc: Path) -> None:
    found = index_images(cnmc / "224").groupby(["source_fold", "label"])["subject"]
    assert found.agg(["size", "nunique"]).to_numpy().tolist() == [
        *([1130, 9], [2397, 19], [1163, 3], [2418, 11])
    ]

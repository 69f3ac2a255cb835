"""Folder layouts of C-NMC and common problems of folders."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_cell

from leuk.data.labels import UNLABELED, Label
from leuk.data.layouts import CNMC, index_images, labeled_images, read_cnmc
from leuk.errors import DataError

CSV = "C-NMC_test_prelim_phase_data_labels.csv"
ROWS = ["UID_57_29_1_all.bmp,1.bmp,1", "UID_H31_2_1_hem.bmp,2.bmp,0"]


def training(folder: Path, suffix: str = ".bmp", again: bool = False) -> None:
    for fold in range(3):
        inner = folder / f"fold_{fold}" / (f"fold_{fold}" if again else "")
        write_cell(inner / f"all/UID_{fold + 1}_1_1_all{suffix}")
        write_cell(inner / f"hem/UID_H{fold + 1}_1_1_hem{suffix}")


def prelim(folder: Path, table: Path, suffix: str = ".bmp", rows: list[str] = ROWS) -> None:
    for number in (1, 2):
        write_cell(folder / f"{number}{suffix}")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(["Patient_ID,new_names,labels", *rows, ""]))


def final(folder: Path, suffix: str = ".bmp") -> None:
    for number in (1, 2, 3):
        write_cell(folder / f"{number}{suffix}", size=600 if number == 1 else 450)


def archive(root: Path) -> None:
    base = root / "PKG - C-NMC 2019"
    training(base / "C-NMC_training_data")
    prelim(base / "C-NMC_test_prelim_phase_data", base / CSV)
    final(base / "C-NMC_test_final_phase_data")


def kaggle(root: Path) -> None:
    base = root / "C-NMC_Leukemia"
    training(base / "training_data")
    valid = base / "validation_data"
    prelim(valid / "C-NMC_test_prelim_phase_data", valid / CSV)
    final(base / "testing_data/C-NMC_test_final_phase_data")


def nested(root: Path) -> None:
    training(root, again=True)
    name = "C-NMC_test_prelim_phase_data"
    prelim(root / name / name, root / name / CSV)
    final(root / "C-NMC_test_final_phase_data/C-NMC_test_final_phase_data")


def png(root: Path) -> None:
    training(root / "C-NMC_training_data", ".png")
    prelim(root / "C-NMC_test_prelim_phase_data", root / CSV, ".png")
    final(root / "C-NMC_test_final_phase_data", ".png")


@pytest.mark.parametrize("layout", [archive, kaggle, nested, png])
def test_layouts_give_the_same_table(layout: object, tmp_path: Path) -> None:
    layout(tmp_path)  # type: ignore[operator]
    index = read_cnmc(tmp_path)
    assert (index.problems, index.strays) == ([], [])
    cells = index.table.drop(columns="path").sort_values(["source_fold", "name"], ignore_index=True)
    named = cells[cells["source_fold"] != "final"]
    assert named["source_fold"].tolist() == [
        *["fold_0", "fold_0", "fold_1", "fold_1", "fold_2", "fold_2", "prelim", "prelim"]
    ]
    assert named["subject"].tolist() == [
        "ALL-1", "HEM-1", "ALL-2", "HEM-2", "ALL-3", "HEM-3", "ALL-57", "HEM-31",
    ]  # fmt: skip
    assert named["label"].tolist() == [1, 0] * 4
    assert (cells.loc[cells["source_fold"] == "final", "label"] == UNLABELED).tolist() == [True] * 3


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


def test_labels_are_those_of_the_challenge() -> None:
    """Leukemia is the positive class; equal numbers of two classes are two subjects."""
    assert [(label.folder, int(label)) for label in Label] == [("hem", 0), ("all", 1)]


def test_order_does_not_depend_on_the_file_system(tiny_folds: Path) -> None:
    table = index_images(tiny_folds)
    assert len(table) == 16
    assert table["path"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", r"nowhere: no such folder; set data\.root=DIR"),
        ("", "no cell images in fold_"),
        ("wrong", "in folder all, but its name ends in hem"),
    ],
)
def test_folders_without_usable_images(tmp_path: Path, name: str, message: str) -> None:
    write_cell(tmp_path / "other/wrong/fold_0/all/UID_H1_1_1_hem.bmp")
    root = tmp_path / ("other/wrong" if name == "wrong" else name or "empty")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        index_images(root)


def test_unlabeled_images_are_indexed_but_do_not_train(tmp_path: Path) -> None:
    archive(tmp_path)
    data = CNMC(tmp_path, resolution=16, cache=tmp_path / "cache")
    assert set(data.targets) == {0, 1}
    assert (index_images(tmp_path)["label"] == UNLABELED).sum() == 3
    assert len(labeled_images(index_images(tmp_path))) == len(data) == 8


def test_preliminary_set_without_its_table_is_unlabeled(tmp_path: Path) -> None:
    prelim(tmp_path / "C-NMC_test_prelim_phase_data", tmp_path / CSV)
    (tmp_path / CSV).unlink()
    with pytest.raises(DataError, match=r"prelim_phase_data: no label table; put C-NMC_test_p"):
        index_images(tmp_path)
    with pytest.raises(DataError, match=r"none of the 2 images has a label; .*_labels\.csv"):
        labeled_images(index_images(tmp_path, "skip"))


def problems(root: Path) -> dict[str, str]:
    return {problem.kind: str(problem) for problem in read_cnmc(root).problems}


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (ROWS[:1], "file without row", "2.bmp: its label is missing in C-NMC_test_prelim"),
        ([*ROWS, "UID_3_1_1_all.bmp,3.bmp,1"], "row without file", "row 3 (UID_3_1_1_all)"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,2"], "unknown label", ".csv:3: UID_H31_2_1_hem"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,"], "unknown label", "and label 0 or 1"),
        ([ROWS[0], "nobody,2.bmp,0"], "unknown label", "nobody,2.bmp,0: expected UID_"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,1"], "label conflict", "name hem, but label 1"),
        ([*ROWS, "UID_H7_1_1_hem.bmp,1.bmp,0"], "label conflict", "1.bmp is UID_57_29_1_all in"),
    ],
)  # fmt: skip
def test_table_and_files_that_disagree(
    tmp_path: Path, rows: list[str], kind: str, message: str
) -> None:
    prelim(tmp_path / "C-NMC_test_prelim_phase_data", tmp_path / CSV, rows=rows)
    assert message in problems(tmp_path)[kind]
    with pytest.raises(DataError, match=r"set data\.on_corrupt=skip"):
        index_images(tmp_path)
    assert "1.bmp" in index_images(tmp_path, "skip")["path"][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "no column Patient_ID; found: a, b"), ("", "cannot be read")],
)
def test_table_of_another_kind(tmp_path: Path, text: str, message: str) -> None:
    prelim(tmp_path / "C-NMC_test_prelim_phase_data", tmp_path / CSV)
    (tmp_path / CSV).write_text(text)
    with pytest.raises(DataError, match=message):
        read_cnmc(tmp_path)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    training(tmp_path / "kept")
    (tmp_path / "fold_0").symlink_to(tmp_path / "kept/fold_0")
    (tmp_path / "kept/fold_0/again").symlink_to(tmp_path / "kept/fold_0")
    paths = index_images(tmp_path)["path"]
    assert (len(paths), paths.str.startswith("fold_0").sum()) == (6, 2)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    training(tmp_path)
    with open(os.fsencode(tmp_path) + b"/fold_0/all/caf\xe9.txt", "w"):
        pass
    assert read_cnmc(tmp_path).strays == ["fold_0/all/caf\\xe9.txt"]


def test_the_same_image_twice(tmp_path: Path) -> None:
    training(tmp_path / "one")
    training(tmp_path / "two", ".png")
    messages = [str(problem) for problem in read_cnmc(tmp_path).problems]
    assert "UID_1_1_1_all exists twice, first as one/fold_0" in messages[0]
    assert len(messages) == 6
    assert len(index_images(tmp_path, "skip")) == 6


def test_strays_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training(tmp_path)
    strays = {"fold_0/all/Thumbs.db", "fold_0/all/cell.bmp", "readme.txt", "photo.png"}
    for stray in strays:
        (tmp_path / stray).write_text("")
    assert set(read_cnmc(tmp_path).strays) == strays
    assert len(index_images(tmp_path)) == 6
    assert "Thumbs.db" in caplog.text


@pytest.mark.parametrize("layout", ["kaggle", "nested", "merged"])
def test_real_files_in_other_layouts(cnmc: Path, tmp_path: Path, layout: str) -> None:
    source = cnmc / "original/C-NMC_training_data"
    before = index_images(cnmc / "original")
    for path in source.rglob("*.bmp"):
        fold, label, name = path.relative_to(source).parts
        folders = {
            "kaggle": f"C-NMC_Leukemia/training_data/{fold}/{label}",
            "nested": f"{fold}/{fold}/{label}",
            "merged": label,
        }
        (tmp_path / folders[layout]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / folders[layout] / name)
    after = index_images(tmp_path)
    columns = ["name", "label", "subject", *(["source_fold"] if layout != "merged" else [])]
    pd.testing.assert_frame_equal(
        *(cells[columns].sort_values("name", ignore_index=True) for cells in (before, after))
    )


def test_real_images_have_the_published_counts(cnmc: Path) -> None:
    found = index_images(cnmc / "224").groupby(["source_fold", "label"])["subject"]
    assert found.agg(["size", "nunique"]).to_dict("index") == {
        ("fold_0", 0): {"size": 1130, "nunique": 9},
        ("fold_0", 1): {"size": 2397, "nunique": 19},
        ("fold_1", 0): {"size": 1163, "nunique": 3},
        ("fold_1", 1): {"size": 2418, "nunique": 11},
    }

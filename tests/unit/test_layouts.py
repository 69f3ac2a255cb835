"""Folder layouts of C-NMC and common problems of folders."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_cell

from leuk.data.labels import UNLABELED
from leuk.data.layouts import CNMC, index_images, labeled_images, read_folder
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
    index = read_folder(tmp_path)
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


def test_merged_folders_keep_the_subject(tmp_path: Path) -> None:
    write_cell(tmp_path / "all/UID_5_1_1_all.bmp")
    write_cell(tmp_path / "hem/UID_H5_1_1_hem.bmp")
    cells = index_images(tmp_path)
    assert cells["source_fold"].tolist() == ["merged", "merged"]
    assert cells["subject"].tolist() == ["ALL-5", "HEM-5"]


def test_root_may_be_the_fold_itself(tmp_path: Path) -> None:
    write_cell(tmp_path / "fold_2/hem/UID_H5_1_1_hem.bmp")
    assert index_images(tmp_path / "fold_2")["source_fold"].tolist() == ["fold_2"]


def test_root_named_like_a_test_set_of_another_project(tmp_path: Path) -> None:
    write_cell(tmp_path / "final results/all/UID_5_1_1_all.bmp")
    assert index_images(tmp_path / "final results")["source_fold"].tolist() == ["merged"]


def test_unlabeled_images_are_indexed_but_do_not_train(tmp_path: Path) -> None:
    archive(tmp_path)
    data = CNMC(tmp_path, resolution=16, cache=tmp_path / "cache")
    assert set(data.targets) == {0, 1}
    unlabeled = CNMC(tmp_path, ["final"], resolution=16, cache=tmp_path / "cache")
    assert unlabeled.targets == [UNLABELED] * 3


def test_preliminary_set_without_its_table_is_unlabeled(tmp_path: Path) -> None:
    prelim(tmp_path / "C-NMC_test_prelim_phase_data", tmp_path / CSV)
    (tmp_path / CSV).unlink()
    with pytest.raises(DataError, match=r"prelim_phase_data: no label table; put C-NMC_test_p"):
        index_images(tmp_path)
    with pytest.raises(DataError, match=r"none of the 2 images has a label; .*_labels\.csv"):
        labeled_images(index_images(tmp_path, "skip"))


def problems(root: Path) -> dict[str, str]:
    return {problem.kind: str(problem) for problem in read_folder(root).problems}


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (ROWS[:1], "file without row", "2.bmp: its label is missing in C-NMC_test_prelim"),
        ([*ROWS, "UID_3_1_1_all.bmp,3.bmp,1"], "row without file", "row 3 (UID_3_1_1_all)"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,2"], "unknown label", ".csv:3: UID_H31_2_1_hem"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,"], "unknown label", "and label 0 or 1"),
        ([ROWS[0], "nobody,2.bmp,0"], "unknown label", "nobody,2.bmp,0: expected UID_"),
        ([ROWS[0], "UID_H31_2_1_hem.bmp,2.bmp,1"], "label conflict", "name hem, but label 1"),
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
        read_folder(tmp_path)


def test_row_that_another_row_contradicts(tmp_path: Path) -> None:
    rows = [*ROWS, "UID_H777_1_1_hem.bmp,1.bmp,0"]
    prelim(tmp_path / "C-NMC_test_prelim_phase_data", tmp_path / CSV, rows=rows)
    assert "1.bmp is UID_57_29_1_all in another row" in problems(tmp_path)["label conflict"]


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
    assert read_folder(tmp_path).strays == ["fold_0/all/caf\\xe9.txt"]


def test_the_same_image_twice(tmp_path: Path) -> None:
    training(tmp_path / "one")
    training(tmp_path / "two", ".png")
    messages = [str(problem) for problem in read_folder(tmp_path).problems]
    assert "UID_1_1_1_all exists twice, first as one/fold_0" in messages[0]
    assert len(messages) == 6
    assert len(index_images(tmp_path, "skip")) == 6


def test_strays_are_listed(tmp_path: Path) -> None:
    training(tmp_path)
    for stray in ("fold_0/all/Thumbs.db", "fold_0/all/cell.bmp", "readme.txt", "photo.png"):
        (tmp_path / stray).write_text("")
    assert set(read_folder(tmp_path).strays) == {
        "fold_0/all/Thumbs.db", "fold_0/all/cell.bmp", "readme.txt", "photo.png",
    }  # fmt: skip


def test_real_names(cnmc: Path) -> None:
    cells = index_images(cnmc / "original")
    assert set(cells["source_fold"]) == {"fold_0", "fold_1", "fold_2"}
    small = cells[cells["name"].str.contains("UID_h3")]
    assert len(small) == 3
    assert set(small["subject"]) == {"HEM-3"}


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


def test_leading_zeros_do_not_make_another_subject(tmp_path: Path) -> None:
    for number in ("7", "007"):
        write_cell(tmp_path / f"fold_0/all/UID_{number}_1_1_all.bmp")
    assert read_folder(tmp_path).table["subject"].tolist() == ["ALL-7", "ALL-7"]

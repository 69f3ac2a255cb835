"""``leuk data`` through the real command line."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import write_cell

from leuk.cli import main

SMALL = ["data.images_per_fold=60", "data.size=64", "data.resolution=32"]


def test_audit_of_phantom_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", f"outputs={tmp_path}", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "linked: ALL-10 (fold_0) and ALL-11 (fold_1): 1 identical and" in printed
    assert "No problems found: 243 images, 2 patient(s) with several" in printed
    folder = tmp_path / "data/phantom"
    found = json.loads((folder / "audit.json").read_text())
    assert found["linked_patients"] == ["ALL-10+ALL-11", "HEM-8+HEM-9"]
    assert found["split"]["dropped"] == {"train: copy of another image": 2}
    page = (folder / "audit.html").read_text()
    assert page.count("Two images of the same cell") == sum(
        len(link["pairs"]) for link in found["links"]
    )
    assert 'src="http' not in page
    for recipe in ("general", "cnn", "vit", "cells"):
        assert (folder / f"augmentation-{recipe}.png").stat().st_size > 10_000


def test_audit_lists_all_problems(
    tmp_path: Path, tiny_folds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tiny_folds / "fold_0/all/UID_1_1_1_all.bmp"
    broken.write_bytes(broken.read_bytes()[:500])
    write_cell(tiny_folds / "fold_0/all/UID_1_9_1_all.bmp", size=40)
    write_cell(tiny_folds / "fold_1/all/UID_H3_9_1_hem.bmp")
    (tiny_folds / "fold_1/all/<b>note.txt").write_text("")
    arguments = ["data=cnmc", f"data.root={tiny_folds}", f"outputs={tmp_path}/out"]
    assert main(["data", *arguments]) == 1
    printed = capsys.readouterr().out
    assert "truncated BMP (expected 3126 bytes, found 500)" in printed
    assert "40 x 40 pixels; usual size: 32 x 32" in printed
    assert "label conflict: fold_1/all/UID_H3_9_1_hem.bmp: in folder all" in printed
    assert "stray: fold_1/all/<b>note.txt" in printed
    assert "images of 2 sizes (32 x 32: 15, 40 x 40: 1)" in printed
    assert "4 problem(s) to fix" in printed
    page = (tmp_path / "out/data/cnmc/audit.html").read_text()
    assert "&lt;b&gt;note.txt" in page
    assert "<b>note" not in page


def test_training_reuses_the_audit_s_images_and_warns_of_a_framing_that_cuts_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from leuk.data import decode, pixels

    monkeypatch.setattr(decode, "_CROP300", 0.3)
    chosen = [f"outputs={tmp_path}", *SMALL, "data.framing=crop300"]
    assert main(["data", *chosen]) == 0
    warning = "data.framing=crop300: more than 0.5% of the cell is outside the frame in 160 of"
    assert f"warning: {warning}" in capsys.readouterr().out
    assert warning in (tmp_path / "data/phantom/audit.html").read_text()
    monkeypatch.setattr(pixels, "decode", None)
    assert main(["train", *chosen, "fit.epochs=1", "explain=none", "trainer=cpu"]) == 0
    (path,) = (tmp_path / "runs/single").glob("*/record.json")
    assert any(one["text"].startswith(warning) for one in json.loads(path.read_text())["warnings"])


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(
    "split",
    ["folds", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "thesis"))],
)
def test_all_output_of_a_leaky_split_is_marked(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [f"split={split}", *(["split.purge=false"] if split == "folds" else [])]
    quick = ["fit.epochs=1", "explain=none", "trainer=cpu"]
    assert main(["train", f"outputs={tmp_path}", *SMALL, *quick, *chosen]) == 0
    (folder,) = (path for path in (tmp_path / "runs/single").iterdir() if path.name != "report")
    assert f"{split}_LEAKY" in folder.name
    record = json.loads((folder / "record.json").read_text())
    assert record["run"]["split"] == split
    assert record["run"]["leaky"]
    assert record["warnings"][0]["kind"] == "leaky"
    assert f",{split}_LEAKY," in (folder / "predictions.csv").read_text()
    assert "LEAKY" in (folder / "leuk.log").read_text()
    assert "LEAKY" in (tmp_path / "runs/single/report/table.md").read_text()
    assert "LEAKY" in (tmp_path / "runs/single/report/table.csv").read_text()
    assert "LEAKY" in capsys.readouterr().out


@pytest.mark.slow
def test_merged_folders_without_folds(tmp_path: Path, phantom: Path) -> None:
    for path in (phantom / "C-NMC_training_data").rglob("*.png"):
        (tmp_path / "cells" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "cells" / path.parent.name / path.name)
    arguments = [
        *("data=cnmc", f"data.root={tmp_path}/cells", "split=subject_kfold", "data.resolution=32"),
        *("fit.epochs=1", "explain=none", "trainer=cpu", f"outputs={tmp_path}/out"),
    ]
    assert main(["train", "-m", "split.fold=0,1", *arguments]) == 0
    assert len(list((tmp_path / "out/runs/single").glob("*-subject_kfold-*/record.json"))) == 2

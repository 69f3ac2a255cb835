"""``leuk explain`` through the real command line, and the choice of methods."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_cell
from PIL import Image

from leuk.cli import main
from leuk.runs.record import Record

pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ["explain_images=6", "explain_background=4", "checks=none", "trainer=cpu"]
"""Overrides for short explanations."""


@pytest.fixture
def run(finished_runs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy of a trained run, private to a test."""

    def copied(model: str) -> Path:
        target = tmp_path / "runs" / "own" / finished_runs[model].name
        return Path(shutil.copytree(finished_runs[model], target))

    return copied


def explain(folder: Path, *overrides: str) -> int:
    given = {override.split("=")[0] for override in overrides}
    kept = [override for override in QUICK if override.split("=")[0] not in given]
    return main(["explain", f"run={folder}", *kept, *overrides])


def test_explained_later_gives_the_arrays_of_the_run_itself(run: Callable[[str], Path]) -> None:
    folder = run("cnn")
    before = Record.read(folder)
    shutil.move(folder / "explanations", folder / "first")
    assert explain(folder, "explain=gradcam") == 0
    with (
        np.load(folder / "first/gradcam.npz") as first,
        np.load(folder / "explanations/gradcam.npz") as second,
    ):
        assert first.files == second.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])
    manifests = [pd.read_csv(folder / name / "manifest.csv") for name in ("first", "explanations")]
    pd.testing.assert_frame_equal(*manifests)
    after = Record.read(folder)
    assert after.metrics == before.metrics
    assert set(after.explanations) == set(before.explanations)


def test_explanations_are_replaced_only_with_consent(
    run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("vit")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for fewer, lost in (("explain=rollout", "gradcam"), ("explain_images=5", "1 of 6 explained")):
        assert explain(folder, "explain=gradcam", fewer) == 2
        assert lost in (message := capsys.readouterr().err)
        assert "name=NAME, or allow it with replace=true" in message
    kept = {path: path.read_bytes() for path in before}
    assert kept == before
    assert explain(folder, "explain=rollout", "replace=true") == 0
    assert set(Record.read(folder).explanations) == {"rollout", "cohort"}
    assert not (folder / "explanations/gradcam.npz").exists()


def test_later_methods_replace_those_of_the_record_unless_named(
    run: Callable[[str], Path],
) -> None:
    folder = run("vit")
    before = (folder / "record.json").read_bytes()
    assert explain(folder, "explain=rollout", "name=mine") == 0
    assert (folder / "explanations-mine/rollout.npz").is_file()
    assert (folder / "record.json").read_bytes() == before
    assert explain(folder, "explain=[gradcam,rollout]") == 0
    record = Record.read(folder)
    assert set(record.explanations) == {"gradcam", "rollout", "cohort"}
    for method in ("gradcam", "rollout"):
        entry = record.explanations[method]
        assert entry["images"] == 6
        assert (folder / entry["picture"]).stat().st_size > 10_000
        assert np.load(folder / entry["arrays"])["maps"].shape == (6, 32, 32)


def test_images_of_a_folder(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, images = run("cnn"), tmp_path / "new"
    for number in range(3):
        write_cell(images / f"deep/{number}.bmp", 100 + 20 * number, size=64)
    write_cell(images / "large.png", 120, size=90)
    assert explain(folder, f"images={images}", "explain=gradcam") == 2
    message = capsys.readouterr().err
    assert (
        "1 of 4 images (90 x 90: 1) do not have the size of the training images (64 x 64" in message
    )
    assert "frame=same" in message
    assert "first such image: large.png" in message
    assert not (folder / "explanations-new").exists()
    assert explain(folder, f"images={images}", "explain=gradcam", "frame=same") == 0
    manifest = pd.read_csv(folder / "explanations-new/manifest.csv")
    assert manifest["file"].tolist() == ["deep/0.bmp", "deep/1.bmp", "deep/2.bmp", "large.png"]
    assert manifest["label"].isna().all()
    assert manifest["score"].between(0, 1).all()
    summary = json.loads((folder / "explanations-new/summary.json").read_text())
    assert summary["gradcam"]["images"] == 4
    assert summary["cohort"]["outcomes"] == {"unknown": 4}


def test_test_image_in_a_folder_has_the_same_explanation(
    run: Callable[[str], Path], tmp_path: Path, phantom: Path
) -> None:
    folder = run("cnn")
    manifest = pd.read_csv(folder / "explanations/manifest.csv")
    (tmp_path / "new").mkdir()
    shutil.copy(phantom / manifest["file"][0], tmp_path / "new")
    assert explain(folder, f"images={tmp_path / 'new'}", "explain=gradcam") == 0
    again = pd.read_csv(folder / "explanations-new/manifest.csv")
    assert again["score"][0] == pytest.approx(manifest["score"][0], abs=1e-2)
    maps = [
        np.load(folder / name / "gradcam.npz")["maps"][0]
        for name in ("explanations", "explanations-new")
    ]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-6)


def test_images_beyond_the_number_explained_are_logged(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        write_cell(tmp_path / f"new/{number}.bmp", size=64)
    folder = run("cnn")
    few = ["explain_images=2", "explain=gradcam"]
    assert explain(folder, f"images={tmp_path / 'new'}", *few) == 0
    assert "explaining the first 2 of 5 images; set explain_images" in capsys.readouterr().out
    assert len(pd.read_csv(folder / "explanations-new/manifest.csv")) == 2
    (tmp_path / "two.txt").write_text("new/4.bmp\nnew/1.bmp\n")
    assert explain(folder, f"images={tmp_path / 'two.txt'}", *few) == 0
    listed = pd.read_csv(folder / "explanations-two.txt/manifest.csv")
    assert listed["file"].tolist() == ["new/4.bmp", "new/1.bmp"]


WRONG = [
    ("explain=none", "explain=none: no method to explain with"),
    ("explain=rollout", "explain=rollout: CNN has no patches; choose model=vit"),
    ("explain=gradcam explain.gradcam.layer=blocks.7", "no such layer; choose from blocks.0.0"),
    ("images=/no/where", "images=/no/where: no such file or folder"),
    ("root=/no/where explain=gradcam", "root=/no/where: "),
    ("trainer.accelerator=foo explain=gradcam", "trainer: "),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_bad_input(
    overrides: str, message: str, run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("cnn")
    before = sorted(folder.rglob("*"))
    assert explain(folder, *overrides.split(" ")) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert sorted(folder.rglob("*")) == before


def test_runs_that_cannot_be_explained(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("cnn")
    assert explain(folder.parent) == 2
    assert f"it has several runs, choose one: {folder.name}" in capsys.readouterr().err
    record = Record.read(folder)
    record.status = "running"
    record.write(folder)
    assert explain(folder) == 2
    assert "not finished (running: not finished)" in capsys.readouterr().err
    record.status = "complete"
    record.fingerprint = "another"
    record.write(folder)
    assert explain(folder) == 2
    assert "trained with other settings" in capsys.readouterr().err
    record.write(folder)
    (folder / "checkpoints/best.ckpt").unlink()
    assert explain(folder) == 2
    assert "no checkpoints/best.ckpt in it" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert explain(tmp_path / "empty") == 2
    assert "no record.json in it" in capsys.readouterr().err


def test_unreadable_images(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, images = run("cnn"), tmp_path / "new"
    images.mkdir()
    assert explain(folder, f"images={images}") == 2
    assert "no .bmp or .png images" in capsys.readouterr().err
    Image.new("RGB", (64, 64)).save(images / "black.png")
    assert explain(folder, f"images={images}", "explain=gradcam") == 2
    printed = capsys.readouterr()
    assert "black.png: no cell, all pixels are black; replace the file or remove" in printed.err
    assert not (folder / "explanations-new").exists()


def test_data_that_has_changed_or_moved(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    shutil.copytree(phantom, root)
    quick = [*QUICK, "data.resolution=32", "fit.epochs=1", "explain=none"]
    train = ["train", f"outputs={tmp_path}", "data=cnmc", f"data.root={root}", *quick]
    assert main(train) == 0
    assert main(train) == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/single/*/record.json"))
    assert Record.read(folder).explanations == {}
    moved = root.rename(tmp_path / "moved")
    assert explain(folder, "explain=gradcam") == 2
    assert f"{root}: no such folder; set the images' new folder with root=DIR" in (
        capsys.readouterr().err
    )
    assert explain(folder, "explain=gradcam", f"root={moved}") == 0
    assert Record.read(folder).explanations["gradcam"]["images"] == 6
    capsys.readouterr()
    (moved / "C-NMC_training_data/fold_1/all/UID_11_4_1_all.png").unlink()
    assert explain(folder, "explain=gradcam", f"root={moved}") == 2
    assert "not the data that" in capsys.readouterr().err
    moved.rename(root)
    assert main(train) == 2
    assert "complete on other data" in capsys.readouterr().err


@pytest.mark.slow
def test_several_runs_at_once(run: Callable[[str], Path], tmp_path: Path) -> None:
    folders = [run(model) for model in ("cnn", "vit")]
    swept = f"run={','.join(map(str, folders))}"
    arguments = ["explain", "-m", swept, f"outputs={tmp_path}", "name=two", "explain=gradcam"]
    assert main([*arguments, *QUICK]) == 0
    assert all((folder / "explanations-two/gradcam.npz").is_file() for folder in folders)


def test_methods_of_a_training_run_are_chosen_by_name_or_as_a_list(
    finished_runs: dict[str, Path],
) -> None:
    found = {name: Record.read(folder).explanations for name, folder in finished_runs.items()}
    assert all(set(entry) == {"gradcam", "cohort"} for entry in found.values())
    assert found["cnn"]["cohort"]["left_out"] == {"rollout": "CNN has no patches"}

"""``leuk predict`` through the real command line, with a run trained once."""

import html
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
from leuk.runs.finished import FinishedRun
from leuk.runs.record import Record


@pytest.fixture
def fitted(finished_runs: dict[str, Path]) -> Path:
    """Folder of a trained CNN."""
    return finished_runs["cnn"]


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """Copy of the run, private to a test."""
    return Path(shutil.copytree(fitted, tmp_path / "runs/own" / fitted.name))


Predict = Callable[..., int]


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    """``predict(run, images, ...)`` into ``tmp_path``; returns the exit code."""

    def call(run: Path, images: Path, *overrides: str) -> int:
        given = {override.split("=")[0] for override in overrides}
        few = [text for text in ["overlays=0", "trainer=cpu"] if text.split("=")[0] not in given]
        paths = [f"run={run}", f"images={images}", f"outputs={tmp_path}"]
        return main(["predict", *paths, *few, *overrides])

    return call


def results(tmp_path: Path, name: str) -> tuple[pd.DataFrame, Path]:
    (folder,) = tmp_path.glob(f"predictions/{name}/*")
    return pd.read_csv(folder / "predictions.csv"), folder


def test_images_of_a_run_s_test_stage_get_their_recorded_scores_and_decisions(
    fitted: Path,
    run: Path,
    predict: Predict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had = pd.read_csv(fitted / "predictions.csv")
    had = had[had["stage"] == "test"].reset_index(drop=True)
    root = FinishedRun.read(str(run)).data().root
    listed = tmp_path / "mine.txt"
    listed.write_text("\n".join(str(root / path) for path in had["path"]))
    # The batch size does not matter.
    assert predict(run, listed, "batch_size=7", "threshold=youden", "overlays=3") == 0
    now, folder = results(tmp_path, "mine")
    np.testing.assert_allclose(now["score"], had["score"], atol=5e-3)
    np.testing.assert_allclose(now["calibrated"], had["calibrated"], atol=5e-3)
    threshold = Record.read(run).metrics["thresholds"]["youden"]["value"]
    assert ((now["decision"] == "ALL") == (now["score"] >= threshold)).all()
    assert now["cell_found"].all()
    assert now["unfamiliar"].mean() < 0.25
    assert list(now["overlay"].dropna()) == [f"overlays/0000{n}.png" for n in (1, 2, 3)]
    for file in (*now["overlay"].dropna(), "overlays.png"):
        assert Image.open(folder / file).size > (200, 200)
    # The cached features of training images suffice from now on.
    monkeypatch.setattr(FinishedRun, "data", None)
    assert predict(run, listed, "threshold=0.5", "replace=true") == 0
    again, folder = results(tmp_path, "mine")
    pd.testing.assert_series_equal(again["distance"], now["distance"], atol=1e-4)
    assert ((again["decision"] == "ALL") == (again["score"] >= 0.5)).all()
    assert not (folder / "overlays").exists()
    assert json.loads((folder / "summary.json").read_text())["threshold"]["value"] == 0.5


def test_unusable_files_do_not_stop_the_others(
    run: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "new"
    write_cell(images / "deep/cell.bmp", size=64)
    write_cell(images / "black.png", value=0)
    write_cell(images / "<script>alert(1)<script>.png", size=64)
    write_cell(images / "=1+1.png", size=64)
    noise = np.random.default_rng(0).integers(60, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(images / "noise.png")
    Image.fromarray(noise[..., 0]).save(images / "gray.png")
    speck = np.zeros((64, 64, 3), np.uint8)
    speck[30:33, 30:33] = 200
    Image.fromarray(speck).save(images / "speck.png")
    (images / "cut.bmp").write_bytes((images / "deep/cell.bmp").read_bytes()[:500])
    (images / "photo.jpg").write_bytes(b"")
    assert predict(run, images, "overlays=9") == 1
    table, folder = results(tmp_path, "new")
    table = table.set_index("image")
    assert list(table.index) == [
        "<script>alert(1)<script>.png", "'=1+1.png", "black.png", "cut.bmp", "deep/cell.bmp",
        "gray.png", "noise.png", "speck.png",
    ]  # fmt: skip
    assert table["problem"].dropna().to_dict() == {
        "cut.bmp": "truncated BMP (expected 12342 bytes, found 500); replace the file",
        "gray.png": "L image, expected 8-bit RGB; use the color image instead",
    }
    assert table["score"].isna().to_dict() == dict.fromkeys(table.index, False) | dict.fromkeys(
        ("black.png", "cut.bmp", "gray.png"), True
    )
    why = table.loc[["black.png", "noise.png", "speck.png"], "why"].tolist()
    assert why[0] == "no cell, all pixels are black"
    assert why[1].startswith("no cell found: no black background: ")
    assert why[2].startswith("no cell found: nothing as large as a cell")
    assert table["decision"].notna().sum() == table["overlay"].notna().sum() == 3
    counts = json.loads((folder / "summary.json").read_text())["counts"]
    assert (counts["images"], counts["unreadable"], counts["without_cell"]) == (8, 2, 3)
    printed = capsys.readouterr().out
    assert "8 images, 2 unreadable, 3 without cell" in printed
    assert "skipped files of other types: 1 .jpg" in printed


def test_the_page_shows_names_as_text_and_runs_nothing(
    run: Path, predict: Predict, tmp_path: Path
) -> None:
    images = tmp_path / "new"
    for name in ("<script>alert(1)<script>.png", "a'onerror=\"x.png", "third.png"):
        write_cell(images / name, size=64)
    (images / "<b>.png").write_text("no image")
    assert predict(run, images, "overlays=1", "page_images=2", "familiarity=false") == 1
    _, folder = results(tmp_path, "new")
    page = (folder / "predictions.html").read_text()
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in html.unescape(page)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)&lt;script&gt;.png" in page
    assert page.count('width="96"') == 3
    assert "Not shown here: 1, listed in predictions.csv" in page
    assert "not compared with the training images" in page
    assert "http" not in page.replace("http-equiv", "")
    assert not (run / "familiar.npz").exists()


def test_cached_features_are_computed_again_for_other_weights(
    run: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cell(tmp_path / "new/cell.png", size=64)
    kept = run / "familiar.npz"
    assert predict(run, tmp_path / "new") == 0
    with np.load(kept) as arrays:
        first = dict(arrays)
    np.savez(kept, **first | {"key": np.array("other"), "limit": np.array(-1.0)})
    assert predict(run, tmp_path / "new", "replace=true") == 0
    assert "belongs to other weights; computing it again" in capsys.readouterr().out
    kept.write_bytes(kept.read_bytes()[:1000])
    assert predict(run, tmp_path / "new", "replace=true") == 0
    assert "cannot be read" in capsys.readouterr().out
    with np.load(kept) as arrays:
        assert arrays["limit"] == first["limit"] > 0
        np.testing.assert_array_equal(arrays["features"], first["features"])


WRONG = [
    ("run=/no/where", "run=/no/where: no such folder; name the folder of a finished run"),
    ("images=/no/where", "images=/no/where: no such file or folder"),
    ("threshold=best", "threshold=best: choose from youden, 0.5, sensitivity"),
    ("aim=1.0", "aim=1.0: it must be above 0.5 and below 1"),
    ("name=a/b", "name=a/b: it must name a single folder"),
    ("outputs=/proc/no", "/proc/no: cannot be written"),
]


@pytest.mark.parametrize(("override", "message"), WRONG, ids=[wrong for wrong, _ in WRONG])
def test_bad_input(
    override: str,
    message: str,
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_cell(tmp_path / "new/cell.png", size=64)
    given = {"run": fitted, "images": tmp_path / "new", "outputs": tmp_path / "out"}
    key, _, value = override.partition("=")
    assert main(["predict", *(f"{k}={v}" for k, v in (given | {key: value}).items())]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert not (tmp_path / "out/predictions").exists()


def test_runs_and_images_that_lack_something(
    run: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "new"
    images.mkdir()
    assert predict(run, images) == 2
    assert "no .bmp or .png images" in capsys.readouterr().err
    (images / "a.png").write_text("no image")
    assert predict(run, images) == 2
    assert "none of 1 can be read; the first: a.png: cannot be read" in capsys.readouterr().err
    write_cell(images / "cell.png", size=64)
    record = Record.read(run)
    record.metrics["thresholds"].pop("youden")
    record.write(run)
    assert predict(run, images) == 2
    assert f"{run / 'record.json'}: it lacks the threshold youden" in capsys.readouterr().err
    (run / "predictions.csv").rename(run / "else.csv")
    assert predict(run, images, "threshold=0.5") == 2
    assert f"{run / 'predictions.csv'}: the run's scores" in capsys.readouterr().err
    record.fingerprint = "another"
    record.write(run)
    (run / "else.csv").rename(run / "predictions.csv")
    assert predict(run, images, "threshold=0.5") == 2
    assert "trained with other settings" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "predictions").rglob("*") if path.is_file()]


def test_results_of_other_images_are_not_replaced(
    run: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one/new", "two/new"):
        write_cell(tmp_path / folder / "cell.png", size=64)
    assert predict(run, tmp_path / "one/new", "familiarity=false") == 0
    _, folder = results(tmp_path, "new")
    before = (folder / "predictions.csv").stat().st_mtime_ns
    assert predict(run, tmp_path / "two/new", "familiarity=false") == 2
    assert f"holds the results of {tmp_path / 'one/new'}" in capsys.readouterr().err
    assert (folder / "predictions.csv").stat().st_mtime_ns == before
    (folder / "summary.json").unlink()
    assert predict(run, tmp_path / "one/new", "familiarity=false") == 2
    assert "no readable summary.json" in capsys.readouterr().err


def test_patients_get_a_score_from_all_their_images(
    fitted: Path, phantom: Path, predict: Predict, tmp_path: Path
) -> None:
    images = next(phantom.rglob("fold_1/all"))
    assert predict(fitted, images, "name=by", "patients=cnmc", "overlays=2") == 0
    table, folder = results(tmp_path, "by")
    patients = pd.read_csv(folder / "patients.csv", dtype={"patient": str})
    numbers = table["image"].str.extract(r"UID_(\w+?)_")[0]
    assert patients["patient"].tolist() == sorted(set(numbers))
    for row in patients.itertuples():
        own = table[(numbers == row.patient) & (table["scale"] != "doubtful")]
        assert row.images + row.left_out == (numbers == row.patient).sum()
        assert row.images == len(own)
        odds = np.log(own["calibrated"] / (1 - own["calibrated"])).mean()
        assert row.score == pytest.approx(1 / (1 + np.exp(-odds)))
        assert (
            own["calibrated"].max() == own.set_index("image")["calibrated"][row.most_suspicious_1]
        )
        assert (
            own["calibrated"].min() == own.set_index("image")["calibrated"][row.least_suspicious_1]
        )
    assert "Patients" in (folder / "predictions.html").read_text()
    assert table["overlay"].notna().sum() == 2

    # A table names the patients of some images; the others have none.
    names = tmp_path / "patients.csv"
    names.write_text(f"image,patient\n{table['image'][0]},007\n{table['image'][1]},NA\n")
    assert predict(fitted, images, "name=table", f"patients={names}") == 0
    _, folder = results(tmp_path, "table")
    named = pd.read_csv(folder / "patients.csv", dtype=str, keep_default_na=False)
    assert named["patient"].tolist() == ["007", "NA"]


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        ("nowhere.csv", "not a CSV file with columns image and patient"),
        ("'UID_('", "not a regular expression"),
        ("'UID_'", "it needs a group for the patient"),
        ("'no(thing)'", "it gives no patient for any image"),
    ],
)
def test_patients_that_cannot_be_read_are_refused(
    fitted: Path,
    phantom: Path,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
    patients: str,
    message: str,
) -> None:
    assert predict(fitted, next(phantom.rglob("fold_1/all")), f"patients={patients}") == 2
    assert message in " ".join(capsys.readouterr().err.split())

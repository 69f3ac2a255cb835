"""Image folders in various layouts, through the real command line."""

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_cell
from lightning.pytorch import Trainer
from PIL import Image

from leuk.cli import main
from leuk.explain.gradcam import GradCAM
from leuk.runs import evaluate as evaluation
from leuk.runs.record import Record

Leuk = Callable[..., int]

pytestmark = pytest.mark.usefixtures("blank_figures")

CSV = "C-NMC_test_prelim_phase_data_labels.csv"
QUICK = ["fit.epochs=1", "data.batch_size=4", "explain=none", "trainer=cpu", "split.val=0.5"]


def whiten(path: Path, level: int = 255) -> None:
    """Give an image a bright, slightly noisy background, as an unsegmented one has."""
    pixels = np.asarray(Image.open(path)).copy()
    noise = np.random.default_rng(0).integers(-5, 6, pixels.shape)
    bright = np.clip(level + noise, 0, 255).astype(np.uint8)
    Image.fromarray(np.where(pixels.max(axis=2, keepdims=True) > 0, pixels, bright)).save(path)


def cnmc(root: Path, outputs: Path, *overrides: str) -> list[str]:
    """Overrides for a folder of tiny images."""
    return [
        "data=cnmc",
        f"data.root={root}",
        "data.resolution=32",
        f"outputs={outputs}",
        *overrides,
    ]


def report(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the output of ``leuk data`` from the verdict on, without the log."""
    lines = capsys.readouterr().out.splitlines()
    verdicts = [
        number
        for number, line in enumerate(lines)
        if line.startswith("No problems found") or "problem(s) to fix" in line
    ]
    assert len(verdicts) == 1
    return "\n".join(lines[verdicts[0] :])


@pytest.fixture
def folder(tmp_path: Path, phantom: Path) -> Path:
    """Phantom images of two folds and the test sets, private to a test."""
    root = Path(shutil.copytree(phantom, tmp_path / "images"))
    shutil.rmtree(root / "C-NMC_training_data/fold_2")
    return root


def training_files(root: Path, fold: str = "fold_*") -> list[Path]:
    return sorted((root / "C-NMC_training_data").glob(f"{fold}/*/*.png"))


@pytest.mark.parametrize("level", [255, 30])
def test_bright_backgrounds_are_found_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], level: int
) -> None:
    for path in training_files(folder):
        whiten(path, level)
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 1
    shown = report(capsys)
    assert "120 background" in shown.splitlines()[0]
    assert "its background is not black; set everything but the cell to black" in shown
    assert "background: and 110 more in findings.csv" in shown
    assert "nearly identical pairs" not in shown.replace("0 nearly identical pairs", "")
    assert main(["train", *cnmc(folder, tmp_path / "out", *QUICK)]) == 1
    shown = capsys.readouterr().out
    assert "20 of 20 hem images of test" in shown
    assert "have a background that is not black" in shown
    assert "training on" not in shown
    synthesis = cnmc(folder, tmp_path / "out", "gan_fit.epochs=1", "extractor.side=64")
    assert main(["synthesize", *synthesis]) == 2
    assert "background that is not black" in capsys.readouterr().err


def test_single_bright_backgrounds_are_listed_and_allowed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = training_files(folder, "fold_1")[::5]
    for path in changed:
        whiten(path)
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 1
    assert f"{len(changed)} background" in report(capsys).splitlines()[0]
    explained = ["explain=gradcam", "explain_images=2"]
    chosen = [text for text in QUICK if not text.startswith("explain")] + explained
    assert main(["train", *cnmc(folder, tmp_path / "out", *chosen)]) == 0
    (path,) = tmp_path.glob("out/runs/single/*/record.json")
    texts = [one.text for one in Record.read(path.parent).warnings]
    (warning,) = [text for text in texts if "background" in text]
    assert len(changed) == 12
    assert warning.startswith("background: 12 of ")
    assert sum(path.name in warning for path in changed) == 10
    assert " and 2 more; set everything but the cell to black" in warning


def test_new_images_with_a_bright_background(
    finished_runs: dict[str, Path],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cnn = finished_runs["cnn"]
    copy = shutil.copytree(cnn, tmp_path / "runs/own" / cnn.name)
    new = tmp_path / "new"
    new.mkdir()
    for number, source in enumerate(training_files(folder)[:13]):
        shutil.copy(source, new / f"{number:02}.png")
        if number:
            whiten(new / f"{number:02}.png")
    # Reduced and pasted on black: only the surroundings are black.
    framed = Image.new("RGB", (64, 64))
    framed.paste(Image.open(new / "01.png").resize((32, 32)), (16, 16))
    framed.save(new / "01.png")
    capsys.readouterr()
    run = [f"run={copy}", f"images={new}", "trainer=cpu"]
    assert main(["predict", *run, f"outputs={tmp_path / 'out'}", "familiarity=false"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "12 of 13 images show no segmented cell on black and are referred to an expert" in shown
    assert "and 2 more; set everything but the cell to black" in shown
    assert main(["explain", *run, "explain=gradcam", "explain_images=13", "checks=none"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "12 of 13 images have a background that is not black" in shown


def test_a_failure_after_training_keeps_the_weights(
    leuk: Leuk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a later stage went wrong")

    chosen = ["fit.epochs=1", "explain=gradcam", "explain_images=2"]
    kept: list[bytes] = []
    for owner, name in (
        (GradCAM, "attribute"),
        (evaluation, "assess_area"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(owner, name, fail)
            assert leuk("train", *chosen) == 1
        shown = capsys.readouterr().out
        assert "the trained weights are kept; repeat the command to resume with the test" in shown
        (path,) = tmp_path.glob("runs/single/*/checkpoints/best.ckpt")
        kept.append(path.read_bytes())
        monkeypatch.setattr(Trainer, "fit", fail)
    assert leuk("train", *chosen) == 0
    assert {*kept, path.read_bytes()} == {kept[0]}
    assert Record.read(path.parents[1]).status == "complete"


def jpeg(root: Path, source: Path) -> None:
    for path in training_files(source):
        target = root / path.relative_to(source).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target)


def other_classes(root: Path, source: Path) -> None:
    for path in training_files(source):
        target = root / {"all": "leukemic", "hem": "normal"}[path.parent.name] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def flat(root: Path, source: Path) -> None:
    (root / "images").mkdir(parents=True)
    for number, path in enumerate(training_files(source)):
        shutil.copy(path, root / f"images/im{number:03}.png")
    (root / "labels.csv").write_text("file,label\n")


def archive(root: Path, _: Path) -> None:
    root.mkdir()
    (root / "C-NMC.zip").write_bytes(b"PK")


@pytest.mark.parametrize(
    ("layout", "messages"),
    [
        (jpeg, ["180 .jpg in C-NMC_training_data/fold_", "(40)", "save .jpg as PNG; JPEG changes"]),
        (other_classes, ["180 .png", "rename the folders: leukemic to all, normal to hem"]),
        (
            flat,
            [
                "180 .png, 1 .csv in images/ (180), such as im000.png, im001.png, im002.png",
                "rename the images to UID_<subject>_<image>_<cell>_all or ..._hem",
                "label tables are supported only for the preliminary set",
                "leuk predict run=RUN images=DIR reads images of any name",
                "a folder all, the healthy ones into a folder hem",
            ],
        ),
        (archive, ["1 .zip", "unpack C-NMC.zip"]),
    ],
)
def test_a_folder_without_usable_images_is_described(
    layout: Callable[[Path, Path], None],
    messages: list[str],
    phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout(tmp_path / "mine", phantom)
    assert main(["data", *cnmc(tmp_path / "mine", tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    for message in ["expected: BMP or PNG images named UID_<subject>", *messages]:
        assert message in shown
    assert len(shown) < 1500
    if layout is flat:
        assert main(["train", *cnmc(tmp_path / "mine", tmp_path / "out", *QUICK)]) == 1
        assert messages[0] in capsys.readouterr().out.replace("\n", "")


def test_names_in_capitals_are_read(
    tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in tiny_folds.glob("*/*/*.bmp"):
        path.rename(path.with_name(path.name.upper()))
    for path in tiny_folds.glob("fold_*/*"):
        path.rename(path.with_name(path.name.upper()))
    assert main(["data", *cnmc(tiny_folds, tmp_path / "out")]) == 0
    assert "No problems found: 16 images" in report(capsys)


@pytest.mark.parametrize(
    ("tree", "store"),
    [
        ("hub/snapshots/0a1b", "hub/blobs"),
        ("annexed", "annexed/.git/annex/objects/x"),
        ("tracked", "tracked/.dvc/cache/files"),
    ],
)
def test_links_of_a_download_are_followed(
    tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: str, store: str
) -> None:
    (tmp_path / store).mkdir(parents=True)
    for number, path in enumerate(sorted(tiny_folds.rglob("*.bmp"))):
        link = tmp_path / tree / "data" / path.relative_to(tiny_folds)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / store / f"{number:064x}")
        link.symlink_to(tmp_path / store / f"{number:064x}")
    # Other files beside the store stay out of reach.
    write_cell(tmp_path / "hub/private.bmp")
    stray = tmp_path / tree / "data/fold_0/all/UID_77_1_1_all.bmp"
    for root in (tmp_path / tree, tmp_path / tree / "data"):
        assert main(["data", *cnmc(root, tmp_path / "out"), "replace=true"]) == 0
        assert "No problems found: 16 images" in report(capsys)
    stray.symlink_to(tmp_path / "hub/private.bmp")
    assert main(["data", *cnmc(tmp_path / tree / "data", tmp_path / "out")]) == 1
    shown = report(capsys)
    assert "a link that leads out of the folder" in shown
    assert "cp -rL" in shown


def merged(root: Path, source: Path) -> None:
    for path in training_files(source):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.parent.name / path.name)


def one_fold_and_prelim(root: Path, source: Path) -> None:
    shutil.copytree(source, root)
    for fold in ("fold_1", "fold_2"):
        shutil.rmtree(root / "C-NMC_training_data" / fold)


@pytest.mark.parametrize(
    ("layout", "fits"),
    [
        (merged, "split=subject_kfold"),
        (one_fold_and_prelim, "split=folds 'split.train=[fold_0]' 'split.test=[prelim]'"),
    ],
)
def test_a_default_split_that_does_not_fit_is_no_problem_of_the_files(
    layout: Callable[[Path, Path], None],
    fits: str,
    phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    layout(tmp_path / "mine", phantom)
    arguments = cnmc(tmp_path / "mine", tmp_path / "out")
    assert main(["data", *arguments]) == 0
    first, second = report(capsys).splitlines()[:2]
    assert first.startswith("No problems found: ")
    assert second.startswith("The split folds does not fit: split.")
    assert second.endswith(f"This split fits: {fits}")
    page = (tmp_path / "out/data/cnmc/audit.html").read_text()
    assert "The split folds does not fit" in page
    assert main(["data", *arguments, "split=subject_kfold", "split.n_folds=30"]) == 1
    assert "split: subject_kfold: split.n_folds=30" in report(capsys)
    assert main(["data", *arguments, *shlex.split(fits)]) == 0
    assert "does not fit" not in report(capsys)


@pytest.mark.parametrize("kept", ["C-NMC_test_final_phase_data", "one subject"])
def test_files_that_no_split_fits(
    kept: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kept == "one subject":
        for path in training_files(folder):
            if "UID_1_" not in path.name and "UID_H1_" not in path.name:
                path.unlink()
        folder /= "C-NMC_training_data"
    else:
        folder /= kept
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 1
    shown = report(capsys)
    assert shown.startswith("1 problem(s) to fix (1 split)")
    assert "This split fits" not in shown


def findings(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out/data/cnmc/findings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_skipped_for_their_names_are_in_the_verdict(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in training_files(folder)[:35]:
        shutil.copy(path, path.with_name(f"{path.stem} (2).png"))
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 1
    shown = report(capsys)
    assert shown.startswith("35 problem(s) to fix (35 image not read): ")
    assert shown.count(" (2).png") == 10
    assert "image not read: and 25 more in findings.csv" in shown
    assert "rename it, or remove it if it is a copy" in shown
    assert sum(row["kind"] == "image not read" for row in findings(tmp_path)) == 35
    assert (tmp_path / "out/data/cnmc/audit.html").read_text().count(" (2).png") == 10
    assert main(["train", *cnmc(folder, tmp_path / "out", "split.test=[nowhere]")]) == 1
    assert "35 images not read, leuk data gives the reasons" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["validation", "data"])
def test_a_renamed_preliminary_set_is_one_problem(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "C-NMC_test_prelim_phase_data").rename(folder / name)
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 1
    shown = report(capsys)
    assert shown.startswith("1 problem(s) to fix (1 folder not read): ")
    assert f"folder not read: {name}: 60 of its images have the numbers of the 60 rows" in shown
    assert "rename the folder to C-NMC_test_prelim_phase_data" in shown
    (folder / CSV).unlink()
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == (name != "data")
    shown = report(capsys)
    assert shown.count("rename its folder") == (10 if name != "data" else 0)


def test_metadata_of_an_archive_is_counted_not_listed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(training_files(folder))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "Thumbs.db":
            beside = tmp_path / "images/__MACOSX" / path.relative_to(folder).parent
            beside.mkdir(parents=True, exist_ok=True)
            (beside / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00\xff")
            path.with_name(".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 0
    shown = report(capsys)
    assert shown.startswith("No problems found: ")
    assert "operating system file(s) ignored, such as " in shown
    assert shown.count("__MACOSX") + shown.count(".DS_Store") == 1
    assert len(shown.splitlines()) < 40
    assert sum(row["kind"] == "system file" for row in findings(tmp_path)) > before
    page = (tmp_path / "out/data/cnmc/audit.html").read_text()
    assert page.count("__MACOSX") + page.count(".DS_Store") == 1


def test_many_problems_of_a_kind_fit_a_screen(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, path in enumerate(training_files(folder, "fold_0")):
        if number % 2:
            path.write_bytes(path.read_bytes()[:200])
        for copy in range(2):
            (folder / f"notes {number} {copy}.txt").write_text("")
    for path in (folder / "C-NMC_test_prelim_phase_data").iterdir():
        path.unlink()
    assert main(["data", *cnmc(folder, tmp_path / "out")]) == 1
    shown = report(capsys)
    assert shown.startswith("90 problem(s) to fix (60 row without file, 30 corrupt): ")
    assert shown.count("row without file: C-NMC") == 10
    assert "corrupt: and 20 more in findings.csv" in shown
    assert "stray: and 110 more in findings.csv" in shown
    assert len(findings(tmp_path)) == 90 + 121
    page = (tmp_path / "out/data/cnmc/audit.html").read_text()
    assert page.count("cannot be read") == 10

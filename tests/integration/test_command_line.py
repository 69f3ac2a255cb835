"""Command lines in practice: user configs, pipes, ``~``, and the syntax of other tools."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL, write_cell
from PIL import Image

from leuk.cli import main
from leuk.runs.record import Record

Leuk = Callable[..., int]

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Folder of a user's own configs."""
    folder = tmp_path / "my configs"
    files = {
        "experiment/mine.yaml": "# @package _global_\nfit:\n  patience: 4\n",
        "experiment/mine_sweep.yaml": (
            "# @package _global_\nname: swept\nhydra:\n  sweeper:\n    params:\n"
            "      model: cnn,vit\n"
        ),
        "experiment/tab.yaml": "# @package _global_\nfit:\n\tpatience: 4\n",
        "experiment/typo.yaml": "# @package _global_\nfit:\n  patiense: 4\n",
        "experiment/one.yaml": "# @package _global_\nsplit:\n  train: fold_0\n",
        "data/mine.yaml": "defaults:\n  - phantom\n  - _self_\nresolution: 48\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, artifacts: Path, blank_figures: None) -> Path:
    """Folder of a complete run."""
    outputs = tmp_path_factory.mktemp("fitted")
    assert main(["train", f"outputs={outputs}", f"data.cache={artifacts}", *SMALL]) == 0
    (record,) = outputs.glob("runs/single/*/record.json")
    return record.parent


def test_an_experiment_of_the_user_takes_overrides(leuk: Leuk, own: Path) -> None:
    mine = [f'hydra.searchpath=["{own}"]', "experiment=mine"]
    assert leuk("train", *mine, "fit.epochs=1", "explain=none") == 0
    (path,) = own.parent.glob("runs/single/*/record.json")
    assert Record.read(path.parent).settings["fit"]["patience"] == 4


def test_a_sweep_and_data_of_the_user(
    leuk: Leuk, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["-m", "experiment=mine_sweep", "data=mine", "fit.patience=3", "data.size=64"]
    assert leuk("train", "--config-dir", str(own), *overrides, "--dry-run") == 0
    assert "2 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("tab", r"experiment/tab.yaml, line 3: not YAML: .*spaces, not tabs"),
        ("typo", r"experiment/typo.yaml: .*Key 'patiense' not in 'FitConfig'"),
        ("min", r"experiment=min: no experiment min; did you mean mine\?"),
        ("one", r"split.train=fold_0: a list is needed; write split.train=\[fold_0\]"),
    ],
)
def test_a_fault_in_a_config_of_the_user_is_located(
    own: Path, capsys: pytest.CaptureFixture[str], experiment: str, message: str
) -> None:
    command = ["train", "--config-dir", str(own), f"experiment={experiment}", "fit.epochs=2"]
    assert main([*command, f"outputs={own.parent}/out"]) == 2
    shown = capsys.readouterr()
    assert re.search(message, shown.err)
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict images=x checkpoint=y", "did you mean run?"),
        ("predict run=x data=y", "no key data; did you mean images?"),
        ("report run=x", "did you mean name?"),
        ("report experiment=grid", "no key experiment; known: latency_ms, name, outputs"),
        ("data root=/x", "did you mean data=cnmc data.root?"),
    ],
)
def test_each_command_names_its_own_keys(
    capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    assert main(command.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "accelerator"),
    [
        ("train", "trainer.accelerator=cuda"),
        ("train --dry-run", "trainer=gpu"),
        ("synthesize", "trainer=gpu"),
        ("predict", "trainer=gpu"),
        ("explain", "trainer.accelerator=cuda"),
    ],
)
def test_a_gpu_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    accelerator: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_cell(tmp_path / "new/cell.png", size=64)
    of_run = [f"run={fitted}", *([f"images={tmp_path}/new"] if command == "predict" else [])]
    rest = of_run if command in ("predict", "explain") else []
    assert main([*command.split(), f"outputs={tmp_path}/o", *rest, accelerator]) == 2
    assert f"leuk: {accelerator}: no CUDA device (" in (shown := capsys.readouterr().err)
    assert "); choose trainer=cpu, or trainer=auto" in shown
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("scalar", "listed"),
    [
        ("split.train=fold_1", "split.train=[fold_1]"),
        ("augmentation.classes=all", "augmentation.classes=[all]"),
        ("-m split.train=fold_0,fold_1", "-m split.train=[fold_0],[fold_1]"),
    ],
)
def test_one_value_is_a_list_of_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scalar: str, listed: str
) -> None:
    shown = []
    for overrides in (scalar, listed):
        augmented = ["augmentation=oversample", f"outputs={tmp_path}", "--dry-run"]
        assert main(["train", *overrides.split(), *augmented]) == 0
        lines = capsys.readouterr().out.splitlines()
        shown.append([line for line in lines if "missing" in line])
    assert shown[0]
    assert shown[0] == shown[1]


def test_too_few_synthetic_images_are_refused_before_the_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["synthesize", f"outputs={tmp_path}", "augmentation.count=9"]) == 2
    assert "augmentation.count=9: distances between sets need 10" in capsys.readouterr().err


def test_missing_explanations_of_a_complete_run_name_the_command(
    leuk: Leuk, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted.parents[2], tmp_path, dirs_exist_ok=True)
    assert leuk("train", "explain=lime") == 0
    shown = capsys.readouterr().out
    assert re.search("not explained with lime.*; use leuk explain run=", " ".join(shown.split()))


def test_quoting_advice_works(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folds: Path
) -> None:
    root = tiny_folds.rename(tmp_path / "Zellen (größer)")
    assert main(["train", "data=cnmc", f"data.root={root}", "--dry-run"]) == 2
    advice = capsys.readouterr().err.partition("quote the value: ")[2].strip().strip("'")
    assert main(["train", "data=cnmc", advice, f"outputs={tmp_path}/o", "--dry-run"]) == 0


def test_one_run_of_a_sweep_is_announced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = ["train", "experiment=grid", f"outputs={tmp_path}", "--dry-run"]
    assert main(grid) == 0
    assert "add -m for all runs" in capsys.readouterr().err
    assert main([*grid, "-m", "model=glob(*,exclude=pretrained)", "augmentation=none"]) == 0
    assert "3 of 3" in capsys.readouterr().out
    assert main([*grid, "model=vit", "augmentation=none"]) == 0
    assert "add -m" not in capsys.readouterr().err


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], quote: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "data=cnmc", f"data.root={quote}~/nowhere{quote}"]) == 2
    assert f"data.root={tmp_path}/nowhere: no such folder" in capsys.readouterr().err
    assert main(["predict", f"run={quote}~{quote}", "images=x"]) == 2
    assert f"run={tmp_path}: " in capsys.readouterr().err
    assert main(["train", f"outputs={quote}~/o{quote}", "--dry-run"]) == 0
    assert f"free in {tmp_path}" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["predict", "explain", "export"])
def test_a_missing_run_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert "run has no value; set it: run=FOLDER" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"leuk \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "--help"], {0, 141}),
        pytest.param(["train", *SMALL], {141}, marks=pytest.mark.slow),
    ],
)
def test_closed_output_pipe_ends_the_command_in_order(
    arguments: list[str], code: set[int], tmp_path: Path, artifacts: Path
) -> None:
    folders = [f"outputs={tmp_path}", f"data.cache={artifacts}"]
    overrides = [] if "--help" in arguments else folders
    process = subprocess.Popen(
        [sys.executable, "-m", "leuk", *arguments, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(timeout=120) in code
    assert "BrokenPipeError" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (["predict", "images={images}", "overlays=2", "familiarity=false"], "predictions/new/*"),
        (["export", "format=safetensors"], "exports/single/*/safetensors"),
    ],
)
def test_results_are_replaced_only_with_consent(
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    folder: str,
) -> None:
    for name in ("one.png", "two.png"):
        write_cell(tmp_path / "new" / name, size=64)
    name, *rest = [text.format(images=tmp_path / "new") for text in command]
    again = [name, f"run={fitted}", f"outputs={tmp_path}/o", *rest]
    assert main(again) == 0
    (results,) = (tmp_path / "o").glob(folder)
    for path in results.glob("*.*"):
        if path.suffix == ".csv":
            path.write_text("my remarks")
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert main(again) == 2
    assert (
        "earlier results would be lost; choose another folder with name=NAME"
        in capsys.readouterr().err
    )
    (results / "notes.txt").write_text("mine")
    assert main([*again, "replace=true"]) == 2
    assert f"{results}: notes.txt is not leuk's and would be lost" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}
    (results / "notes.txt").unlink()
    assert main([*again, "replace=true"]) == 0
    assert all(path.stat().st_mtime_ns != time for path, time in before.items())


def test_synthetic_images_are_reused_or_kept(
    tiny_folds: Path,
    tmp_path: Path,
    small_synthesis: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(20):
        for label, prefix in (("all", ""), ("hem", "H")):
            for fold in (0, 1):
                name = f"UID_{prefix}{2 * fold + 1 + number % 2}_{number + 5}_1_{label}.bmp"
                write_cell(tiny_folds / f"fold_{fold}" / label / name, 90 + number)
    phantom = ("data.images_per_fold", "data.size")
    small = [text for text in small_synthesis if not text.startswith(phantom)]
    split = ["split.train=[fold_0]", "split.val=0.5", "split.test=[fold_1]"]
    of = [*small, *split, "data=cnmc", f"outputs={tmp_path}/o", "augmentation.count=12"]
    assert main(["synthesize", *of, f"data.root={tiny_folds}"]) == 0
    (quality,) = tmp_path.glob("o/synthetic/single/*/quality.json")
    mine = quality.parent / "balanced/mine.txt"
    mine.write_text("mine")
    first = quality.read_text()
    assert main(["synthesize", *of, f"data.root={tiny_folds}"]) == 0
    assert quality.read_text() == first
    assert mine.exists()
    other = tiny_folds.rename(tmp_path / "other")
    write_cell(other / "fold_0/hem/UID_H1_99_1_hem.bmp")
    assert main(["synthesize", *of, f"data.root={other}"]) == 2
    assert "images of other data or settings would be lost; choose" in capsys.readouterr().err
    assert quality.read_text() == first
    # As a stop after the images were written leaves it.
    quality.unlink()
    assert main(["synthesize", *of, f"data.root={other}"]) == 2
    assert f"{mine.parent}: images of other data" in capsys.readouterr().err
    assert main(["synthesize", *of, f"data.root={other}", "replace=true"]) == 0
    assert quality.read_text() != first


def test_an_audit_of_another_folder_is_kept(
    tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = ["data", "data=cnmc", "data.resolution=32", f"outputs={tmp_path}/o"]
    main([*audit, f"data.root={tiny_folds}"])
    path = tmp_path / "o/data/cnmc/audit.json"
    (path.parent / "notes.txt").write_text("mine")
    first = path.stat().st_mtime_ns
    main([*audit, f"data.root={tiny_folds}"])
    before = path.stat().st_mtime_ns
    assert before != first
    other = tiny_folds.rename(tmp_path / "other")
    assert main([*audit, f"data.root={other}"]) == 2
    assert f"the audit of {tiny_folds} would be lost; choose another" in capsys.readouterr().err
    assert path.stat().st_mtime_ns == before
    main([*audit, f"data.root={other}", "replace=true"])
    assert path.stat().st_mtime_ns != before
    assert (path.parent / "notes.txt").exists()


def test_a_report_replaces_its_own_files_alone(fitted: Path) -> None:
    report = ["report", f"outputs={fitted.parents[2]}"]
    assert main(report) == 0
    folder = fitted.parent / "report"
    mine = [folder / "notes.md", folder / "figures/mine.png"]
    for path in mine:
        path.write_text("mine")
    assert main(report) == 0
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert not (folder / "report.log").exists()


def test_explanations_of_other_images_of_the_same_name_are_kept(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        write_cell(tmp_path / folder / "new/cell.png", size=64)
    explain = ["explain", f"run={fitted}", "explain=gradcam", "checks=none", "explain_images=1"]
    assert main([*explain, f"images={tmp_path}/one/new"]) == 0
    assert main([*explain, f"images={tmp_path}/two/new"]) == 2
    assert f"explanations of {tmp_path}/one/new would be lost" in capsys.readouterr().err
    assert main([*explain, f"images={tmp_path}/two/new", "replace=true"]) == 0


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "run={run}", "images={empty}"],
        ["predict", "run={run}", "images={text}", "familiarity=false"],
        ["predict", "-m", "run={run}", "images={empty},{text}"],
        ["export", "run={empty}"],
        ["export", "run={run}", "format=safetensors", "tolerance=1e-30"],
        ["synthesize", "extractor=classifier", "extractor.run={empty}"],
        ["explain", "run={run}", "images={text}", "name=x"],
        ["report", "name=x"],
        ["data", "data=cnmc", "data.root={empty}"],
        ["train", "model.widths=[0]"],
    ],
)
def test_a_refused_command_leaves_no_folder(
    fitted: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/cell.png").write_text("no image")
    paths = {"run": fitted, "empty": tmp_path / "empty", "text": tmp_path / "text"}
    before = set(fitted.rglob("*"))
    given = [text.format(**paths) for text in command]
    assert main([*given, f"outputs={tmp_path}/deep/o"]) == 2
    assert not (tmp_path / "deep").exists()
    assert set(fitted.rglob("*")) == before


def test_opaque_png_of_an_image_editor(
    fitted: Path, tiny_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in tiny_folds.rglob("*.bmp"):
        with Image.open(path) as image:
            image.convert("RGBA").save(path.with_suffix(".png"))
        path.unlink()
    given = [f"run={fitted}", f"images={tiny_folds}/fold_0", "frame=same", "overlays=0"]
    assert main(["predict", *given, f"outputs={tmp_path}/o", "familiarity=false"]) == 0
    shown = capsys.readouterr()
    assert "RGBA" not in shown.out + shown.err


def test_baselines_of_two_data_sets_in_one_sweep_name_them(
    fitted: Path, tiny_folds: Path, tmp_path: Path
) -> None:
    shutil.copytree(fitted.parents[2] / "runs", tmp_path / "o/runs")
    real = [
        "data=cnmc", f"data.root={tiny_folds}", "data.resolution=32", "split.train=[fold_0]",
        "split.val=0.5", "split.test=[fold_1]", f"outputs={tmp_path}/o",
    ]  # fmt: skip
    assert main(["train", *real, "explain=none", "fit.epochs=1", "trainer=cpu"]) == 0
    shown = (tmp_path / "o/runs/single/report/table.md").read_text()
    named = [shown.count(f"baseline: area ({data})") for data in ("phantom", "cnmc")]
    assert named[0] == named[1] > 0
    assert shown.count("baseline: area") == sum(named)

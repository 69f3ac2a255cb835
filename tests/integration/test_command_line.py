"""Command lines in practice: user configs, pipes, ``~``, and the syntax of other tools."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leuk.cli import main
from leuk.grid.record import Record

Leuk = Callable[..., int]


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
        "data/mine.yaml": "defaults:\n  - phantom\n  - _self_\nresolution: 48\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("way", ["--config-dir", "searchpath"])
def test_an_experiment_of_the_user_takes_overrides(leuk: Leuk, own: Path, way: str) -> None:
    found = ["--config-dir", str(own)] if way == "--config-dir" else [f'hydra.searchpath=["{own}"]']
    assert leuk("train", *found, "experiment=mine", "fit.epochs=1", "explain=none") == 0
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
    ("arguments", "message"),
    [
        (["callbacks.checkpoint=null"], "the weights would be lost"),
        (["+trainer.fast_dev_run=true"], "for a short run set fit.epochs=1"),
        (["+trainer.check_val_every_n_epoch=10", "fit.epochs=2"], "no validation in 2 epochs"),
        (["+trainer.limit_val_batches=0"], "without validation there is no checkpoint"),
        (["trainer.precision=bf16-true"], "choose 32-true, bf16-mixed, 16-mixed"),
        (["trainer.precision=16-true"], "choose 32-true, bf16-mixed, 16-mixed"),
        (["augmentation.count=50"], "augmentation=none adds no images"),
        (["augmentation=class_weights", "augmentation.count=50"], "class_weights adds no images"),
        (["lr=1e-3"], "no key lr; did you mean model.optim.learning_rate?"),
        (["model.lr=1e-3"], "no key model.lr; did you mean model.optim.learning_rate?"),
        (["gpus=1"], "no key gpus; did you mean trainer=gpu trainer.devices?"),
        (["epochs=3"], "no key epochs; did you mean fit.epochs?"),
        (["batch_size=8"], "no key batch_size; did you mean data.batch_size?"),
        (["-m", "experiment=demo,grid"], "run one leuk command per experiment"),
        (["hydra.run.dir=/x"], "leuk names its folders itself; set outputs=DIR and name=NAME"),
        (["-m", "hydra.sweep.dir=/x"], "set outputs=DIR and name=NAME"),
        (["data=cnmc", "data.root=/tmp/a (1)"], """quote the value: 'data.root="/tmp/a (1)"'"""),
        (["data=cnmc", "data.root=/tmp/größe"], """quote the value: 'data.root="/tmp/größe"'"""),
    ],
)
def test_habits_from_elsewhere_get_advice(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_too_few_synthetic_images_are_refused_before_the_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["synthesize", f"outputs={tmp_path}", "augmentation.count=9"]) == 2
    assert "augmentation.count=9: distances between sets need 10" in capsys.readouterr().err


def test_missing_explanations_of_a_complete_run_name_the_command(
    leuk: Leuk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leuk("train", "explain=none", "fit.epochs=1") == 0
    capsys.readouterr()
    assert leuk("train", "explain=gradcam", "fit.epochs=1") == 0
    assert "not explained with gradcam; use leuk explain run=" in capsys.readouterr().out


def test_quoting_advice_works(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folds: Path
) -> None:
    root = tiny_folds.rename(tmp_path / "Zellen (größer)")
    assert main(["train", "data=cnmc", f"data.root={root}", "--dry-run"]) == 2
    advice = capsys.readouterr().err.partition("quote the value: ")[2].strip().strip("'")
    assert main(["train", "data=cnmc", advice, f"outputs={tmp_path}/o", "--dry-run"]) == 0


def test_options_by_a_pattern(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    models = ["-m", "model=glob(*,exclude=pretrained)"]
    assert main(["train", *models, f"outputs={tmp_path}", "--dry-run"]) == 0
    assert "3 of 3" in capsys.readouterr().out


def test_one_run_of_a_sweep_is_announced(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = ["train", "experiment=grid", f"outputs={tmp_path}", "--dry-run"]
    assert main(grid) == 0
    assert "add -m for all runs" in capsys.readouterr().err
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
    [(["train", "--help"], {0, 141}), (["train", "data.cells_per_part=60", "explain=none"], {141})],
)
def test_closed_output_pipe_ends_the_command_in_order(
    arguments: list[str], code: set[int], tmp_path: Path
) -> None:
    overrides = [] if "--help" in arguments else [f"outputs={tmp_path}", "data.resolution=32"]
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

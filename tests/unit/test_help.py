"""Help, misspelled commands and completion of the command line."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from leuk.cli import COMMANDS, main
from leuk.config import augmentations, conf_dir


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_help_lists_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(f"  {command} " in shown(capsys, "--help") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits_a_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, command, "--help")
    assert f"leuk {command} [overrides]" in text
    assert "outputs=outputs" in text
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= 110


def test_help_of_a_group_lists_its_options_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "train", "--help")
    for group in ("model", "augmentation", "data", "recipe", "transforms"):
        names = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
        names = set(augmentations()) if group == "augmentation" else names
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {group}: ")]
        assert set(line.replace("*", "").split(": ")[1].split(", ")) == names
    assert "model.optim.learning_rate=0.0003" in shown(capsys, "train", "--help", "model")
    assert "model.patch=16" in shown(
        capsys, "train", "model=vit", "recipe=thesis", "--help", "group=model"
    )
    assert "fit.epochs=26" in shown(capsys, "train", "fit", "--help")
    assert main(["train", "--help", "modle"]) == 2
    assert "--help modle: no group modle; did you mean model?" in capsys.readouterr().err


def test_flags_with_a_value_may_follow_overrides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "train", "seed=7", "--cfg", "job", "--config-dir", str(tmp_path))
    assert "\nseed: 7\n" in text


def test_misspelled_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "no command trian; did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("leuk tr", ["train"]),
        ("leuk ", sorted(COMMANDS)),
        ("leuk train augm", ["augmentation=", "augmentation."]),
        ("leuk train recipe=", ["recipe=small", "recipe=thesis"]),
        ("leuk train model=cnn model.dro", ["model.dropout="]),
    ],
)
def test_tab_completion(
    line: str,
    expected: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert set(expected) <= set(shown(capsys, "-sc", "query=bash").split())


def test_tab_completion_can_be_installed() -> None:
    program = Path(sys.executable).parent / "leuk"
    done = subprocess.run(
        [program, "-sc", "install=bash"], capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("leuk")


@pytest.mark.parametrize(
    ("lines", "unneeded"),
    [
        (
            ["train --help", "train --cfg job", "train moddel=vit", "train -m model=cnn,vot"],
            "torch lightning",
        ),
        (["report name=missing outputs={folder}"], "torch lightning scipy.optimize"),
    ],
    ids=["help", "report"],
)
def test_commands_load_only_what_they_need(lines: list[str], unneeded: str, tmp_path: Path) -> None:
    code = (
        "import gc, sys; from leuk.cli import main\n"
        "for line in sys.argv[1:]: main(line.split())\n"
        "assert gc.isenabled()\n"
        f"print(set({unneeded.split()}) & sys.modules.keys())"
    )
    given = [line.format(folder=tmp_path) for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_memory_of_a_command_is_freed_for_the_next(tmp_path: Path) -> None:
    line = ["report", "name=missing", f"outputs={tmp_path}"]
    main(line)
    kept = gc.get_freeze_count()
    main(line)
    assert gc.get_freeze_count() <= kept

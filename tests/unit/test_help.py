"""Help, misspelled commands and completion of the command line."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leuk.cli import COMMANDS, main
from leuk.config import augmentations, conf_dir


def test_help_lists_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {command} " in printed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_lists_groups_and_keys(command: str) -> None:
    done = leuk(command, "--help")
    assert done.returncode == 0
    assert f"leuk {command} [overrides]" in done.stdout
    if command == "train":
        for group in ("model", "augmentation", "data", "recipe"):
            options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
            if group == "augmentation":
                options = sorted(augmentations())
            assert f"{group}: {', '.join(options)}" in done.stdout
        assert "learning_rate" in done.stdout


def test_flags_with_a_value_may_follow_overrides(tmp_path: Path) -> None:
    done = leuk("train", "seed=7", "--cfg", "job", "--config-dir", str(tmp_path))
    assert "\nseed: 7\n" in done.stdout


def test_misspelled_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "no command trian; did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("leuk tr", ["train"]),
        ("leuk ", sorted(COMMANDS)),
        ("leuk train augm", ["augmentation=", "augmentation."]),
        ("leuk train model=", ["model=cnn"]),
        ("leuk train recipe=", ["recipe=small", "recipe=thesis"]),
        ("leuk train model=cnn fit.ep", ["fit.epochs="]),
    ],
)
def test_tab_completion(line: str, expected: list[str]) -> None:
    done = leuk("-sc", "query=bash", COMP_LINE=line)
    assert done.returncode == 0, done.stderr
    assert set(expected) <= set(done.stdout.split())


def test_tab_completion_can_be_installed() -> None:
    done = leuk("-sc", "install=bash")
    assert done.stdout.rstrip().endswith("leuk")


@pytest.mark.parametrize(
    "line", ["train --help", "train --cfg job", "train moddel=vit", "train -m model=cnn,vot"]
)
def test_help_and_completion_import_no_torch(line: str) -> None:
    assert loaded(line, "torch", "lightning") == []


def test_a_report_loads_what_it_needs(tmp_path: Path) -> None:
    line = f"report name=missing outputs={tmp_path}"
    assert loaded(line, "torch", "lightning", "scipy.optimize", "pandas") == ["pandas"]


def test_memory_of_a_command_is_freed_for_the_next(tmp_path: Path) -> None:
    line = ["report", "name=missing", f"outputs={tmp_path}"]
    main(line)
    kept = gc.get_freeze_count()
    main(line)
    assert gc.get_freeze_count() <= kept


def loaded(line: str, *modules: str) -> list[str]:
    """List those of ``modules`` that a command line has imported when it ends."""
    code = (
        "import atexit, gc, sys; from leuk.cli import main; "
        f"atexit.register(lambda: print(*sorted({{*{modules}}} & set(sys.modules)))); "
        "main(sys.argv[1:]); assert gc.isenabled()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split()


def leuk(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).parent / "leuk"
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )

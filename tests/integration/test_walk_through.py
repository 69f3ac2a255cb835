"""Test of the walk-through in the README, line by line, with small settings."""

import subprocess
from pathlib import Path

import pytest
from conftest import SMALL

from leuk.cli import main

ROOT = Path(__file__).parents[2]


def lines() -> list[list[str]]:
    """Arguments of the commands of the walk-through, without comments."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## From the demo to your own images")[1].split("```")[1]
    commands = [line.split("#")[0].strip() for line in section.splitlines()[1:] if line]
    assert all(command.startswith("leuk ") for command in commands)
    return commands


def test_every_line_of_the_walk_through_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # joblib's processes outlive a command in this process, and keep the folder of another test.
    one = ["model=cnn", "augmentation=none", "hydra/launcher=basic"]
    demo = ["train", "-m", "experiment=demo", *one, *SMALL]
    assert main(demo) == 0
    # Its folder has the small settings in its name.
    (run,) = (path.parent for path in tmp_path.glob("outputs/runs/demo/*/record.json"))
    ran = []
    for command in lines():
        # The shell finds the folder of images; the settings stay but for those that take long.
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
        ).stdout.split()[1:]
        small = SMALL if words[0] == "train" else [one for one in SMALL if one.startswith("data.")]
        small = small if words[0] in ("train", "data") else []
        given = [word for word in words if not word.startswith("data.images_per_fold=")]
        given = [f"run={run}" if word.startswith("run=") else word for word in given]
        given += [one for one in small if words[0] == "train" or "batch" not in one]
        if words[0] == "predict":
            given.append("trainer=cpu")
        assert main(given) == 0, capsys.readouterr()
        ran.append(words[0])
    assert ran == ["data", "train", "train", "report", "predict"]
    assert (tmp_path / "outputs/runs/first").is_dir()
    assert not (tmp_path / "outputs/runs/mine").exists()
    assert list(tmp_path.glob("outputs/predictions/*/*/predictions.csv"))

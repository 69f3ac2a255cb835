"""Killed runs resume from their last epoch."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Start = Callable[..., subprocess.Popen[str]]

LONG = ("fit.epochs=8", "fit.patience=8", "explain=none")


def run_folder(outputs: Path) -> Path:
    (record,) = outputs.glob("runs/single/*/record.json")
    return record.parent


def results(folder: Path) -> str:
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "complete"
    return json.dumps([record["metrics"], record["baselines"]])


def killed_while_fitting(start: Start, outputs: Path, *overrides: str) -> Path:
    """Start a run, kill it once it has a checkpoint, and return its folder."""
    process = start("train", outputs, *LONG, *overrides)
    while not (kept := list(outputs.glob("runs/single/*/checkpoints/resume/[!.]*.ckpt"))):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return kept[0].parents[2]


SLOW = pytest.mark.slow
"""Marks the other classifiers, whose networks the hybrid contains."""


@pytest.mark.parametrize(
    "model", ["hybrid", pytest.param("cnn", marks=SLOW), pytest.param("vit", marks=SLOW)]
)
def test_killed_run_resumes_with_the_results_of_an_uninterrupted_one(
    model: str, start: Start, tmp_path: Path
) -> None:
    folder = killed_while_fitting(start, tmp_path / "killed", f"model={model}")
    latest = max((folder / "checkpoints/resume").glob("[!.]*.ckpt"))
    torn = latest.with_name("epoch=99999.ckpt")
    torn.write_bytes(latest.read_bytes()[:1000])  # as a kill while writing leaves it
    again = start("train", tmp_path / "killed", *LONG, f"model={model}")
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    assert "resuming after epoch" in printed
    record = json.loads((folder / "record.json").read_text())
    assert [warning["kind"] for warning in record["warnings"]].count("resumed") == 1
    assert not (folder / "checkpoints/resume").exists()
    unbroken = start("train", tmp_path / "unbroken", *LONG, f"model={model}")
    printed = unbroken.communicate()[0]
    assert unbroken.returncode == 0, printed
    assert results(folder) == results(run_folder(tmp_path / "unbroken"))
    expected = torch.load(
        run_folder(tmp_path / "unbroken") / "checkpoints/best.ckpt", weights_only=True
    )
    found = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    for key, value in expected["state_dict"].items():
        assert torch.equal(value, found["state_dict"][key]), key


def test_stopped_fit_of_other_settings_is_refused_and_kept(start: Start, tmp_path: Path) -> None:
    folder = killed_while_fitting(start, tmp_path)
    path = max((folder / "checkpoints/resume").glob("[!.]*.ckpt"))
    values = torch.load(path, weights_only=True)
    values["stamp"]["settings"] = "others"
    torch.save(values, path)
    again = start("train", tmp_path, *LONG)
    printed = again.communicate()[0]
    assert again.returncode == 1
    assert f"{path}: trained with other settings" in printed
    assert path.exists()

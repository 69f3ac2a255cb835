"""Killed runs resume from their last epoch."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Leuk = Callable[..., int]
Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("blank_figures", "one_thread")

LONG = ("fit.epochs=5", "fit.patience=5", "explain=none")


@pytest.fixture
def one_thread() -> None:
    """Sum in the order of the process that is killed."""
    torch.set_num_threads(1)


def results(folder: Path) -> str:
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "complete"
    return json.dumps([record["metrics"], record["baselines"]])


SLOW = pytest.mark.slow
"""Marks the other classifiers, whose networks the hybrid contains."""


@pytest.mark.parametrize(
    "model", ["hybrid", pytest.param("cnn", marks=SLOW), pytest.param("vit", marks=SLOW)]
)
def test_killed_run_resumes_with_the_results_of_an_uninterrupted_one(
    model: str, start: Start, leuk: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = (*LONG, f"model={model}")
    process = start("train", tmp_path, *run)
    while not (kept := list(tmp_path.glob("runs/single/*/checkpoints/resume/[!.]*.ckpt"))):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = kept[0].parents[2]
    latest = max((folder / "checkpoints/resume").glob("[!.]*.ckpt"))
    whole = latest.read_bytes()

    # A checkpoint of other settings is refused and kept.
    values = torch.load(latest, weights_only=True)
    torch.save(values | {"stamp": values["stamp"] | {"settings": "others"}}, latest)
    assert leuk("train", *run) == 1
    assert f"{latest}: trained with other settings" in capsys.readouterr().out
    assert latest.exists()
    latest.write_bytes(whole)

    torn = latest.with_name("epoch=99999.ckpt")
    torn.write_bytes(whole[:1000])  # as a kill while writing leaves it
    assert leuk("train", *run) == 0
    assert "resuming after epoch" in capsys.readouterr().out
    record = json.loads((folder / "record.json").read_text())
    assert [warning["kind"] for warning in record["warnings"]].count("resumed") == 1
    assert not (folder / "checkpoints/resume").exists()

    resumed = Path(shutil.copytree(folder, tmp_path / "resumed"))
    shutil.rmtree(folder)
    assert leuk("train", *run) == 0
    assert results(resumed) == results(folder)
    expected, found = (
        torch.load(path / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for path in (folder, resumed)
    )
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key

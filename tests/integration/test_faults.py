"""Failing and stopped processes.

Kills are in test_kills.py and test_resume.py, disks in test_disks.py, parallel processes in
test_sweep.py.
"""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from lightning.pytorch import Callback, Trainer
from tiny_run import TINY, results, run_folder, train

from leuk.cli import main
from leuk.explain.study import Study
from leuk.gans.base import SampleGrids
from leuk.runs.process import CODE
from leuk.runs.record import Record
from leuk.runs.state import LOCK, is_held
from leuk.runs.trainer import Progress
from leuk.store import digest, is_whole, make_once

pytestmark = pytest.mark.usefixtures("blank_figures")

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, artifacts: Path, blank_figures: None
) -> Path:
    """Outputs of the undisturbed run, for comparison."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    assert train(outputs, artifacts) == 0
    return outputs


def terminate(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def in_epoch(number: int, action: Callable[[], None]) -> Callable[..., None]:
    """Create a hook of a callback that acts in a single epoch."""

    def hook(callback: Callback, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == number:
            action()

    return hook


def test_stop_signals_take_effect_during_all_stages(
    tmp_path: Path,
    undisturbed: Path,
    artifacts: Path,
    in_front: None,
    monkeypatch: Patch,
    capsys: Capture,
) -> None:
    for owner, name, hook, code in (
        (SampleGrids, "on_train_epoch_end", in_epoch(1, terminate), CODE),
        (Progress, "on_train_batch_end", in_epoch(2, interrupt), 130),
        (Study, "_attributed", terminate, CODE),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, hook)
            assert train(tmp_path, artifacts) == code
        printed = capsys.readouterr()
        assert f"stopped by {'SIGTERM' if code == 143 else 'Ctrl-C'}" in printed.err
        assert "run the same command again to resume" in printed.err
        assert Record.read(run_folder(tmp_path)).status == "running"
        assert not is_held(run_folder(tmp_path) / LOCK)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(tmp_path, artifacts) == 0
    assert "training already finished, resuming with the test" in capsys.readouterr().out
    assert not list(run_folder(tmp_path).glob("checkpoints/[!b]*"))
    # Log of the first training until it was stopped.
    assert "val/auroc" in (run_folder(tmp_path) / "log/metrics-1.csv").read_text()
    assert results(tmp_path) == results(undisturbed)


def test_sigterm_takes_effect_while_explaining_a_finished_run(
    tmp_path: Path, undisturbed: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    shutil.copytree(undisturbed / "runs", tmp_path / "runs")
    shutil.copytree(undisturbed / "artifacts", tmp_path / "artifacts")
    before = (run_folder(tmp_path) / "record.json").read_bytes()
    monkeypatch.setattr(Study, "_attributed", terminate)
    assert (
        main(["explain", f"run={run_folder(tmp_path)}", "explain=gradcam", "trainer=cpu"]) == CODE
    )
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert (run_folder(tmp_path) / "record.json").read_bytes() == before
    assert not is_held(run_folder(tmp_path) / LOCK)


@pytest.mark.slow
def test_killed_data_loader_fails_only_its_run(
    tmp_path: Path, artifacts: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    def end_loaders(*_: Any) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()

    sweep = ("augmentation=none", "data.workers=1", "explain=none")
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_train_batch_end", end_loaders)
        assert train(tmp_path, artifacts, *sweep) == 1
    record = Record.read(run_folder(tmp_path))
    assert record.error is not None
    assert "a data loading process was killed" in record.error["message"]
    assert "fewer data.workers or a smaller data.batch_size" in record.error["message"]
    assert train(tmp_path, artifacts, *sweep) == 0


@pytest.mark.slow
def test_clock_set_back_changes_nothing(
    tmp_path: Path, undisturbed: Path, artifacts: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    backwards = itertools.count(1_000_000_000, -1)
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_train_batch_end", in_epoch(2, terminate))
        assert train(tmp_path, artifacts) == CODE
    for path in tmp_path.rglob("*"):
        os.utime(path, (2_500_000_000, 2_500_000_000 - len(path.name)))
    monkeypatch.setattr(time, "time", lambda: float(next(backwards)))
    assert train(tmp_path, artifacts) == 0
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert results(tmp_path) == results(undisturbed)


def test_two_processes_do_not_work_in_one_folder(
    tmp_path: Path, undisturbed: Path, artifacts: Path, capsys: Capture
) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    folder = run_folder(tmp_path)
    record = Record.read(folder)
    record.status = "running"
    record.write(folder)
    before = (folder / "record.json").read_bytes()
    with FileLock(folder / LOCK):
        assert train(tmp_path, artifacts) == 1
        assert "already running in another process, skipping" in capsys.readouterr().out
        record.status = "complete"
        record.write(folder)
        assert main(["explain", f"run={folder}", "trainer=cpu"]) == 2
        assert "in use by another process; wait until it ends" in capsys.readouterr().err
    record.status = "running"
    record.write(folder)
    assert (folder / "record.json").read_bytes() == before


@pytest.mark.slow
def test_truncated_artifact_is_built_again(
    tmp_path: Path, undisturbed: Path, artifacts: Path, capsys: Capture
) -> None:
    shutil.copytree(undisturbed / "artifacts", tmp_path / "artifacts")
    (weights,) = tmp_path.glob("artifacts/gan/[!.]*/gan.ckpt")
    (images,) = tmp_path.glob("artifacts/synthetic/[!.]*/images.npy")
    for path in (weights, images):
        os.truncate(path, path.stat().st_size // 2)
    assert train(tmp_path, artifacts) == 0
    assert capsys.readouterr().out.count("damaged or incomplete; building it again") == 2
    assert results(tmp_path) == results(undisturbed)


def test_log_is_plain_text(start: Start, tmp_path: Path) -> None:
    """Log lines as in ``docker logs`` and output files of clusters."""
    tiny = [text for text in TINY if not text.startswith(("fit.", "augmentation="))]
    run = start("train", tmp_path, "-m", *tiny, "fit.epochs=1", f"data.cache={tmp_path}")
    printed = run.communicate()[0]
    assert run.returncode == 0, printed
    assert "decoding 216 images" in printed
    assert "done in 0:" in printed
    assert not control_characters(printed)
    assert not control_characters((run_folder(tmp_path) / "leuk.log").read_text())


def control_characters(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) == "Cc"} - set(
        "\n\t"
    )


def test_lock_of_a_dead_process_blocks_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "thing" / f".{digest({})}.lock"
    lock.parent.mkdir()
    hold = (
        f"import filelock; lock = filelock.FileLock({str(lock)!r}); lock.acquire(); "
        "print(flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_held(lock)
        holder.kill()
    assert lock.exists()
    assert not is_held(lock)
    assert is_whole(make_once(tmp_path, "thing", {}, lambda folder: (folder / "x").touch()))

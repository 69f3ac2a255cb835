"""Sweeps that are killed, stopped or lose a process, and are started again."""

import importlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from leuk.runs.process import CODE
from leuk.runs.record import read_records
from leuk.runs.state import LOCK, is_held

Start = Callable[..., subprocess.Popen[str]]

SEED = 7
KILLS = 5


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load tests/benchmarks/kills.py, which does this fifty times."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return importlib.import_module("kills")


@pytest.mark.slow
def test_sweep_killed_five_times_has_the_results_of_an_undisturbed_one(
    kills: ModuleType, tmp_path: Path
) -> None:
    forks, drawn, lost = kills.context(), random.Random(SEED), kills.Lost()
    overrides = (*kills.TINY, *kills.AXES)
    whole = kills.undisturbed(forks, tmp_path / "undisturbed", overrides)
    # Shorter in total than the sweep, so that every kill interrupts it.
    moments = [drawn.uniform(0, whole / (KILLS + 1)) for _ in range(KILLS)]
    print(f"seed {SEED}, killed after {', '.join(f'{moment:.2f}' for moment in moments)} s of work")
    kills.disturbed(forks, tmp_path / "killed", overrides, moments, lost)
    assert lost.kills == KILLS
    assert lost.nothing, lost
    assert not kills.differences(tmp_path / "killed", tmp_path / "undisturbed")
    assert (tmp_path / "killed/runs/k/report/report.html").exists()


def children(pid: int) -> list[int]:
    """Child processes of a process, without its resource trackers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and "resource_tracker" not in command:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("event", ["a run is killed", "the sweep is stopped"])
def test_sweep_of_several_processes_resumes(event: str, start: Start, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    runs = ("-m", "name=s", "seed=0,1", "fit.epochs=30", "fit.patience=30", "explain=none")
    sweep = start("train", tmp_path, *runs, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    while len(list(tmp_path.glob("runs/s/*/checkpoints/resume/[!.]*.ckpt"))) < 2:
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.02)
    workers = children(sweep.pid)
    assert len(workers) == 2
    if event == "a run is killed":
        os.kill(workers[0], signal.SIGKILL)
    else:
        sweep.terminate()
    printed = sweep.communicate()[0]
    if event == "a run is killed":
        assert sweep.returncode == 1, printed
        assert ": stopped: start again to resume" in printed
    else:
        assert sweep.returncode == CODE, printed
        assert "stopped by SIGTERM" in printed
    assert not [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists()]
    folders = [path.parent for path in tmp_path.glob("runs/s/*/record.json")]
    assert len(folders) == 2
    assert not any(is_held(folder / LOCK) for folder in folders)
    again = start("train", tmp_path, *runs)
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    assert "resuming after epoch" in printed
    assert {record.status for record in read_records(tmp_path / "runs/s")[0]} == {"complete"}


@pytest.mark.slow
def test_devices_of_one_run_stop_together(start: Start, tmp_path: Path) -> None:
    overrides = ("fit.epochs=30", "fit.patience=30", "explain=none")
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    run = start("train", tmp_path, *overrides, *two)
    while not list(tmp_path.glob("runs/single/*/checkpoints/resume/[!.]*.ckpt")):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.02)
    ranks = children(run.pid)
    assert len(ranks) == 2
    run.terminate()
    printed = run.communicate()[0]
    assert run.returncode == CODE, printed
    assert "stopped by SIGTERM" in printed
    assert not [pid for pid in ranks if Path(f"/proc/{pid}/cmdline").exists()]
    again = start("train", tmp_path, *overrides, *two)
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    assert "resuming after epoch" in printed

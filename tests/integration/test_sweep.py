"""Sweeps in practice: restarted, with changed settings, with failures, in parallel."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leuk.runs import train as train_module
from leuk.runs.record import Record

Leuk = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ("explain=none", "fit.epochs=1")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """All paths in a folder, with modification time and size."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


def lines(printed: str, state: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith(f"  {state} ")]


def test_dry_run_lists_existing_and_missing_results_and_writes_nothing(
    leuk: Leuk, tmp_path: Path, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ("-m", *QUICK, "name=s", "gan.latent=19", "augmentation=none,dcgan")
    assert leuk("train", *axes) == 0
    before = tree(tmp_path), tree(artifacts)
    capsys.readouterr()
    assert leuk("train", *axes, "seed=0,1", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert (tree(tmp_path), tree(artifacts)) == before
    complete, missing = lines(printed, "complete"), lines(printed, "missing")
    assert [line.split()[-1][:12] for line in complete] == ["cnn-none-fol", "cnn-dcgan-fo"]
    assert len(missing) == 3
    assert "dcgan of hem, folds, seed 1, needed by 1 of the runs" in missing[2]
    assert lines(printed, "trained") == [lines(printed, "trained")[0]]
    assert "dcgan of hem, folds, seed 0, needed by none of the runs" in lines(printed, "trained")[0]
    assert "2 of 4 runs to execute, 1 GANs to train" in printed
    assert "for 2 runs one after another, from 2 records" in printed
    assert "unknown" not in printed


def test_changed_settings_are_listed_and_rerun_only_if_configured(
    leuk: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leuk("train", "name=s", *QUICK) == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/s/*/record.json"))
    before = (folder / "record.json").read_bytes()
    other = ("train", "name=s", "experiment=grid", *QUICK)
    assert leuk(*other) == 2
    message = capsys.readouterr().err
    assert "complete with other settings: callbacks.average.decay=0.98 (was 0.99)" in message
    assert "grid.on_mismatch=rerun" in message
    assert (folder / "record.json").read_bytes() == before
    assert leuk(*other, "grid.on_mismatch=rerun") == 0
    (kept,) = tmp_path.glob("runs/s/.replaced/*")
    assert (kept / "record.json").read_bytes() == before
    assert Record.read(folder).settings["fit"]["patience"] == 5


def test_failure_ends_the_sweep_with_fail_fast(
    leuk: Leuk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[Path] = []

    def fail(cfg: Any, folder: Path, record: Record) -> None:
        starts.append(folder)
        raise RuntimeError("it broke")

    sweep = ("train", "-m", "name=s", "seed=0,1", "grid.fail_fast=true", *QUICK)
    monkeypatch.setattr(train_module, "run_stages", fail)
    assert leuk(*sweep) == 1
    printed = capsys.readouterr().out
    first, second = (line for line in printed.splitlines() if line.startswith("incomplete: "))
    assert first.startswith("incomplete: cnn-none-folds-s0")
    assert first.endswith(": failed: it broke")
    assert second.startswith("incomplete: cnn-none-folds-s1")
    assert second.endswith(": missing: not started")
    assert "0 of 2 runs complete" in printed
    assert leuk(*sweep) == 1
    assert len(starts) == 2
    assert len(set(starts)) == 1


@pytest.mark.slow
def test_tensorboard_has_the_curves(leuk: Leuk, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert leuk("train", "logger=[csv,tensorboard]", "name=s", *QUICK) == 0
    (events,) = tmp_path.glob("runs/s/*/log/events.out.tfevents.*")
    assert b"val/auroc" in events.read_bytes()
    assert (events.parent / "metrics.csv").exists()


@pytest.mark.slow
def test_joblib_and_a_second_start_share_a_folder_and_train_a_single_gan(
    leuk: Leuk,
    start: Start,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = ("-m", "name=s", "augmentation=dcgan", "fit.patience=3,4", "explain=none")
    second = start("train", tmp_path, *sweep)
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    codes = leuk("train", *sweep, *joblib), second.wait()
    # joblib's processes log like a single process, without Lightning's hints.
    assert ".py:" not in "".join(capfd.readouterr())
    printed = second.communicate()[0]
    assert 0 in codes, printed
    folders = [path.parent for path in tmp_path.glob("runs/s/*/record.json")]
    assert len(folders) == 2
    assert {Record.read(folder).status for folder in folders} == {"complete"}
    logs = {folder: (folder / "leuk.log").read_text() for folder in folders}
    assert all(log.count(": training on ") == 1 for log in logs.values()), logs
    assert sum(log.count("training leuk.gans") for log in logs.values()) == 1
    assert len(list(tmp_path.glob("artifacts/gan/[!.]*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [("hydra/launcher=basic",), ("hydra.launcher.n_jobs=2",)], ids=["basic", "joblib"]
)
def test_all_runs_of_the_demo_train_three_gans(
    launcher: tuple[str, ...], leuk: Leuk, tmp_path: Path
) -> None:
    assert leuk("train", "-m", "experiment=demo", *launcher, *QUICK) == 0
    folders = [path.parent for path in tmp_path.glob("runs/demo/*/record.json")]
    assert len(folders) == 18
    assert {Record.read(folder).status for folder in folders} == {"complete"}
    logs = [(folder / "leuk.log").read_text() for folder in folders]
    assert sum(log.count("training leuk.gans") for log in logs) == 3
    assert len(list(tmp_path.glob("artifacts/gan/[!.]*"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ["-m", "hydra/launcher=submitit_local"],
        ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
    ],
    ids=["submitit", "ddp"],
)
def test_run_on_another_host_is_the_same_run(how: list[str], start: Start, tmp_path: Path) -> None:
    overrides = ("augmentation=dcgan", "explain=none")
    run = start("train", tmp_path, *overrides, *how)
    printed = run.communicate()[0]
    assert run.returncode == 0, printed
    (folder,) = (path.parent for path in tmp_path.glob("runs/single/*/record.json"))
    record = Record.read(folder)
    assert record.device["processes"] == (2 if "trainer=ddp" in how else 1)
    assert "epoch 2/2" in (folder / "leuk.log").read_text()
    assert start("train", tmp_path, *overrides, "trainer=cpu").wait() == 0
    assert Record.read(folder) == record


@pytest.mark.slow
def test_every_stage_of_the_thesis_takes_a_few_steps(leuk: Leuk, tmp_path: Path) -> None:
    few = ("+trainer.limit_train_batches=1", "fit.epochs=1", "checks=none")
    thesis = ("train", "-m", "experiment=thesis", "data.resolution=224", "data.size=450", *few)
    assert leuk(*thesis, "augmentation=none", "explain=gradcam") == 0
    gans = ("augmentation=dcgan,wgan,cgan", "augmentation.count=2", "explain=gradcam")
    assert leuk(*thesis, "model=cnn", *gans) == 0
    folders = [path.parent for path in tmp_path.glob("runs/thesis/*/record.json")]
    assert len(folders) == 6
    assert all("LEAKY" in folder.name for folder in folders)
    assert all(Record.read(folder).warnings[0].kind == "leaky" for folder in folders)
    assert "LEAKY" in (tmp_path / "runs/thesis/report/table.md").read_text()
    assert len(list(tmp_path.glob("artifacts/gan/[!.]*"))) == 3

"""``leuk train`` through the real command line, reduced to seconds."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import SMALL
from filelock import FileLock
from sklearn.metrics import roc_auc_score

from leuk.cli import main
from leuk.data import pixels
from leuk.runs import gan as gan_fit
from leuk.runs.record import Record
from leuk.runs.trainer import precision_for

Leuk = Callable[..., int]
Read = Callable[..., Record]

pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ["explain=none", "fit.epochs=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, artifacts: Path, blank_figures: None) -> Path:
    """Outputs of the sweep ``s`` of two runs, with seeds 0 and 1."""
    outputs = tmp_path_factory.mktemp("trained")
    of_sweep = ["-m", "name=s", "seed=0,1", f"outputs={outputs}", f"data.cache={artifacts}"]
    assert main(["train", *of_sweep, *SMALL]) == 0
    return outputs


@pytest.fixture
def folders(trained: Path, tmp_path: Path) -> list[Path]:
    """Folders of the two runs in a copy of the outputs, private to a test."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return sorted(path.parent for path in tmp_path.glob("runs/s/*/record.json"))


def test_predictions_have_a_row_per_image_and_reproduce_the_metrics(folders: list[Path]) -> None:
    table = pd.read_csv(folders[0] / "predictions.csv")
    assert not table.duplicated(["path"]).any()
    test = table[table["stage"] == "test"]
    assert len(test) == 60
    expected = Record.read(folders[0]).metrics["test"]["auroc"]["value"]
    assert roc_auc_score(test["label"], test["score"]) == pytest.approx(expected, abs=1e-6)
    assert (test["label"] == test["subject"].str.startswith("ALL-")).all()


def results(record: Record) -> str:
    return json.dumps([record.metrics, record.baselines])


def test_same_seed_gives_the_same_metrics_to_the_last_digit_with_a_single_gan(
    leuk: Leuk, record: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[object] = []
    begin = gan_fit.limit_epochs
    monkeypatch.setattr(gan_fit, "limit_epochs", lambda *args: (fits.append(args), begin(*args)))
    for name, seed, count in (("a", 0, 1), ("b", 0, 1), ("c", 1, 2)):
        arguments = ["augmentation=dcgan", f"name={name}", f"seed={seed}"]
        assert leuk("train", *arguments, "explain=none") == 0
        assert len(fits) == count
    assert results(record("a")) == results(record("b"))
    assert results(record("a")) != results(record("c"))


@pytest.mark.slow
def test_workers_do_not_change_results(leuk: Leuk, record: Read, folders: list[Path]) -> None:
    before = Record.read(folders[0])
    assert leuk("train", "name=w2", "data.workers=2", "explain=none") == 0
    assert results(record("w2")) == results(before)


def test_second_start_decodes_nothing_and_each_name_has_a_report(
    leuk: Leuk, record: Read, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    by_device = Record.read(folders[0])
    assert by_device.device["precision"] == precision_for("cpu")
    assert "trainer.precision" not in by_device.run.settings
    report = folders[0].parent / "report/table.md"
    report.unlink()
    monkeypatch.setattr(pixels, "decode", refuse)
    (other,) = {"bf16-mixed", "32-true"} - {precision_for("cpu")}
    assert leuk("train", "-m", "name=s,two", f"trainer.precision={other}", *QUICK) == 0
    found = record("two")
    assert found.device["precision"] == found.run.settings["trainer.precision"] == other
    assert report.exists()
    assert (folders[0].parents[1] / "two/report/table.md").exists()


def test_restarted_sweep_executes_stopped_and_failed_runs(
    leuk: Leuk, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    running = dataclasses.replace(Record.read(folders[0]), status="running")
    running.write(folders[0])
    failed = Record.read(folders[1])
    failed.fail(RuntimeError("killed"))
    failed.write(folders[1])
    with FileLock(folders[0] / ".lock"):
        assert leuk("train", "-m", "name=s", "seed=0,1") == 1
    assert "already running in another process, skipping" in capsys.readouterr().out
    assert [Record.read(folder).status for folder in folders] == ["running", "complete"]
    before = (folders[1] / "record.json").stat().st_mtime_ns
    assert leuk("train", "-m", "name=s", "seed=0,1") == 0
    assert Record.read(folders[0]).status == "complete"
    assert (folders[1] / "record.json").stat().st_mtime_ns == before


def test_failing_run_records_its_traceback_and_the_others_continue(
    leuk: Leuk, record: Read, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the GAN broke")

    monkeypatch.setattr(gan_fit, "limit_epochs", fail)
    sweep = ["-m", "name=s", "augmentation=dcgan,none", "gan.latent=13"]
    assert leuk("train", *sweep, *QUICK) == 1
    failed = record("s", "dcgan")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["message"] == "the GAN broke"
    assert "in fail" in failed.error["traceback"]
    assert record("s", "none").status == "complete"
    assert "1 of 2 runs complete" in capsys.readouterr().out


def test_report_of_a_sweep(
    leuk: Leuk, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert leuk("report", "name=s") == 0
    summary = (folders[0].parent / "report/summary.txt").read_text()
    assert capsys.readouterr().out.endswith(summary)


def test_report_of_no_sweep(leuk: Leuk, capsys: pytest.CaptureFixture[str]) -> None:
    assert leuk("report", "name=nothing") == 2
    assert "name=nothing: no sweep" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", ["oversample,class_weights", pytest.param("wgan,cgan", marks=pytest.mark.slow)]
)
def test_every_augmentation(names: str, leuk: Leuk, record: Read, tmp_path: Path) -> None:
    assert leuk("train", "-m", f"augmentation={names}", *QUICK) == 0
    for augmentation in names.split(","):
        written = record("single", augmentation)
        counts = written.data["counts"]["train"]
        missing = counts["all"] - counts["hem"]
        if augmentation == "oversample":
            assert written.data["oversampled"] == {"hem": missing}
        elif augmentation == "class_weights":
            (path,) = tmp_path.rglob("*class_weights*/checkpoints/best.ckpt")
            weights = torch.load(path, weights_only=True)["state_dict"]["class_weights"]
            total = counts["all"] + counts["hem"]
            expected = [total / (2 * counts["hem"]), total / (2 * counts["all"])]
            assert weights.tolist() == pytest.approx(expected)
        else:
            assert written.data["synthetic"]["counts"] == {"hem": missing}

"""``leuk train`` through the real command line, reduced to seconds."""

import dataclasses
import json
import shutil
import subprocess
import sys
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


def test_workers_do_not_change_results(leuk: Leuk, record: Read, folders: list[Path]) -> None:
    before = Record.read(folders[0])
    assert leuk("train", "name=w2", "data.workers=2", "explain=none") == 0
    assert results(record("w2")) == results(before)


def test_second_start_decodes_nothing(
    leuk: Leuk, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixels, "decode", refuse)
    assert leuk("train", "name=two", *QUICK) == 0


def test_restarted_sweep_executes_missing_and_failed_runs(leuk: Leuk, folders: list[Path]) -> None:
    failed = Record.read(folders[1])
    failed.fail(RuntimeError("killed"))
    failed.write(folders[1])
    before = [(folder / "record.json").stat().st_mtime_ns for folder in folders]
    assert leuk("train", "-m", "name=s", "seed=0,1") == 0
    after = [(folder / "record.json").stat().st_mtime_ns for folder in folders]
    assert after[0] == before[0]
    assert after[1] > before[1]
    assert Record.read(folders[1]).status == "complete"


def test_other_settings_in_the_same_folder_are_refused(
    leuk: Leuk, record: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ["train", "name=s", "experiment=demo", *QUICK]
    assert leuk(*demo) == 0
    before = record("s")
    assert (leuk(*demo), record("s")) == (0, before)
    changed = dataclasses.replace(before, fingerprint="another")
    changed.write(tmp_path / "runs/s" / before.run.folder)
    assert leuk(*demo) == 2
    assert "complete with other settings" in capsys.readouterr().err
    assert record("s") == changed


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


def test_run_in_another_process_is_skipped(
    leuk: Leuk, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    running = dataclasses.replace(Record.read(folders[0]), status="running")
    running.write(folders[0])
    with FileLock(folders[0] / ".lock"):
        assert leuk("train", "name=s") == 1
    assert "already running in another process, skipping" in capsys.readouterr().out
    assert Record.read(folders[0]).status == "running"
    assert leuk("train", "name=s") == 0


def test_complete_run_with_other_data_is_refused(
    leuk: Leuk, tmp_path: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    shutil.copytree(phantom, root)
    arguments = ["name=s", "data=cnmc", f"data.root={root}"]
    quick = ["data.resolution=32", "fit.epochs=1", "explain=none", "trainer=cpu"]
    run = ["train", f"outputs={tmp_path}", *arguments, *quick]
    assert main(run) == 0
    assert main(run) == 0
    (root / "C-NMC_training_data/fold_1/all/UID_11_4_1_all.png").unlink()
    assert main(run) == 2
    assert "complete on other data" in capsys.readouterr().err


def test_gan_of_a_smoke_test_is_not_reused(leuk: Leuk, record: Read) -> None:
    arguments = ["augmentation=dcgan", "gan.latent=17", *QUICK]
    assert leuk("train", *arguments, "name=smoke", "+trainer.limit_train_batches=1") == 0
    assert leuk("train", *arguments, "name=real") == 0
    smoke, real = (record(name).data["synthetic"]["gans"] for name in ("smoke", "real"))
    assert smoke != real


def test_several_names_have_a_report_each(leuk: Leuk, tmp_path: Path) -> None:
    assert leuk("train", "-m", "name=na,nb", *QUICK) == 0
    for name in ("na", "nb"):
        assert (tmp_path / f"runs/{name}/report/table.md").exists()


def test_precision_is_chosen_by_the_device_and_can_be_overridden(
    leuk: Leuk, record: Read, folders: list[Path]
) -> None:
    by_device = Record.read(folders[0])
    assert by_device.device["precision"] == precision_for("cpu")
    assert "trainer.precision" not in by_device.run.settings
    (other,) = {"bf16-mixed", "32-true"} - {precision_for("cpu")}
    assert leuk("train", "name=other", f"trainer.precision={other}", *QUICK) == 0
    assert record("other").device["precision"] == other
    assert record("other").run.settings["trainer.precision"] == other


def test_report_of_a_finished_sweep(
    leuk: Leuk, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert leuk("report", "name=s") == 0
    summary = (folders[0].parent / "report/summary.txt").read_text()
    assert capsys.readouterr().out.endswith(summary)


def test_report_of_no_sweep(leuk: Leuk, capsys: pytest.CaptureFixture[str]) -> None:
    assert leuk("report", "name=nothing") == 2
    assert "name=nothing: no sweep" in capsys.readouterr().err


def test_python_m_leuk_equals_leuk() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "leuk"], capture_output=True, text=True, check=True
    )
    assert "usage: leuk COMMAND" in done.stdout


@pytest.mark.parametrize("augmentation", ["wgan", "cgan", "oversample", "class_weights"])
def test_every_augmentation(augmentation: str, leuk: Leuk, record: Read, tmp_path: Path) -> None:
    assert leuk("train", f"augmentation={augmentation}", "name=one", *QUICK) == 0
    written = record("one")
    counts = written.data["counts"]["train"]
    missing = counts["all"] - counts["hem"]
    if augmentation == "oversample":
        assert written.data["oversampled"] == {"hem": missing}
    elif augmentation == "class_weights":
        weights = torch.load(next(tmp_path.rglob("best.ckpt")), weights_only=True)["state_dict"]
        total = counts["all"] + counts["hem"]
        expected = [total / (2 * counts["hem"]), total / (2 * counts["all"])]
        assert weights["class_weights"].tolist() == pytest.approx(expected)
    else:
        assert written.data["synthetic"]["counts"] == {"hem": missing}

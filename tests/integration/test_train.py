"""``leuk train`` through the real command line, reduced to seconds."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from leuk.cli import main
from leuk.config import conf_dir
from leuk.data import pixels
from leuk.runs import gan as gan_fit
from leuk.runs.record import Record

Leuk = Callable[..., int]
Read = Callable[..., Record]

METRICS = {
    "auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "mcc", "brier",
    "ece", "precision_hem", "recall_all", "f1_macro", "f1_weighted", "balanced_accuracy@youden",
}  # fmt: skip


LARGE = {
    "demo": ["model=hybrid", "augmentation=none,cgan"],
    "grid": ["model=cnn", "augmentation=none,wgan", "explain=none"],
    "thesis": ["model=cnn", "augmentation=none,cgan", "explain=none"],
}
"""Overrides that reduce large experiments."""


@pytest.mark.parametrize(
    "experiment", sorted(p.stem for p in (conf_dir() / "experiment").iterdir())
)
def test_every_experiment_runs(
    experiment: str, leuk: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = LARGE.get(experiment, [])
    assert leuk("train", "-m", f"experiment={experiment}", f"name={experiment}", *smaller) == 0
    sweep = tmp_path / "runs" / experiment
    records = [Record.read(path.parent) for path in sweep.glob("*/record.json")]
    assert records
    assert {record.status for record in records} == {"complete"}
    printed = capsys.readouterr().out
    assert (sweep / "report/table.md").read_text().strip() in printed
    assert f"runs complete; see {sweep}" in printed
    assert (sweep / "report/table.csv").exists()


def test_run_writes_all_documented_files(leuk: Leuk, record: Read, tmp_path: Path) -> None:
    # Enough images to hold out ten per class for the comparison with synthetic images.
    assert leuk("train", "augmentation=dcgan", "name=one", "data.images_per_fold=240") == 0
    written = record("one")
    folder = next(tmp_path.glob("runs/one/*dcgan*"))
    assert written.run.folder == folder.name
    assert set(written.metrics) == {"val", "test", "thresholds"}
    assert set(written.metrics["test"]) >= METRICS
    assert set(written.baselines) == {"majority", "area", "morphology"}
    assert set(written.baselines["area"]) == set(written.metrics["test"])
    assert written.data["counts"]["train"]["all"] > written.data["counts"]["train"]["hem"]
    counts = written.data["counts"]["train"]
    assert written.data["synthetic"]["counts"]["hem"] == counts["all"] - counts["hem"]
    assert written.data["synthetic"]["held_out"] == "val"
    (quality,) = written.data["synthetic"]["quality"].values()
    printed = [f"dcgan hem: {text}" for text in quality["warnings"]]
    assert printed  # after one epoch, images show no cells
    assert [item.text for item in written.warnings if item.kind == "synthetic"] == printed
    page = (folder.parent / "report/report.html").read_text()
    first_screen = page[: page.index("Effect of synthetic images")]
    assert "Low-quality synthetic images" in first_screen
    assert {"data", "augmentation", "fit", "test", "total"} <= set(written.timings)
    assert torch.__version__.startswith(written.versions["torch"])
    assert written.explanations["gradcam"]["images"] == 4
    assert (folder / written.explanations["gradcam"]["picture"]).stat().st_size > 10_000
    maps = np.load(folder / written.explanations["gradcam"]["arrays"])["maps"]
    assert maps.shape == (4, 32, 32)
    torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert (folder / "log/metrics.csv").exists()
    assert "epoch" in (folder / "leuk.log").read_text()


def test_predictions_have_a_row_per_image_and_reproduce_the_metrics(
    leuk: Leuk, record: Read, tmp_path: Path
) -> None:
    assert leuk("train", "name=one") == 0
    table = pd.read_csv(next(tmp_path.glob("runs/one/*/predictions.csv")))
    assert not table.duplicated(["path"]).any()
    test = table[table["stage"] == "test"]
    assert len(test) == 60
    from sklearn.metrics import roc_auc_score

    expected = record("one").metrics["test"]["auroc"]["value"]
    assert roc_auc_score(test["label"], test["score"]) == pytest.approx(expected, abs=1e-6)
    assert (test["label"] == test["subject"].str.startswith("ALL-")).all()


def results(record: Record) -> str:
    return json.dumps([record.metrics, record.baselines])


def test_same_seed_gives_the_same_metrics_to_the_last_digit(leuk: Leuk, record: Read) -> None:
    names = {"a": 0, "b": 0, "c": 1}
    for name, seed in names.items():
        assert leuk("train", "augmentation=dcgan", f"name={name}", f"seed={seed}") == 0
    assert results(record("a")) == results(record("b"))
    assert results(record("a")) != results(record("c"))


def test_workers_do_not_change_results(leuk: Leuk, record: Read) -> None:
    for workers in (0, 2):
        assert leuk("train", f"name=w{workers}", f"data.workers={workers}") == 0
    assert results(record("w0")) == results(record("w2"))


def test_existing_gan_gives_the_same_results_as_a_new_one(
    leuk: Leuk, record: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[object] = []
    fit = gan_fit._fit
    monkeypatch.setattr(gan_fit, "_fit", lambda *args: (fits.append(args), fit(*args)))
    arguments = ["augmentation=dcgan", "gan.latent=11"]
    for name in ("first", "second"):
        assert leuk("train", *arguments, f"name={name}") == 0
    assert len(fits) == 1
    assert results(record("first")) == results(record("second"))


def test_second_start_decodes_nothing(leuk: Leuk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert leuk("train", "name=one", "data.resolution=64") == 0

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(pixels, "decode", refuse)
    assert leuk("train", "name=two", "data.resolution=64") == 0


def test_restarted_sweep_executes_missing_and_failed_runs(
    leuk: Leuk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leuk("train", "-m", "name=s", "seed=0,1") == 0
    folders = sorted(tmp_path.glob("runs/s/cnn*"))
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
    assert leuk("train", "name=s", "experiment=demo", "fit.epochs=3") == 0
    before = record("s")
    demo = leuk("train", "name=s", "experiment=demo", "fit.epochs=3")
    assert (demo, record("s")) == (0, before)
    changed = dataclasses.replace(before, fingerprint="another")
    changed.write(tmp_path / "runs/s" / before.run.folder)
    assert leuk("train", "name=s", "experiment=demo", "fit.epochs=3") == 2
    assert "complete with other settings" in capsys.readouterr().err
    assert record("s") == changed


def test_failing_run_records_its_traceback_and_the_others_continue(
    leuk: Leuk, record: Read, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the GAN broke")

    monkeypatch.setattr(gan_fit, "_fit", fail)
    code = leuk("train", "-m", "name=s", "augmentation=dcgan,none", "gan.latent=13")
    assert code == 1
    failed = record("s", "dcgan")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["message"] == "the GAN broke"
    assert "in fail" in failed.error["traceback"]
    assert record("s", "none").status == "complete"
    assert "1 of 2 runs complete" in capsys.readouterr().out


def test_run_in_another_process_is_skipped(
    leuk: Leuk, tmp_path: Path, record: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    assert leuk("train", "name=s") == 0
    before = record("s")
    (folder,) = (path.parent for path in tmp_path.glob("runs/s/*/record.json"))
    dataclasses.replace(before, status="running").write(folder)
    with FileLock(folder / ".lock"):
        assert leuk("train", "name=s") == 1
    assert "already running in another process, skipping" in capsys.readouterr().out
    assert record("s").status == "running"
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
    arguments = ["augmentation=dcgan", "gan.latent=17"]
    assert leuk("train", *arguments, "name=smoke", "+trainer.limit_train_batches=1") == 0
    assert leuk("train", *arguments, "name=real") == 0
    smoke, real = (record(name).data["synthetic"]["gans"] for name in ("smoke", "real"))
    assert smoke != real


def test_several_names_have_a_report_each(leuk: Leuk, tmp_path: Path) -> None:
    assert leuk("train", "-m", "name=na,nb") == 0
    for name in ("na", "nb"):
        assert (tmp_path / f"runs/{name}/report/table.md").exists()


def test_precision_is_chosen_by_the_device_and_can_be_overridden(leuk: Leuk, record: Read) -> None:
    from leuk.runs.trainer import precision_for

    assert leuk("train", "name=auto") == 0
    assert record("auto").device["precision"] == precision_for("cpu")
    (other,) = {"bf16-mixed", "32-true"} - {precision_for("cpu")}
    assert leuk("train", "name=other", f"trainer.precision={other}") == 0
    assert record("other").device["precision"] == other
    assert record("other").run.settings == {"trainer.precision": other}


def test_report_of_a_finished_sweep(
    leuk: Leuk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leuk("train", "name=s") == 0
    table = (tmp_path / "runs/s/report/table.md").read_text()
    capsys.readouterr()
    assert leuk("report", "name=s") == 0
    assert table.strip() in capsys.readouterr().out


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
    assert leuk("train", f"augmentation={augmentation}", "name=one", "explain=none") == 0
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

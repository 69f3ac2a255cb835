"""All experiments, reduced to seconds, and all files of a run, with real figures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leuk.config import conf_dir
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
    "thesis": ["model=vit", "augmentation=none", "explain=none"],
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
    assert (sweep / "report/summary.txt").read_text() in printed
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

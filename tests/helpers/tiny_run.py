"""Tiny run with a GAN, to compare disturbed runs with an undisturbed run."""

from pathlib import Path
from typing import Any

import numpy as np

from leuk.cli import main
from leuk.runs.record import Record

TINY = (
    "trainer=cpu",
    "data.images_per_fold=54",
    "data.size=32",
    "data.resolution=32",
    "data.batch_size=8",
    "fit.epochs=3",
    "gan_fit.epochs=2",
    "gan_fit.batch_size=4",
    "gan_fit.checkpoint_every=1",
    "explain=gradcam",
    "explain_images=2",
    "augmentation=dcgan",
)


def train(outputs: Path, artifacts: Path, *overrides: str) -> int:
    """Execute the run in this process and return the exit code."""
    given = {override.split("=")[0] for override in overrides}
    kept = [override for override in TINY if override.split("=")[0] not in given]
    return main(["train", f"outputs={outputs}", f"data.cache={artifacts}", *kept, *overrides])


def run_folder(outputs: Path) -> Path:
    """Folder of the run."""
    (record,) = outputs.glob("runs/single/*/record.json")
    return record.parent


def results(outputs: Path) -> dict[str, Any]:
    """Results of a run, without times and paths."""
    folder = run_folder(outputs)
    record = Record.read(folder)
    assert record.status == "complete"
    with np.load(folder / "explanations/gradcam.npz") as arrays:
        maps = arrays["maps"].tolist()
    return {
        "metrics": [record.metrics, record.baselines, record.calibration, record.area],
        "predictions": (folder / "predictions.csv").read_bytes(),
        "maps": maps,
    }

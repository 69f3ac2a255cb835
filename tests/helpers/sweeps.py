"""Simulated sweeps: records and predictions, with scores correlated by patient."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from leuk.config import augmentations
from leuk.metrics.classification import all_metrics
from leuk.metrics.comparison import Difference
from leuk.metrics.thresholds import choose_thresholds
from leuk.report.comparisons import Comparison
from leuk.report.load import Configuration
from leuk.runs.record import Record, RunId, as_metrics

RUN = RunId("cnn", "none", "none", "folds")
SYNTHETIC = replace(RUN, augmentation="dcgan", kind="gan")
KFOLD = RunId("cnn", "none", "none", "subject_kfold", settings={"split.n_folds": 3})

COST = {
    "parameters": 1_000_000,
    "trainable_parameters": 1_000_000,
    "flops": 50_000_000,
    "latency_ms": 2.0,
    "batch_latency_ms": 0.5,
    "memory_bytes": 80_000_000,
    "batch": 64,
    "resolution": 64,
    "device": "x86_64 CPU, 1 thread",
}


def fold(run: RunId, number: int) -> RunId:
    """The same run on another fold."""
    return replace(run, fold=number)


def varied(run: RunId, augmentation: str, **changed: Any) -> RunId:
    """The same run with another augmentation."""
    kind = augmentations().get(augmentation, "gan")
    return replace(run, augmentation=augmentation, kind=kind, **changed)


def predictions(
    run: RunId,
    healthy: int = 4,
    leukemic: int = 10,
    images: int = 20,
    strength: float = 1.5,
) -> pd.DataFrame:
    """Scores with an effect of the patient; the same images for every model and seed.

    Args:
        run: the run; its fold seeds the images, its seed and title the noise of the model.
        healthy: number of healthy patients per stage.
        leukemic: number of leukemic patients per stage.
        images: number of images per patient.
        strength: half the distance between the classes on the scale of the latent score.
    """
    stages = []
    patients = np.random.default_rng(run.fold)
    effects = {stage: patients.normal(0, 0.7, healthy + leukemic) for stage in ("val", "test")}
    noise = np.random.default_rng([run.seed, run.fold, *map(ord, run.title)])
    for stage in ("val", "test"):
        labels = np.repeat([0, 1], [healthy * images, leukemic * images])
        numbers = np.repeat(np.arange(healthy + leukemic), images)
        hidden = effects[stage][numbers] + patients.normal(0, 1, len(numbers))
        logits = strength * (labels - 0.5) * 2 + hidden + noise.normal(0, 0.8, len(numbers))
        names = [f"{stage}{run.fold}-{'H' if n < healthy else ''}{n}" for n in numbers]
        stages.append(
            pd.DataFrame(
                {
                    "stage": stage,
                    "path": [f"{name}/{i}.bmp" for i, name in enumerate(names)],
                    "subject": names,
                    "patient": names,
                    "label": labels,
                    "score": expit(2 * logits),
                    "calibrated": expit(logits),
                    "baseline_majority": 0.7,
                    "baseline_area": expit(labels - 0.5 + hidden),
                    "split": run.split_name,
                    "seed": run.seed,
                }
            )
        )
    return pd.concat(stages)


def record_of(run: RunId, table: pd.DataFrame, **changed: Any) -> Record:
    """The record of a run with these predictions."""
    val, test = (table[table["stage"] == stage] for stage in ("val", "test"))
    patients = val["patient"] if "patient" in val else val["label"]
    chosen = choose_thresholds(
        val["score"].to_numpy(), val["label"].to_numpy(), patients.to_numpy()
    )

    def evaluated(stage: pd.DataFrame) -> dict[str, dict[str, float | None]]:
        columns = [stage[name].to_numpy() for name in ("score", "label")]
        return as_metrics(all_metrics(*columns, chosen, stage["calibrated"].to_numpy()))

    counts = {
        name: {"all": int((stage["label"] == 1).sum()), "hem": int((stage["label"] == 0).sum())}
        for name, stage in (("val", val), ("test", test))
    }
    record = Record(
        run,
        "abc",
        status="complete",
        data={"fingerprint": "d", "counts": counts},
        metrics={"val": evaluated(val), "test": evaluated(test), "thresholds": as_metrics(chosen)},
        timings={"fit": 60.0},
        area={
            "within_bins": {
                "value": 0.7,
                "low": 0.6,
                "high": 0.8,
                "bins": [{"low": 0.1, "high": 0.2, "hem": 40, "all": 60, "auroc": 0.7}],
                "patients": {"value": 0.66, "low": 0.5, "high": 0.8},
            },
            "area_within_bins": 0.58,
            "one_size": {
                "target_area": 0.2,
                "metrics": evaluated(test),
                "area_auroc": 0.55,
                "area_auroc_before": 0.8,
            },
        },
        cost=dict(COST),
        predictions="predictions.csv",
    )
    return replace(record, **changed)


def write_run(sweep: Path, run: RunId, table: pd.DataFrame | None = None, **changed: Any) -> Record:
    """Write the folder of a complete run and return its record."""
    table = predictions(run) if table is None else table
    record = record_of(run, table, **changed)
    folder = sweep / run.folder
    record.write(folder)
    table.to_csv(folder / "predictions.csv", index=False)
    return record


def write_sweep(sweep: Path, runs: Iterable[RunId], /, **options: Any) -> None:
    """Write the folders of complete runs; ``options`` are those of :func:`predictions`."""
    for run in runs:
        write_run(sweep, run, predictions(run, **options))


BETTER, WORSE, UNCLEAR = (0.01, 0.05, 0.01), (-0.05, -0.01, 0.01), (-0.01, 0.03, 0.2)
"""Bounds of a difference and its Holm p."""


def compared(
    family: str,
    one: RunId,
    other: RunId,
    found: tuple[float, float, float] | None,
    explained: tuple[dict[str, Any], dict[str, Any]] = ({}, {}),
) -> Comparison:
    """A comparison with this interval and Holm p, of runs with these explanations."""
    configurations = [
        Configuration(run, (Record(run, "", explanations=entry),), ())
        for run, entry in zip((one, other), explained, strict=True)
    ]
    if found is None:
        return Comparison(family, *configurations, 0, None, note="no seed and fold in common")
    low, high, p = found
    result = Difference("auroc", (low + high) / 2, low, high, p, 0.03, 1, 1)
    return Comparison(family, *configurations, 1, result, p)

"""Made-up sweeps: records and predictions as a sweep leaves them, scores correlated by person."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from leuk.evaluate.metrics import all_metrics
from leuk.evaluate.thresholds import choose_thresholds
from leuk.grid.record import Record, as_metrics
from leuk.grid.run_id import RunId

CELL = RunId("cnn", "none", "folds", 0)
MADE = replace(CELL, augmentation="dcgan")
KFOLD = RunId("cnn", "none", "subject_kfold", 0, "n_folds_3")

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


def fold(cell: RunId, number: int) -> RunId:
    """The same cell of the grid on another fold."""
    return replace(cell, variant=f"fold_{number}-{cell.variant}" if number else cell.variant)


def predictions(
    cell: RunId,
    healthy: int = 4,
    leukemic: int = 10,
    cells: int = 20,
    strength: float = 1.5,
) -> pd.DataFrame:
    """Scores of persons that differ from each other; the same cells for every model and seed."""
    parts = []
    persons = np.random.default_rng(cell.fold)
    effects = {part: persons.normal(0, 0.7, healthy + leukemic) for part in ("val", "test")}
    noise = np.random.default_rng([cell.seed, cell.fold, *map(ord, cell.title)])
    for part in ("val", "test"):
        labels = np.repeat([0, 1], [healthy * cells, leukemic * cells])
        numbers = np.repeat(np.arange(healthy + leukemic), cells)
        hidden = effects[part][numbers] + persons.normal(0, 1, len(numbers))
        logits = strength * (labels - 0.5) * 2 + hidden + noise.normal(0, 0.8, len(numbers))
        names = [f"{part}{cell.fold}-{'H' if n < healthy else ''}{n}" for n in numbers]
        parts.append(
            pd.DataFrame(
                {
                    "stage": part,
                    "path": [f"{name}/{i}.bmp" for i, name in enumerate(names)],
                    "subject": names,
                    "patient": names,
                    "label": labels,
                    "score": expit(2 * logits),
                    "calibrated": expit(logits),
                    "baseline_majority": 0.7,
                    "baseline_area": expit(labels - 0.5 + hidden),
                    "split": cell.split,
                    "seed": cell.seed,
                }
            )
        )
    return pd.concat(parts)


def record_of(cell: RunId, table: pd.DataFrame, **changed: Any) -> Record:
    """The record that goes with predictions."""
    val, test = (table[table["stage"] == part] for part in ("val", "test"))
    group = val["patient"] if "patient" in val else val["label"]
    chosen = choose_thresholds(val["score"].to_numpy(), val["label"].to_numpy(), group.to_numpy())

    def judged(part: pd.DataFrame) -> dict[str, dict[str, float | None]]:
        columns = [part[name].to_numpy() for name in ("score", "label")]
        return as_metrics(all_metrics(*columns, chosen, part["calibrated"].to_numpy()))

    counts = {
        name: {"all": int((part["label"] == 1).sum()), "hem": int((part["label"] == 0).sum())}
        for name, part in (("val", val), ("test", test))
    }
    record = Record(
        cell,
        "abc",
        status="complete",
        data={"fingerprint": "d", "counts": counts},
        metrics={"val": judged(val), "test": judged(test), "thresholds": as_metrics(chosen)},
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
                "metrics": judged(test),
                "area_auroc": 0.55,
                "area_auroc_before": 0.8,
            },
        },
        cost=dict(COST),
        predictions="predictions.csv",
    )
    return replace(record, **changed)


def write_run(
    sweep: Path, cell: RunId, table: pd.DataFrame | None = None, **changed: Any
) -> Record:
    """Write a cell's folder, complete, and return its record."""
    table = predictions(cell) if table is None else table
    record = record_of(cell, table, **changed)
    folder = sweep / cell.folder
    record.write(folder)
    table.to_csv(folder / "predictions.csv", index=False)
    return record


def write_sweep(sweep: Path, cells: Iterable[RunId], /, **made: Any) -> None:
    """Write a complete folder for each cell."""
    for cell in cells:
        write_run(sweep, cell, predictions(cell, **made))

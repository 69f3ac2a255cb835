"""Figures of one fitted cell: predictions to metrics, and the baselines beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from leuk.classifiers.classifier import Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.evaluate.baselines import BASELINES
from leuk.evaluate.metrics import all_metrics, youden_threshold
from leuk.grid.cell import Cell
from leuk.grid.record import Figures, figures
from leuk.store.atomic import write_text


def assess(val: Predictions, test: Predictions) -> dict[str, Figures]:
    """Figures of both parts; the chosen threshold comes from validation and is used on test."""
    chosen = youden_threshold(val.scores, val.labels)
    return {
        "val": figures(all_metrics(val.scores, val.labels, chosen)),
        "test": figures(all_metrics(test.scores, test.labels, chosen)),
        "thresholds": figures({"default": 0.5, "youden": chosen}),
    }


def assess_baselines(data: CNMCDataModule) -> dict[str, Figures]:
    """Test figures of each baseline, fitted on training cells, its threshold from validation."""
    areas, labels = {}, {}
    for stage in ("train", "val", "test"):
        cells = data.part(stage)
        areas[stage] = data.dataset.store.areas[cells.index.to_numpy()].astype(np.float64)
        labels[stage] = cells["label"].to_numpy(np.int64)
    results = {}
    for name, baseline in BASELINES.items():
        fitted = baseline(areas["train"], labels["train"])
        scores = {stage: fitted.scores(areas[stage]) for stage in ("val", "test")}
        truth = {stage: torch.tensor(labels[stage]) for stage in ("val", "test")}
        chosen = youden_threshold(scores["val"], truth["val"])
        results[name] = figures(all_metrics(scores["test"], truth["test"], chosen))
    return results


def save_predictions(
    path: Path, data: CNMCDataModule, parts: dict[str, Predictions], cell: Cell
) -> None:
    """Write one line a cell image.

    Columns: ``part``, ``path``, ``subject``, ``group``, ``label``, ``score``, ``split``, ``seed``.
    """
    tables = []
    for stage, predictions in parts.items():
        cells = data.dataset.cells.iloc[predictions.rows.numpy()]
        table = cells[["path", "subject", "group", "label"]].assign(
            score=predictions.scores.numpy(), split=cell.split, seed=cell.seed
        )
        table.insert(0, "part", stage)
        tables.append(table)
    write_text(path, pd.concat(tables).to_csv(index=False))

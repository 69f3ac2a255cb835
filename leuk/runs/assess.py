"""Metrics of one fitted cell: predictions to metrics, and the baselines beside them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leuk.classifiers.classifier import Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.splits import STAGES
from leuk.evaluate.area import auroc_within_area_bins, cell_areas, scaled_to_one_size
from leuk.evaluate.baselines import BASELINES
from leuk.evaluate.calibration import apply_temperature, fit_temperature
from leuk.evaluate.intervals import bootstrap_intervals, few_subjects
from leuk.evaluate.metrics import all_metrics
from leuk.evaluate.referral import referral_record
from leuk.evaluate.sample import Sample
from leuk.evaluate.subjects import per_subject
from leuk.evaluate.thresholds import (
    DEFAULT,
    Thresholds,
    choose_thresholds,
    few_patients,
    threshold_intervals,
)
from leuk.evaluate.vectors import Floats
from leuk.grid.record import Metrics, as_metrics
from leuk.grid.run_id import RunId
from leuk.store.atomic import write_text
from leuk.store.spreadsheet import csv_text

_BATCH = 64


@dataclass(frozen=True)
class Assessed:
    """What the predictions of a cell come to.

    Attributes:
        metrics: for the record: ``val``, ``test`` and ``thresholds``.
        temperature: fitted on validation cells.
        samples: of ``val`` and ``test``, calibrated.
        referral: for the record, see :func:`leuk.evaluate.referral.referral_record`.
        warnings: what a reader must know before believing the intervals.
    """

    metrics: dict[str, Metrics]
    temperature: float
    samples: dict[str, Sample]
    referral: dict[str, Any]
    warnings: list[str]


def assess(data: CNMCDataModule, judged: Mapping[str, Predictions]) -> Assessed:
    """Metrics of both parts, with intervals.

    Thresholds and temperature come from validation cells alone and are used on test cells.

    Args:
        data: whose cells were judged.
        judged: predictions of ``val`` and ``test``.
    """
    samples = {part: sample_of(data, predictions) for part, predictions in judged.items()}
    val = samples["val"]
    temperature = fit_temperature(val.scores, val.labels)
    chosen_on = val.scores, val.labels, val.subjects
    thresholds = choose_thresholds(*chosen_on)
    samples = {
        part: replace(sample, calibrated=apply_temperature(sample.scores, temperature))
        for part, sample in samples.items()
    }
    metrics = {part: figures_of(sample, thresholds) for part, sample in samples.items()}
    few = {part: few_subjects(sample) for part, sample in samples.items()}
    unsteady = few_patients(val.labels, val.subjects)
    moving = [f"val: {unsteady}"] if unsteady else []
    return Assessed(
        metrics | {"thresholds": as_metrics(thresholds, threshold_intervals(*chosen_on))},
        temperature,
        samples,
        referral_record(samples["val"], samples["test"], thresholds["youden"], "youden"),
        [f"{part}: {text}" for part, text in few.items() if text] + moving,
    )


def sample_of(data: CNMCDataModule, predictions: Predictions) -> Sample:
    """Predictions with the persons behind the cells."""
    groups = data.dataset.index["patient"].to_numpy()[predictions.rows.numpy()]
    return Sample(predictions.scores.numpy(), predictions.labels.numpy(), groups.astype(str))


def figures_of(sample: Sample, thresholds: Thresholds) -> Metrics:
    """Every figure of a sample with its 95 % interval."""
    values = all_metrics(
        sample.scores, sample.labels, thresholds, sample.calibrated, sample.subjects
    )
    return as_metrics(values, bootstrap_intervals(sample, thresholds))


def baseline_scores(data: CNMCDataModule, measures: pd.DataFrame) -> pd.DataFrame:
    """What each baseline, fitted on training cells, says of validation and test cells.

    Args:
        data: the cells and their split.
        measures: see :func:`leuk.runs.measures.measured`.

    Returns:
        A column for each of :data:`BASELINES`; the index is the row of the bank.
    """
    train, *others = (data.stage(stage) for stage in STAGES)
    # Of the thesis's split the test part validates too.
    rows = pd.concat(others).index.unique()
    fitted = {
        name: baseline.fitted(measures.loc[train.index], train["label"].to_numpy(np.int64))
        for name, baseline in BASELINES.items()
    }
    asked = measures.loc[rows]
    return pd.DataFrame({name: score(asked) for name, score in fitted.items()}, index=rows)


def assess_baselines(data: CNMCDataModule, scores: pd.DataFrame) -> dict[str, Metrics]:
    """Test figures of each baseline, its thresholds and temperature from validation.

    Args:
        data: the cells and their split.
        scores: see :func:`baseline_scores`.
    """
    val, test = data.stage("val"), data.stage("test")
    results = {}
    for name, column in scores.items():
        chosen = column[val.index].to_numpy(), val["label"].to_numpy(np.int64)
        judged = column[test.index].to_numpy()
        sample = Sample(
            judged,
            test["label"].to_numpy(np.int64),
            test["patient"].to_numpy().astype(str),
            apply_temperature(judged, fit_temperature(*chosen)),
        )
        thresholds = choose_thresholds(*chosen, val["patient"].to_numpy().astype(str))
        results[str(name)] = figures_of(sample, thresholds)
    return results


def assess_area(
    data: CNMCDataModule,
    test: Predictions,
    score: Callable[[Tensor], Tensor],
    device: torch.device,
) -> dict[str, Any]:
    """What the model knows of test cells beside their area.

    Args:
        data: whose cells were judged.
        test: the predictions of the cells as they are.
        score: from images ``(B, 3, R, R)`` in [0, 1] on ``device`` to the probability of leukemia
            ``(B,)``, as ``test`` was made.
        device: where the images are put.

    Returns:
        ``within_bins``, see :class:`leuk.evaluate.area.WithinBins`, and beside it
        ``area_within_bins`` and ``area_within_bins_patients``, what the area itself still reaches
        there; and ``one_size`` with every cell brought to ``target_area`` (the mean share of the
        image that training cells cover, in the data's framing): the ``metrics`` then, with
        intervals, at 0.5, and the AUROC of what is left of the area, ``area_auroc``, beside that
        before, ``area_auroc_before``.
    """
    sample, rows = sample_of(data, test), test.rows
    areas = data.dataset.store.areas[rows.numpy()].astype(np.float64)
    target = _mean_area(data)
    scores, left = [], []
    with torch.inference_mode():
        for batch in rows.split(_BATCH):
            images = scaled_to_one_size(data.bank.gather(batch, device)["images"], target)
            scores.append(score(images).double().cpu())
            left.append(cell_areas(images).cpu())
    scaled = replace(sample, scores=torch.cat(scores).numpy())
    alone = auroc_within_area_bins(replace(sample, scores=areas), areas)
    return {
        "within_bins": asdict(auroc_within_area_bins(sample, areas)),
        "area_within_bins": alone.value,
        "area_within_bins_patients": alone.patients["value"],
        "one_size": {
            "target_area": target,
            "metrics": figures_of(scaled, {DEFAULT: 0.5}),
            "area_auroc": float(roc_auc_score(sample.labels, torch.cat(left).numpy())),
            "area_auroc_before": float(roc_auc_score(sample.labels, areas)),
        },
    }


def _mean_area(data: CNMCDataModule) -> float:
    """Mean share of the image that a training cell covers, in the data's framing."""
    rows = torch.tensor(data.stage("train").index.to_numpy())
    cpu = torch.device("cpu")
    areas = [cell_areas(data.bank.gather(batch, cpu)["images"]) for batch in rows.split(_BATCH)]
    return float(torch.cat(areas).mean())


def save_predictions(
    path: Path,
    data: CNMCDataModule,
    judged: Mapping[str, Predictions],
    temperature: float,
    baselines: pd.DataFrame,
    cell: RunId,
) -> None:
    """Write one line a cell image.

    Columns: ``part``, ``path``, ``subject``, ``group``, ``label``, ``score``, ``calibrated`` (the
    score at the temperature), ``split``, ``seed``, and ``baseline_<name>`` of each baseline.
    """
    tables = []
    for stage, predictions in judged.items():
        cells = data.dataset.index.iloc[predictions.rows.numpy()]
        scores: Floats = predictions.scores.numpy()
        table = cells[["path", "subject", "patient", "label"]].assign(
            score=scores,
            calibrated=apply_temperature(scores, temperature),
            split=cell.split,
            seed=cell.seed,
        )
        table.insert(0, "stage", stage)
        tables.append(table.join(baselines.add_prefix("baseline_")))
    write_text(path, csv_text(pd.concat(tables)))


def save_subjects(path: Path, samples: Mapping[str, Sample]) -> None:
    """Write one line a person: ``part``, and :func:`leuk.evaluate.subjects.per_subject` at 0.5."""
    tables = []
    for stage, sample in samples.items():
        table = per_subject(sample, 0.5)
        table.insert(0, "stage", stage)
        tables.append(table)
    write_text(path, csv_text(pd.concat(tables)))

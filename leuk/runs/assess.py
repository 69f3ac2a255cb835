"""Metrics of a run and of the baselines, computed from predictions."""

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
    """Metrics and samples from the predictions of a run.

    Attributes:
        metrics: ``val``, ``test`` and ``thresholds``, for the record.
        temperature: fitted on validation images.
        samples: predictions of ``val`` and ``test``, calibrated.
        referral: entry of the record, see :func:`leuk.evaluate.referral.referral_record`.
        warnings: reasons to doubt the intervals, such as few patients.
    """

    metrics: dict[str, Metrics]
    temperature: float
    samples: dict[str, Sample]
    referral: dict[str, Any]
    warnings: list[str]


def assess(data: CNMCDataModule, predictions: Mapping[str, Predictions]) -> Assessed:
    """Metrics of validation and test, with intervals.

    Thresholds and temperature are chosen on validation images only and applied to test images.

    Args:
        data: data module of the predicted images.
        predictions: predictions of ``val`` and ``test``.
    """
    samples = {stage: sample_of(data, found) for stage, found in predictions.items()}
    val = samples["val"]
    temperature = fit_temperature(val.scores, val.labels)
    chosen_on = val.scores, val.labels, val.subjects
    thresholds = choose_thresholds(*chosen_on)
    samples = {
        stage: replace(sample, calibrated=apply_temperature(sample.scores, temperature))
        for stage, sample in samples.items()
    }
    metrics = {stage: compute_metrics(sample, thresholds) for stage, sample in samples.items()}
    few = {stage: few_subjects(sample) for stage, sample in samples.items()}
    unsteady = few_patients(val.labels, val.subjects)
    of_thresholds = [f"val: {unsteady}"] if unsteady else []
    return Assessed(
        metrics | {"thresholds": as_metrics(thresholds, threshold_intervals(*chosen_on))},
        temperature,
        samples,
        referral_record(samples["val"], samples["test"], thresholds["youden"], "youden"),
        [f"{stage}: {text}" for stage, text in few.items() if text] + of_thresholds,
    )


def sample_of(data: CNMCDataModule, predictions: Predictions) -> Sample:
    """Join predictions with the patients of the images."""
    patients = data.dataset.index["patient"].to_numpy()[predictions.rows.numpy()]
    return Sample(predictions.scores.numpy(), predictions.labels.numpy(), patients.astype(str))


def compute_metrics(sample: Sample, thresholds: Thresholds) -> Metrics:
    """Compute all metrics of a sample with their 95 % intervals."""
    values = all_metrics(
        sample.scores, sample.labels, thresholds, sample.calibrated, sample.subjects
    )
    return as_metrics(values, bootstrap_intervals(sample, thresholds))


def baseline_scores(data: CNMCDataModule, measures: pd.DataFrame) -> pd.DataFrame:
    """Scores of the baselines for validation and test images, fitted on training images.

    Args:
        data: data module, set up.
        measures: morphology of all images, from :func:`leuk.runs.measures.measure_images`.

    Returns:
        A column of scores in [0, 1] per entry of :data:`BASELINES`, indexed by row of the bank.
    """
    train, *others = (data.stage(stage) for stage in STAGES)
    # In the thesis's split, test images are validation images too.
    rows = pd.concat(others).index.unique()
    fitted = {
        name: baseline.fitted(measures.loc[train.index], train["label"].to_numpy(np.int64))
        for name, baseline in BASELINES.items()
    }
    held_out = measures.loc[rows]
    return pd.DataFrame({name: score(held_out) for name, score in fitted.items()}, index=rows)


def assess_baselines(data: CNMCDataModule, scores: pd.DataFrame) -> dict[str, Metrics]:
    """Test metrics of each baseline, with thresholds and temperature from validation images.

    Args:
        data: data module, set up.
        scores: scores from :func:`baseline_scores`.
    """
    val, test = data.stage("val"), data.stage("test")
    results = {}
    for name, column in scores.items():
        chosen = column[val.index].to_numpy(), val["label"].to_numpy(np.int64)
        test_scores = column[test.index].to_numpy()
        sample = Sample(
            test_scores,
            test["label"].to_numpy(np.int64),
            test["patient"].to_numpy().astype(str),
            apply_temperature(test_scores, fit_temperature(*chosen)),
        )
        thresholds = choose_thresholds(*chosen, val["patient"].to_numpy().astype(str))
        results[str(name)] = compute_metrics(sample, thresholds)
    return results


def assess_area(
    data: CNMCDataModule,
    test: Predictions,
    score: Callable[[Tensor], Tensor],
    device: torch.device,
) -> dict[str, Any]:
    """Compute the performance on test images at equal area of the cells.

    Args:
        data: data module of the test images.
        test: predictions of the unchanged test images.
        score: function from images ``(B, 3, R, R)`` in [0, 1] on ``device`` to probabilities of
            leukemia ``(B,)``, with the precision and views of ``test``.
        device: device of the classifier.

    Returns:
        ``within_bins``: AUROC among cells of similar area, see
        :class:`leuk.evaluate.area.WithinBins`; ``area_within_bins`` and
        ``area_within_bins_patients``: the same with the area as the score, by image and by patient;
        ``one_size``: results with all cells scaled to ``target_area``, the mean share of the image
        that training cells cover: ``metrics`` with intervals, at the threshold 0.5, and the AUROC
        of the area after scaling, ``area_auroc``, and before, ``area_auroc_before``.
    """
    sample, rows = sample_of(data, test), test.rows
    areas = data.dataset.store.areas[rows.numpy()].astype(np.float64)
    target = _mean_area(data)
    scores, scaled_areas = [], []
    with torch.inference_mode():
        for batch in rows.split(_BATCH):
            images = scaled_to_one_size(data.bank.gather(batch, device)["images"], target)
            scores.append(score(images).double().cpu())
            scaled_areas.append(cell_areas(images).cpu())
    scaled = replace(sample, scores=torch.cat(scores).numpy())
    alone = auroc_within_area_bins(replace(sample, scores=areas), areas)
    return {
        "within_bins": asdict(auroc_within_area_bins(sample, areas)),
        "area_within_bins": alone.value,
        "area_within_bins_patients": alone.patients["value"],
        "one_size": {
            "target_area": target,
            "metrics": compute_metrics(scaled, {DEFAULT: 0.5}),
            "area_auroc": float(roc_auc_score(sample.labels, torch.cat(scaled_areas).numpy())),
            "area_auroc_before": float(roc_auc_score(sample.labels, areas)),
        },
    }


def _mean_area(data: CNMCDataModule) -> float:
    """Mean share of the image that training cells cover, in the data's framing."""
    rows = torch.tensor(data.stage("train").index.to_numpy())
    cpu = torch.device("cpu")
    areas = [cell_areas(data.bank.gather(batch, cpu)["images"]) for batch in rows.split(_BATCH)]
    return float(torch.cat(areas).mean())


def save_predictions(
    path: Path,
    data: CNMCDataModule,
    predictions: Mapping[str, Predictions],
    temperature: float,
    baselines: pd.DataFrame,
    run: RunId,
) -> None:
    """Write a table of predictions with a row per image.

    Columns: ``stage``, ``path``, ``subject``, ``patient``, ``label``, ``score``, ``calibrated``
    (the score at the temperature), ``split``, ``seed``, and ``baseline_<name>`` per baseline.
    """
    tables = []
    for stage, found in predictions.items():
        images = data.dataset.index.iloc[found.rows.numpy()]
        scores: Floats = found.scores.numpy()
        table = images[["path", "subject", "patient", "label"]].assign(
            score=scores,
            calibrated=apply_temperature(scores, temperature),
            split=run.split,
            seed=run.seed,
        )
        table.insert(0, "stage", stage)
        tables.append(table.join(baselines.add_prefix("baseline_")))
    write_text(path, csv_text(pd.concat(tables)))


def save_subjects(path: Path, samples: Mapping[str, Sample]) -> None:
    """Write a row per patient: ``stage``, and :func:`leuk.evaluate.subjects.per_subject` at 0.5."""
    tables = []
    for stage, sample in samples.items():
        table = per_subject(sample, 0.5)
        table.insert(0, "stage", stage)
        tables.append(table)
    write_text(path, csv_text(pd.concat(tables)))

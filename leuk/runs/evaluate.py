"""Morphology of every image of a pixel store, computed once, for the baselines."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leuk.classifiers.base import Classifier, Predictions
from leuk.classifiers.prototypes import Prototyped
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.splits import STAGES
from leuk.errors import DataError
from leuk.explain.callback import Explain
from leuk.explain.study import COHORT
from leuk.metrics.area import auroc_within_area_bins, cell_areas, scaled_to_one_size
from leuk.metrics.arrays import Floats, Images
from leuk.metrics.baselines import BASELINES, MEASURES, measure_each
from leuk.metrics.bootstrap import Sample, bootstrap_intervals, few_subjects, per_subject
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.classification import DEFAULT, Thresholds, all_metrics
from leuk.metrics.cost import measure_cost
from leuk.metrics.novelty import Familiar, largest_parts
from leuk.metrics.referral import referral_record
from leuk.metrics.thresholds import choose_thresholds, few_patients, threshold_intervals
from leuk.runs.classifier import project_prototypes
from leuk.runs.finished import FinishedRun, Predictor
from leuk.runs.record import Metrics, Record, RunId, RunWarning, as_metrics
from leuk.runs.trainer import build_named, build_trainer, memory_errors, one_device
from leuk.store import csv_text, make_once, read_arrays, whole_file, write_text

log = logging.getLogger(__name__)

MEASURES_FORMAT = 1
"""Version in the cache key; increase it when a measure changes."""

_FILE = "measures.npy"
_MEASURED_PER_CALL = 512


def measure_images(data: CNMCDataModule) -> pd.DataFrame:
    """Morphology of all images, indexed by row of the bank.

    Measures are of the pixels at the data's resolution and framing, except the area, which is of
    the published image. An image without a lit pixel has 0 in all.

    Args:
        data: data module with its pixel store.
    """
    store = data.dataset.store
    key = {"format": MEASURES_FORMAT, "pixels": store.fingerprint, "measures": list(MEASURES)}
    folder = make_once(
        data.cache, "measures", key, lambda target: _measure_all(store.pixels, target)
    )
    table = pd.DataFrame(np.load(folder / _FILE), columns=list(MEASURES))
    return table.assign(area=store.areas.astype(np.float64))


def _measure_all(pixels: Images, target: Path) -> None:
    log.info("measuring %d images", len(pixels))
    starts = range(0, len(pixels), _MEASURED_PER_CALL)
    rows = [
        measure_each(np.asarray(pixels[start : start + _MEASURED_PER_CALL])) for start in starts
    ]
    np.save(target / _FILE, np.concatenate(rows))


# --- Metrics of a run and of the baselines, computed from predictions

_BATCH = 64


@dataclass(frozen=True)
class Assessed:
    """Metrics and samples from the predictions of a run.

    Attributes:
        metrics: ``val``, ``test`` and ``thresholds``, for the record.
        temperature: fitted on validation images.
        samples: predictions of ``val`` and ``test``, calibrated.
        referral: entry of the record, see :func:`leuk.metrics.referral.referral_record`.
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
        measures: morphology of all images, from :func:`leuk.runs.evaluate.measure_images`.

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
        :class:`leuk.metrics.area.WithinBins`; ``area_within_bins`` and
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
            split=run.split_name,
            seed=run.seed,
        )
        table.insert(0, "stage", stage)
        tables.append(table.join(baselines.add_prefix("baseline_")))
    write_text(path, csv_text(pd.concat(tables)))


def save_subjects(path: Path, samples: Mapping[str, Sample]) -> None:
    """Write a row per patient: ``stage``, and :func:`.bootstrap.per_subject` at 0.5."""
    tables = []
    for stage, sample in samples.items():
        table = per_subject(sample, 0.5)
        table.insert(0, "stage", stage)
        tables.append(table)
    write_text(path, csv_text(pd.concat(tables)))


# --- Evaluation of a trained classifier: predictions, metrics, explanations, area, cost

EXPLANATIONS = "explanations"
"""Subfolder of a run."""


def evaluate(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, classifier: Classifier, record: Record
) -> None:
    """Predict validation and test images, explain test images, and add the results to the record.

    Args:
        cfg: config of the run.
        folder: folder of the run; predictions and explanations are written there.
        data: data module, set up.
        classifier: classifier with its best weights.
        record: record of the run; metrics, explanations, warnings, area and cost are added.
    """
    explain = explain_callback(cfg, folder / EXPLANATIONS, record.run.folder)
    # A new trainer, because weight averaging would swap the weights in the one used for training.
    trainer = build_trainer(
        cfg,
        folder,
        [*build_named(cfg.callbacks, ("channels_last",)).values(), explain],
        logger=False,
        enable_checkpointing=False,
        inference_mode=False,  # explaining needs gradients
        **one_device(cfg),
    )
    device = trainer.strategy.root_device
    if isinstance(classifier, Prototyped) and classifier.prototypes is not None:
        projected = project_prototypes(classifier, data, device, folder, record.run.folder)
        record.explanations["prototypes"] = projected
    predictions = {}
    for stage, loop in (("val", trainer.validate), ("test", trainer.test)):
        with memory_errors("data.batch_size", cfg.data.batch_size):
            loop(classifier, datamodule=data, verbose=False)
        predictions[stage] = classifier.collected()
    _record_metrics(folder, data, predictions, record)
    record.explanations |= explain.summary
    record.warnings += warnings_of(explain.summary)
    classifier.to(device).eval()
    record.area = assess_area(data, predictions["test"], _scorer(classifier, trainer), device)
    record.cost = measure_cost(
        classifier, cfg.data.resolution, device, predict=classifier.predict_logits
    )


def warnings_of(summary: Mapping[str, Any]) -> list[RunWarning]:
    """Warnings in a summary of explanations."""
    return [RunWarning(**warning) for warning in summary.get(COHORT, {}).get("warnings", [])]


def explain_callback(cfg: DictConfig, folder: Path, name: str) -> Explain:
    """Build the callback that explains test images.

    Args:
        cfg: config with ``explain``, ``checks`` and the related keys.
        folder: output folder.
        name: name of the run, for the titles of figures.
    """
    return Explain(
        build_named(cfg.explain),
        folder,
        shown=cfg.explain_images,
        checked=cfg.checked_images,
        background=cfg.explain_background,
        checks=instantiate(cfg.checks) if "_target_" in cfg.checks else None,
        name=name,
    )


def _record_metrics(
    folder: Path, data: CNMCDataModule, predictions: dict[str, Predictions], record: Record
) -> None:
    """Add metrics of classifier and baselines to the record, and write their predictions."""
    assessed = assess(data, predictions)
    baselines = baseline_scores(data, measure_images(data))
    record.metrics = assessed.metrics
    record.calibration = {"temperature": assessed.temperature}
    record.referral = assessed.referral
    record.baselines = assess_baselines(data, baselines)
    record.warnings += [RunWarning("few", text) for text in assessed.warnings]
    record.predictions = "predictions.csv"
    save_predictions(
        folder / record.predictions, data, predictions, assessed.temperature, baselines, record.run
    )
    save_subjects(folder / "subjects.csv", assessed.samples)


def _scorer(classifier: Classifier, trainer: Trainer) -> Callable[[Tensor], Tensor]:
    """Build a function from images to scores, with the precision of the trainer's loops."""

    def score(images: Tensor) -> Tensor:
        with trainer.precision_plugin.forward_context():
            logits = classifier.predict_logits(images)
        return logits.double().softmax(dim=1)[:, 1]

    return score


# --- Features of a run's training images, to find unfamiliar new images; cached in its folder

FILE = "familiar.npz"
"""Cache file in the folder of a run."""

DISTANCES_FORMAT = 2
"""Version in the cache key; increase it when the content of the file changes its meaning."""

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Reference values of the training images, with which new images are compared.

    Attributes:
        images: training features, and the limit of the distance from validation images.
        smallest: share of the frame that the smallest training cell covers, in [0, 1].
    """

    images: Familiar
    smallest: float


def load_familiarity(finished: FinishedRun, predictor: Predictor, root: str | None) -> Familiarity:
    """Read the cache in the run's folder, or compute it from the run's real training images.

    Args:
        finished: the finished run.
        predictor: predictor with the run's classifier.
        root: new location of the data set's images, if they have moved.

    Raises:
        DataError: the cache does not exist, and neither does the image folder.
        StoreError: the data differ from those of the run.
    """
    path = finished.folder / FILE
    key = f"{DISTANCES_FORMAT} {finished.weights_digest}"
    if (cached := _read(path, key)) is not None:
        return cached
    try:
        data = finished.data(root)
    except DataError as error:
        raise DataError(f"{error}; or skip the comparison with familiarity=false") from error
    log.info("%s: computing features of its training images, once", finished.folder.name)
    familiarity = _compute(data, predictor)
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                key=np.array(key),
                features=familiarity.images.features,
                limit=np.array(familiarity.images.limit),
                smallest=np.array(familiarity.smallest),
            )
    except OSError as error:
        log.warning("%s: cannot be written (%s); it will be computed again each time", path, error)
    return familiarity


def _compute(data: CNMCDataModule, predictor: Predictor) -> Familiarity:
    train, shares = _features_and_shares(data, predictor, "train")
    held_out, _ = _features_and_shares(data, predictor, "val")
    patients = data.stage("val")["patient"].to_numpy().astype(str)
    return Familiarity(Familiar.fitted(train, held_out, patients), float(shares.min()))


def _features_and_shares(
    data: CNMCDataModule, predictor: Predictor, stage: str
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Features of a stage's images, and the share of the frame that each cell covers."""
    rows = data.stage(stage).index.to_numpy()
    features, shares = [], []
    for start in range(0, len(rows), _CHUNK):
        pixels = data.dataset.data[rows[start : start + _CHUNK]]
        features.append(predictor.predict(pixels).features)
        shares.append(largest_parts(pixels))
    return np.concatenate(features), np.concatenate(shares)


def _read(path: Path, key: str) -> Familiarity | None:
    """Read the cache; None if it is missing, damaged or of other weights."""
    if not path.exists():
        return None
    try:
        cached = read_arrays(path)
        if str(cached["key"]) != key:
            log.info("%s: belongs to other weights; computing it again", path)
            return None
        images = Familiar(cached["features"], float(cached["limit"]))
        return Familiarity(images, float(cached["smallest"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: cannot be read (%s); computing it again", path, error)
        return None

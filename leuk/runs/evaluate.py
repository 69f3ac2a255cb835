"""Evaluation of a trained classifier: scores, metrics, baselines, results at equal area, cost."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from sklearn.metrics import roc_auc_score
from torch import Tensor

from leuk.classifiers.base import BROKEN, Classifier, Predictions
from leuk.classifiers.prototypes import Prototyped
from leuk.data.datamodule import CNMCDataModule
from leuk.data.pixels import to_float
from leuk.data.splits import STAGES
from leuk.errors import TrainingError
from leuk.metrics.area import auroc_within_area_bins, cell_areas, scaled_to_one_size
from leuk.metrics.arrays import Floats, Images
from leuk.metrics.baselines import BASELINES, MEASURES, fit_baseline, measure_each
from leuk.metrics.bootstrap import bootstrap_intervals, few_subjects
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.classification import (
    DEFAULT,
    Sample,
    Thresholds,
    all_metrics,
    per_subject,
)
from leuk.metrics.cost import measure_cost
from leuk.metrics.referral import referral_record
from leuk.metrics.thresholds import choose_thresholds, few_patients, threshold_intervals
from leuk.runs.classifier import project_prototypes
from leuk.runs.record import Metrics, RunId, RunWarning, as_metrics
from leuk.runs.trainer import build_named, build_trainer, memory_errors
from leuk.store import csv_text, make_once, write_text

log = logging.getLogger(__name__)

_BATCH = 64

# --- The one way from images to scores


@dataclass(frozen=True, eq=False)
class Scorer:
    """Classifier on its device in evaluation mode, with the precision of a trainer."""

    classifier: Classifier
    trainer: Trainer
    batch_size: int = _BATCH  # of images that no data loader provides

    @classmethod
    def build(
        cls,
        cfg: DictConfig,
        folder: Path,
        classifier: Classifier,
        batch_size: int = _BATCH,
        **changes: Any,
    ) -> "Scorer":
        """Move a classifier to the first configured device.

        The trainer is not that of the training, in which weight averaging would swap the weights.
        ``changes`` and errors are those of :func:`leuk.runs.trainer.build_trainer`.
        """
        devices = cfg.trainer.devices
        callbacks = [*build_named(cfg.callbacks, ("channels_last",)).values()]
        trainer = build_trainer(
            cfg,
            folder,
            callbacks,
            logger=False,
            enable_checkpointing=False,
            inference_mode=False,  # explaining needs gradients
            devices=[devices[0]] if OmegaConf.is_list(devices) else 1,
            strategy="auto",
            **changes,
        )
        classifier.to(trainer.strategy.root_device).eval()
        for callback in callbacks:
            callback.setup(trainer, classifier, "test")
        return cls(classifier, trainer, batch_size)

    @property
    def device(self) -> torch.device:
        """Device of the classifier and its input."""
        device: torch.device = self.trainer.strategy.root_device
        return device

    def stage(self, data: CNMCDataModule, stage: str) -> Predictions:
        """Predict the images of ``val`` or ``test``, each once."""
        loop = self.trainer.validate if stage == "val" else self.trainer.test
        loop(self.classifier, datamodule=data, verbose=False)
        self.classifier.to(self.device).eval()  # Lightning moves it to the CPU
        return self.classifier.collected()

    def scores(self, images: Images | Tensor) -> Floats:
        """Probabilities of leukemia ``float64 (N,)``, as for the images of a stage.

        Args:
            images: pixels ``uint8 (N, R, R, 3)``, or images ``(N, 3, R, R)`` in [0, 1].

        Raises:
            TrainingError: a score is not finite, or a batch does not fit into memory.
        """
        logits = self._in_batches(self.classifier.predict_logits, images)
        if not bool(logits.isfinite().all()):
            raise TrainingError(BROKEN)
        return logits.double().softmax(dim=1)[:, 1].numpy()

    def features(self, images: Images | Tensor) -> npt.NDArray[np.float32]:
        """Features ``float32 (N, D)`` of images as for :meth:`scores`, without views."""
        return self._in_batches(self.classifier.features, images).numpy()

    @torch.no_grad()
    def _in_batches(self, function: Callable[[Tensor], Tensor], images: Images | Tensor) -> Tensor:
        results = []
        with memory_errors("batch_size", self.batch_size):
            for start in range(0, len(images), self.batch_size):
                batch = images[start : start + self.batch_size]
                if not isinstance(batch, Tensor):
                    pixels = torch.from_numpy(np.ascontiguousarray(batch))
                    batch = to_float(pixels.to(self.device))
                with self.trainer.precision_plugin.forward_context():
                    results.append(function(batch).float().cpu())
        return torch.cat(results)


# --- Evaluation of a run, a stage of leuk train


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of a classifier, with the fields of :class:`leuk.runs.record.Record`.

    Attributes:
        predicted: predictions of ``val`` and ``test``.
        predictions: file name of their table in the folder of the run.
        prototypes: figure and table of the classifier's prototypes; empty if it has none.
    """

    predicted: dict[str, Predictions]
    metrics: dict[str, Metrics]
    calibration: dict[str, float]
    referral: dict[str, Any]
    baselines: dict[str, Metrics]
    area: dict[str, Any]
    cost: dict[str, float | int | str]
    warnings: list[RunWarning]
    predictions: str = "predictions.csv"
    prototypes: dict[str, Any] = field(default_factory=dict)


def evaluate(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, scorer: Scorer, run: RunId
) -> Evaluation:
    """Predict validation and test images, and write ``predictions.csv`` and ``subjects.csv``."""
    classifier, prototypes = scorer.classifier, {}
    if isinstance(classifier, Prototyped) and classifier.prototypes is not None:
        prototypes = project_prototypes(classifier, data, scorer.device, folder)
    with memory_errors("data.batch_size", cfg.data.batch_size):
        predicted = {stage: scorer.stage(data, stage) for stage in ("val", "test")}

    val = sample_of(data, predicted["val"])
    thresholds, temperature = choose_on(val)
    val, test = (
        calibrated(sample, temperature) for sample in (val, sample_of(data, predicted["test"]))
    )
    samples = {"val": val, "test": test}
    metrics = {stage: compute_metrics(sample, thresholds) for stage, sample in samples.items()}
    intervals = threshold_intervals(val.scores, val.labels, val.subjects)
    doubts = [(stage, few_subjects(sample)) for stage, sample in samples.items()]
    doubts.append(("val", few_patients(val.labels, val.subjects)))

    baselines = baseline_scores(data, measure_images(data))
    images, patients = {}, {}  # rows of the tables by stage
    for stage, sample in samples.items():
        table = data.dataset.index.iloc[predicted[stage].rows.numpy()]
        images[stage] = (
            table[["path", "subject", "patient", "label"]]
            .assign(score=sample.scores, calibrated=sample.calibrated)
            .assign(split=run.split_name, seed=run.seed)
            .join(baselines.add_prefix("baseline_"))
        )
        patients[stage] = per_subject(sample, 0.5)
    for name, tables in ((Evaluation.predictions, images), ("subjects.csv", patients)):
        table = pd.concat(tables, names=["stage"]).reset_index("stage")
        write_text(folder / name, csv_text(table))
    resolution, device = cfg.data.resolution, scorer.device
    return Evaluation(
        predicted=predicted,
        metrics=metrics | {"thresholds": as_metrics(thresholds, intervals)},
        calibration={"temperature": temperature},
        referral=referral_record(val, test, thresholds["youden"], "youden"),
        baselines=assess_baselines(data, baselines),
        area=assess_area(data, predicted["test"], scorer.scores, device),
        cost=measure_cost(classifier, resolution, device, predict=classifier.predict_logits),
        warnings=[RunWarning("few", f"{stage}: {text}") for stage, text in doubts if text],
        prototypes=prototypes,
    )


def sample_of(data: CNMCDataModule, predictions: Predictions) -> Sample:
    """Join predictions with the patients of the images."""
    patients = data.dataset.index["patient"].to_numpy()[predictions.rows.numpy()]
    return Sample(predictions.scores.numpy(), predictions.labels.numpy(), patients.astype(str))


def choose_on(val: Sample) -> tuple[dict[str, float], float]:
    """Choose thresholds and temperature on validation images only."""
    thresholds = choose_thresholds(val.scores, val.labels, val.subjects)
    return thresholds, fit_temperature(val.scores, val.labels)


def calibrated(sample: Sample, temperature: float) -> Sample:
    """Add calibrated scores."""
    return replace(sample, calibrated=apply_temperature(sample.scores, temperature))


def compute_metrics(sample: Sample, thresholds: Thresholds) -> Metrics:
    """Compute all metrics of a sample with their 95 % intervals."""
    values = all_metrics(
        sample.scores, sample.labels, thresholds, sample.calibrated, sample.subjects
    )
    return as_metrics(values, bootstrap_intervals(sample, thresholds))


# --- Baselines, without which no model is reported

MEASURES_FORMAT = 1
"""Version in the cache key; increase it when a measure changes."""

_MEASURED_PER_CALL = 512


def measure_images(data: CNMCDataModule) -> pd.DataFrame:
    """Morphology of all images, indexed by row of the bank; computed once per pixel store.

    Measures are of the pixels at the data's resolution and framing, except the area, which is of
    the published image. An image without a lit pixel has 0 in all.
    """
    store = data.dataset.store

    def measure(target: Path) -> None:
        log.info("measuring %d images", len(store.pixels))
        starts = range(0, len(store.pixels), _MEASURED_PER_CALL)
        chunks = (np.asarray(store.pixels[start : start + _MEASURED_PER_CALL]) for start in starts)
        np.save(target / "measures.npy", np.concatenate([measure_each(chunk) for chunk in chunks]))

    key = {"format": MEASURES_FORMAT, "pixels": store.fingerprint, "measures": list(MEASURES)}
    folder = make_once(data.cache, "measures", key, measure)
    table = pd.DataFrame(np.load(folder / "measures.npy"), columns=list(MEASURES))
    return table.assign(area=store.areas.astype(np.float64))


def baseline_scores(data: CNMCDataModule, measures: pd.DataFrame) -> pd.DataFrame:
    """Scores of the baselines for validation and test images, fitted on training images.

    Returns:
        A column of scores in [0, 1] per entry of :data:`BASELINES`, indexed by row of the bank.
    """
    train, *others = (data.stage(stage) for stage in STAGES)
    # In the thesis's split, test images are validation images too.
    rows = pd.concat(others).index.unique()
    columns = {}
    for name in BASELINES:
        score = fit_baseline(name, measures.loc[train.index], train["label"].to_numpy(np.int64))
        columns[name] = score(measures.loc[rows])
    return pd.DataFrame(columns, index=rows)


def assess_baselines(data: CNMCDataModule, scores: pd.DataFrame) -> dict[str, Metrics]:
    """Test metrics of each baseline, with thresholds and temperature from validation images."""
    results = {}
    for name, column in scores.items():
        val, test = (
            Sample(
                column[table.index].to_numpy(),
                table["label"].to_numpy(np.int64),
                table["patient"].to_numpy().astype(str),
            )
            for table in (data.stage("val"), data.stage("test"))
        )
        thresholds, temperature = choose_on(val)
        results[str(name)] = compute_metrics(calibrated(test, temperature), thresholds)
    return results


# --- Results at equal area of the cells


def assess_area(
    data: CNMCDataModule,
    test: Predictions,
    score: Callable[[Tensor], Floats],
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
        :func:`leuk.metrics.area.auroc_within_area_bins`; ``area_within_bins`` and
        ``area_within_bins_patients``: the same with the area as the score, by image and by patient;
        ``one_size``: results with all cells scaled to ``target_area``, the mean share of the image
        that training cells cover: ``metrics`` with intervals, at the threshold 0.5, and the AUROC
        of the area after scaling, ``area_auroc``, and before, ``area_auroc_before``.
    """
    sample, rows = sample_of(data, test), test.rows
    areas = data.dataset.store.areas[rows.numpy()].astype(np.float64)
    train, cpu = torch.tensor(data.stage("train").index.to_numpy()), torch.device("cpu")
    of_train = [cell_areas(data.bank.gather(part, cpu)["images"]) for part in train.split(_BATCH)]
    target = float(torch.cat(of_train).mean())
    scores, scaled_areas = [], []
    with torch.inference_mode():
        for batch in rows.split(_BATCH):
            images = scaled_to_one_size(data.bank.gather(batch, device)["images"], target)
            scores.append(score(images))
            scaled_areas.append(cell_areas(images).cpu())
    scaled = replace(sample, scores=np.concatenate(scores).astype(np.float64))
    alone = auroc_within_area_bins(replace(sample, scores=areas), areas)
    return {
        "within_bins": auroc_within_area_bins(sample, areas),
        "area_within_bins": alone["value"],
        "area_within_bins_patients": alone["patients"]["value"],
        "one_size": {
            "target_area": target,
            "metrics": compute_metrics(scaled, {DEFAULT: 0.5}),
            "area_auroc": float(roc_auc_score(sample.labels, torch.cat(scaled_areas).numpy())),
            "area_auroc_before": float(roc_auc_score(sample.labels, areas)),
        },
    }

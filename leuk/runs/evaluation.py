"""Evaluation of a trained classifier: predictions, metrics, explanations, area, cost."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import Tensor

from leuk.classifiers.classifier import Classifier, Predictions
from leuk.classifiers.prototyped import Prototyped
from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.evaluate.cost import measure_cost
from leuk.explain.callback import Explain
from leuk.explain.study import COHORT
from leuk.grid.record import Record, RunWarning
from leuk.runs.assess import (
    assess,
    assess_area,
    assess_baselines,
    baseline_scores,
    save_predictions,
    save_subjects,
)
from leuk.runs.fitting import build_named, build_trainer, memory_errors, one_device
from leuk.runs.measures import measure_images
from leuk.runs.prototypes import project_prototypes

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

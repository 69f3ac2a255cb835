"""What a fitted classifier is asked: validation and test cells, explanations, area, cost."""

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
from leuk.runs.measures import measured
from leuk.runs.prototypes import tie_prototypes

EXPLANATIONS = "explanations"
"""Where a cell keeps them, below its folder."""


def judge(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, classifier: Classifier, record: Record
) -> None:
    """Ask the weights about validation and test cells, explain, and take down the figures."""
    explain = explain_callback(cfg, folder / EXPLANATIONS, record.run.folder)
    # A trainer of its own: weight averaging, where it is used, swaps weights in one that fitted.
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
        tied = tie_prototypes(classifier, data, device, folder, record.run.folder)
        record.explanations["prototypes"] = tied
    judged = {}
    for part, ask in (("val", trainer.validate), ("test", trainer.test)):
        with memory_errors("data.batch_size", cfg.data.batch_size):
            ask(classifier, datamodule=data, verbose=False)
        judged[part] = classifier.collected()
    _take_down(folder, data, judged, record)
    record.explanations |= explain.summary
    record.warnings += warnings_of(explain.summary)
    classifier.to(device).eval()
    record.area = assess_area(data, judged["test"], _scorer(classifier, trainer), device)
    record.cost = measure_cost(
        classifier, cfg.data.resolution, device, predict=classifier.predict_logits
    )


def warnings_of(summary: Mapping[str, Any]) -> list[RunWarning]:
    """Warnings in a summary of explanations."""
    return [RunWarning(**warning) for warning in summary.get(COHORT, {}).get("warnings", [])]


def explain_callback(cfg: DictConfig, folder: Path, name: str) -> Explain:
    """What explains test cells as a config says.

    Args:
        cfg: with ``explain``, ``checks`` and the keys beside them.
        folder: where the files go.
        name: of the model, over every picture.
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


def _take_down(
    folder: Path, data: CNMCDataModule, judged: dict[str, Predictions], record: Record
) -> None:
    """Metrics and predictions of the classifier and of the baselines."""
    assessed = assess(data, judged)
    baselines = baseline_scores(data, measured(data))
    record.metrics = assessed.metrics
    record.calibration = {"temperature": assessed.temperature}
    record.referral = assessed.referral
    record.baselines = assess_baselines(data, baselines)
    record.warnings += [RunWarning("few", text) for text in assessed.warnings]
    record.predictions = "predictions.csv"
    save_predictions(
        folder / record.predictions, data, judged, assessed.temperature, baselines, record.run
    )
    save_subjects(folder / "subjects.csv", assessed.samples)


def _scorer(classifier: Classifier, trainer: Trainer) -> Callable[[Tensor], Tensor]:
    """Scores of images that no loader has, as the trainer's own loops make them."""

    def score(images: Tensor) -> Tensor:
        with trainer.precision_plugin.forward_context():
            logits = classifier.predict_logits(images)
        return logits.double().softmax(dim=1)[:, 1]

    return score

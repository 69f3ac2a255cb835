"""What a fitted classifier is asked: validation and test cells, explanations, area, cost."""

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Trainer
from omegaconf import DictConfig
from torch import Tensor

from leuk.classifiers.classifier import Classifier, Predictions
from leuk.classifiers.prototyped import Prototyped
from leuk.data.datamodule import CNMCDataModule
from leuk.evaluate.cost import cost_of
from leuk.explain.callback import Explain
from leuk.grid.record import Record
from leuk.runs.assess import (
    assess,
    assess_area,
    assess_baselines,
    baseline_scores,
    save_predictions,
    save_subjects,
)
from leuk.runs.fitting import build_named, build_trainer
from leuk.runs.measures import measured
from leuk.runs.prototypes import tie_prototypes


def judge(
    cfg: DictConfig, folder: Path, data: CNMCDataModule, classifier: Classifier, record: Record
) -> None:
    """Ask the weights about validation and test cells, explain, and take down the figures."""
    explain = Explain(
        build_named(cfg.explain), folder / "explanations", cfg.explain_cells, record.cell.folder
    )
    # A trainer of its own: weight averaging, where it is used, swaps weights in one that fitted.
    trainer = build_trainer(
        cfg,
        folder,
        [*build_named(cfg.callbacks, ("channels_last",)).values(), explain],
        logger=False,
        enable_checkpointing=False,
        inference_mode=False,  # explaining needs gradients
    )
    device = trainer.strategy.root_device
    if isinstance(classifier, Prototyped) and classifier.prototypes is not None:
        tied = tie_prototypes(classifier, data, device, folder, record.cell.folder)
        record.explanations["prototypes"] = tied
    judged = {}
    for part, ask in (("val", trainer.validate), ("test", trainer.test)):
        ask(classifier, datamodule=data, verbose=False)
        judged[part] = classifier.collected()
    _take_down(folder, data, judged, record)
    record.explanations |= explain.summary
    record.warnings += [
        f"{name}: {summary['degenerate']} of {summary['cells']} maps are degenerate"
        for name, summary in explain.summary.items()
        if summary["degenerate"]
    ]
    classifier.to(device).eval()
    record.area = assess_area(data, judged["test"], _scorer(classifier, trainer), device)
    record.cost = cost_of(classifier, cfg.data.resolution, device, ask=classifier.asked)


def _take_down(
    folder: Path, data: CNMCDataModule, judged: dict[str, Predictions], record: Record
) -> None:
    """Figures and predictions of the classifier and of the baselines."""
    assessed = assess(data, judged)
    baselines = baseline_scores(data, measured(data))
    record.metrics = assessed.metrics
    record.calibration = {"temperature": assessed.temperature}
    record.baselines = assess_baselines(data, baselines)
    record.warnings += assessed.warnings
    record.predictions = "predictions.csv"
    save_predictions(
        folder / record.predictions, data, judged, assessed.temperature, baselines, record.cell
    )
    save_subjects(folder / "subjects.csv", assessed.samples)


def _scorer(classifier: Classifier, trainer: Trainer) -> Callable[[Tensor], Tensor]:
    """Scores of images that no loader has, as the trainer's own loops make them."""

    def score(images: Tensor) -> Tensor:
        with trainer.precision_plugin.forward_context():
            logits = classifier.asked(images)
        return logits.double().softmax(dim=1)[:, 1]

    return score

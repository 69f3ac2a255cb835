"""Callback that explains test images after testing, with the best weights, on the same device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from leuk.classifiers.base import Classifier, Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.explain.base import Explainer
from leuk.explain.cohort import evaluated_cohort
from leuk.explain.quality.checks import CheckSettings
from leuk.explain.study import Study


class Explain(Callback):
    """After testing, explain a sample of test images with every method.

    Args:
        explainers: the methods by name.
        folder: output folder, see :meth:`leuk.explain.study.Study.of`.
        shown: number of test images that get figures.
        checked: number of test images to explain if ``checks`` is set, shown images included.
        background: number of training images that methods may compare with.
        checks: settings of the quality checks; None skips them.
        name: name of the run, in the title of every figure.

    Attributes:
        count: number of test images to explain.
        summary: the result of :meth:`leuk.explain.study.Study.of`; empty without methods.
    """

    def __init__(
        self,
        explainers: Mapping[str, Explainer],
        folder: Path,
        shown: int,
        checked: int = 0,
        background: int = 64,
        checks: CheckSettings | None = None,
        name: str = "",
    ) -> None:
        self.explainers, self.folder, self.name = explainers, folder, name
        self.shown, self.background, self.checks = shown, background, checks
        # Without checks, images beyond the shown ones would be explained for nothing.
        self.count = max(shown, checked) if checks else shown
        self.summary: dict[str, Any] = {}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CNMCDataModule)
        predictions = pl_module.collected()
        if trainer.is_global_zero:
            self.summary = self.explained(trainer, pl_module, data, predictions)

    def explained(
        self,
        trainer: Trainer,
        classifier: Classifier,
        data: CNMCDataModule,
        predictions: Predictions,
    ) -> dict[str, Any]:
        """Explain a sample of predicted test images, see :meth:`leuk.explain.study.Study.of`.

        Args:
            trainer: provides the precision.
            classifier: classifier on its device, in evaluation mode.
            data: data module of the test images.
            predictions: predictions of the test images.
        """
        if not self.explainers:
            return {}
        cohort = evaluated_cohort(data, predictions, self.shown, self.count, self.background)
        with torch.no_grad():
            return self.study(trainer).of(classifier, cohort)

    def study(self, trainer: Trainer) -> Study:
        """Study with this callback's settings, predicting in the precision of ``trainer``."""
        context = trainer.precision_plugin.forward_context
        return Study(self.explainers, self.folder, self.name, context, self.checks)

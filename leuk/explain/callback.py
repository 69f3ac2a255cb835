"""Explains test cells once a classifier has been tested, on its best weights and its device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from leuk.classifiers.classifier import Classifier
from leuk.data.datamodule import CNMCDataModule
from leuk.explain.checks import CheckSettings
from leuk.explain.cohort import judged_cohort
from leuk.explain.explainer import Explainer
from leuk.explain.study import Study


class Explain(Callback):
    """After testing, attribute the log-odds of leukemia of chosen test cells with every method.

    Args:
        explainers: the methods by name.
        folder: where the files go, see :meth:`leuk.explain.study.Study.of`.
        shown: how many test cells get pictures.
        checked: how many are explained where there are checks, the shown ones among them.
        background: how many training cells a method may compare with.
        checks: what is measured of the explanations; nothing where it is None.
        name: of the cell of the grid, over every picture.

    Attributes:
        count: how many test cells are explained.
        summary: what :meth:`leuk.explain.study.Study.of` returned; empty without methods.
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
        self.explainers = explainers
        self.folder = folder
        self.shown = shown
        # Nothing would be done with the others.
        self.count = max(shown, checked) if checks else shown
        self.background = background
        self.checks = checks
        self.name = name
        self.summary: dict[str, Any] = {}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CNMCDataModule)
        predictions = pl_module.collected()
        if not trainer.is_global_zero or not self.explainers:
            return
        cohort = judged_cohort(data, predictions, self.shown, self.count, self.background)
        self.summary = self.study(trainer).of(pl_module, cohort)

    def study(self, trainer: Trainer) -> Study:
        """What explains any cohort as this does, asking in the precision of ``trainer``."""
        asking = trainer.precision_plugin.forward_context
        return Study(self.explainers, self.folder, self.name, asking, self.checks)

"""Explains test cells once a classifier has been tested, on its best weights and its device."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from leuk.classifiers.classifier import Classifier, Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.explain.choice import choose_cells
from leuk.explain.explainer import Attribution, Explainer
from leuk.explain.overlays import save_overlays

log = logging.getLogger(__name__)


class Explain(Callback):
    """After testing, attribute the leukemic logit of chosen test cells with every method.

    Writes ``<method>.png`` (pictures) and ``<method>.npz`` (``maps``, ``rows``) per method.

    Args:
        explainers: the methods.
        folder: where the files go.
        count: how many test cells.
        name: of the cell of the grid, over every picture.

    Attributes:
        summary: per method: the files, how many maps there are, how many of them are degenerate,
            and the seconds they took.
    """

    def __init__(
        self, explainers: Mapping[str, Explainer], folder: Path, count: int, name: str = ""
    ) -> None:
        self.explainers = explainers
        self.folder = folder
        self.count = count
        self.name = name
        self.summary: dict[str, dict[str, Any]] = {}

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CNMCDataModule)
        predictions = pl_module.collected()
        if not trainer.is_global_zero or not self.explainers:
            return
        chosen = _choose(data, predictions, self.count)
        images = data.bank.gather(predictions.rows[chosen], pl_module.device)["images"]
        captions = _captions(data, predictions, chosen)
        self.folder.mkdir(parents=True, exist_ok=True)
        for explainer in self.explainers.values():
            attribution = explainer.attribute(pl_module, images, Label.ALL)
            self._save(explainer.name, attribution, images, predictions.rows[chosen], captions)

    def _save(
        self,
        name: str,
        attribution: Attribution,
        images: Tensor,
        rows: Tensor,
        captions: list[str],
    ) -> None:
        degenerate = int(attribution.degenerate.sum())
        if degenerate:
            log.warning("%s: %d of %d maps are degenerate", name, degenerate, len(rows))
        np.savez_compressed(
            self.folder / f"{name}.npz", maps=attribution.maps.numpy(), rows=rows.numpy()
        )
        save_overlays(
            self.folder / f"{name}.png",
            images.cpu(),
            attribution,
            captions,
            f"{self.name}\n{name}: evidence for leukemia (orange), against it (purple), test cells",
            "attribution to the leukemic logit",
        )
        self.summary[name] = {
            "picture": f"{self.folder.name}/{name}.png",
            "arrays": f"{self.folder.name}/{name}.npz",
            "cells": len(rows),
            "degenerate": degenerate,
            "seconds": round(attribution.seconds, 3),
        }


def _choose(data: CNMCDataModule, predictions: Predictions, count: int) -> list[int]:
    table = pd.DataFrame(
        {
            "label": predictions.labels.numpy(),
            "decided": (predictions.scores >= 0.5).long().numpy(),
            "subject": data.dataset.cells["subject"].to_numpy()[predictions.rows.numpy()],
        }
    )
    return choose_cells(table, count)


def _captions(data: CNMCDataModule, predictions: Predictions, chosen: list[int]) -> list[str]:
    cells = data.dataset.cells
    subjects = cells["subject"].to_numpy()[predictions.rows[chosen].numpy()]
    scores = predictions.scores[chosen]
    right = (scores >= 0.5).long() == predictions.labels[chosen]
    return [
        f"{who}  {score:.2f}  {'right' if is_right else 'wrong'}"
        for who, score, is_right in zip(subjects, scores.tolist(), right.tolist(), strict=True)
    ]

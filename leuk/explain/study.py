"""Explanation of a cohort: attributions, checks, figures and a summary.

Used at the end of a run and by ``leuk explain``.
"""

import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from leuk.classifiers.base import Classifier, Predictions
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.explain.base import Attribution, Explainer, possible_explainers
from leuk.explain.cohort import DECIDED, MEANING, Cohort, evaluated_cohort
from leuk.explain.figures import draw_all, panel_name
from leuk.explain.quality.checks import CheckSettings, check, save_checks
from leuk.progress import ONCE, PASSING
from leuk.store import csv_text, whole_file, write_json, write_text

log = logging.getLogger(__name__)

COHORT = "cohort"
"""Key in a summary, beside the methods, of the entries that cover all methods."""

_CHUNK = 16
"""Images per call of a method, so that device memory does not grow with the cohort."""


@dataclass(frozen=True)
class Study:
    """Methods, output folder and checks of an explanation; ``title`` is over every figure.

    Every call of the classifier is in ``context()``, such as the trainer's precision.
    """

    explainers: Mapping[str, Explainer]
    folder: Path
    title: str
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    checks: CheckSettings | None = None

    def of(self, classifier: Classifier, cohort: Cohort) -> dict[str, Any]:
        """Explain a cohort and write the results.

        Files: ``manifest.csv`` with a row per image, in the order of the arrays; ``<method>.npz``
        and ``<method>.png``; a figure of each shown image under ``panels/``; ``cohort.png``;
        ``figure_9.png`` to ``figure_11.png``, depending on the methods; the files of
        :func:`leuk.explain.quality.checks.save_checks`; and ``summary.json``, the returned values.

        Returns:
            Plain values: for each method its files, ``images`` (number of images), ``degenerate``,
            ``seconds``, the mean of each of its own ``checks`` and the main ``measures``; under
            :data:`COHORT` the controls' measures and ``warnings``.

        Raises:
            ConfigError: a method does not support this classifier.
        """
        explainers, left_out = possible_explainers(self.explainers, classifier)
        for name, reason in left_out.items():
            log.info("%s: skipped, %s", name, reason, extra=ONCE)
        on_gpu = classifier.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(classifier.device)
        found = {
            name: self._attributed(name, explainer, classifier, cohort)
            for name, explainer in explainers.items()
        }
        own, of_all = self._check(explainers, found, classifier, cohort)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
        if on_gpu:
            peak["device"] = torch.cuda.max_memory_allocated(classifier.device)
        pictures = draw_all(self.folder, self.title, classifier, cohort, explainers, found)
        below = self.folder.name
        summary: dict[str, Any] = {
            name: {
                "picture": f"{below}/{name}.png",
                "arrays": f"{below}/{name}.npz",
                "images": len(maps.maps),
                "degenerate": int(maps.degenerate.sum()),
                "seconds": round(maps.seconds, 3),
                "seconds_per_image": round(maps.seconds / len(maps.maps), 5),
                "checks": {check: _finite_mean(values) for check, values in maps.checks.items()},
            }
            | own.get(name, {})
            for name, maps in found.items()
        }
        warnings = [
            (
                "degenerate",
                f"{name}: {entry['degenerate']} of {entry['images']} maps are degenerate",
            )
            for name, entry in summary.items()
            if entry["degenerate"]
        ]
        # Explanations of a class without a correct prediction show errors only.
        warnings += [
            (
                "other",
                f"explanations: no {outcome} ({MEANING[outcome]}) among the predicted images; the "
                "explanations of this class show errors only",
            )
            for outcome in cohort.missing
            if outcome.startswith("true")
        ]
        for _, text in warnings:
            log.warning("%s: %s", self.title, text)
        summary[COHORT] = {
            "manifest": f"{below}/manifest.csv",
            "images": len(cohort.table),
            "outcomes": {outcome: len(cohort.of(outcome)) for outcome in cohort.outcomes},
            "background": len(cohort.background),
            "left_out": left_out,
            "pictures": [f"{below}/{picture}" for picture in pictures],
            "peak_memory_bytes": peak,
            "warnings": [{"kind": kind, "text": text} for kind, text in warnings],
        } | of_all
        table = cohort.table.drop(columns="shown")
        table["label"] = table["label"].where(table["label"] >= 0).astype("Int64")
        rows = zip(table["row"], cohort.table["shown"], strict=True)
        table["picture"] = [panel_name(row) if shown else "" for row, shown in rows]
        write_text(self.folder / "manifest.csv", csv_text(table))
        write_json(self.folder / "summary.json", summary)
        return summary

    def _attributed(
        self, name: str, explainer: Explainer, classifier: Classifier, cohort: Cohort
    ) -> Attribution:
        """Attribute the whole cohort in chunks and save the arrays."""
        started, device = time.perf_counter(), classifier.device
        background = cohort.background.to(device)
        with self.context():
            parts = [
                explainer.attribute(classifier, images.to(device), Label.ALL, background)
                for images in cohort.images.split(_CHUNK)
            ]
        found = Attribution.join(parts)
        taken, count = time.perf_counter() - started, len(found.maps)
        rate = f"{count / taken:.1f}" if count < 100 * taken else f"{count / taken:,.0f}"
        facts = (self.title, name, count, taken, rate)
        log.info("%s: %s: %d images, %.1f s, %s images/s", *facts, extra=PASSING)
        arrays: dict[str, Any] = {
            "maps": found.maps.numpy(),
            "rows": cohort.table["row"].to_numpy(np.int64),
            "unit": np.array(found.unit),
            "signed": np.array(found.signed),
        }
        if found.segments is not None:
            arrays["segments"] = found.segments.numpy().astype(np.int32)
        arrays |= {f"check_{check}": values.numpy() for check, values in found.checks.items()}
        with whole_file(self.folder / f"{name}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)
        return found

    def _check(
        self,
        explainers: Mapping[str, Explainer],
        found: Mapping[str, Attribution],
        classifier: Classifier,
        cohort: Cohort,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Check the methods; returns entries of the summary, by method and for all of them."""
        if self.checks is None or not found:
            return {}, {}
        started, table = time.perf_counter(), cohort.table
        log.info("%s: checking %d methods on %d images", self.title, len(found), len(table))
        with self.context():
            checked = check(
                classifier,
                explainers,
                found,
                cohort.images,
                cohort.background,
                table["patient"].to_numpy().astype(str),
                torch.tensor((table["score"] >= DECIDED).to_numpy(np.int64)),
                self.checks,
            )
        log.info("%s: checked in %.1f s", self.title, time.perf_counter() - started)
        titles = {name: maps.title for name, maps in found.items()}
        return save_checks(self.folder, checked, table["row"].to_numpy(), titles, self.title)


def _finite_mean(values: Tensor) -> float | None:
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else None


@dataclass(frozen=True)
class Explain:
    """Explanation of a run, for any cohort."""

    explainers: Mapping[str, Explainer]
    folder: Path
    shown: int  # number of images with figures
    checked: int = 0  # number of images to explain if there are checks, shown images included
    background: int = 64  # number of training images that methods may compare with
    checks: CheckSettings | None = None
    name: str = ""

    @property
    def count(self) -> int:
        """Number of images to explain; without checks, only those with figures."""
        return max(self.shown, self.checked) if self.checks else self.shown

    def explained(
        self,
        trainer: Trainer,
        classifier: Classifier,
        data: CNMCDataModule,
        predictions: Predictions,
    ) -> dict[str, Any]:
        """Explain a sample of predicted test images, see :meth:`Study.of`; empty without methods.

        The classifier is on its device, in evaluation mode; ``trainer`` provides the precision.
        """
        if not self.explainers:
            return {}
        cohort = evaluated_cohort(data, predictions, self.shown, self.count, self.background)
        with torch.no_grad():
            return self.study(trainer).of(classifier, cohort)

    def study(self, trainer: Trainer) -> Study:
        """Study with these settings, predicting in the precision of ``trainer``."""
        context = trainer.precision_plugin.forward_context
        return Study(self.explainers, self.folder, self.name, context, self.checks)

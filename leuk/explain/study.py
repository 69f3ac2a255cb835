"""From a fitted classifier and a cohort to attributions, checks, pictures and a summary.

The same whether the cells are explained at the end of a run or later.
"""

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leuk.classifiers.classifier import Classifier
from leuk.data.labels import Label
from leuk.explain.check_tables import save_checks
from leuk.explain.checked import Checked
from leuk.explain.checks import CheckSettings, check
from leuk.explain.choice import possible_explainers
from leuk.explain.cohort import DECIDED, MEANING, Cohort
from leuk.explain.explainer import Attribution, Explainer
from leuk.explain.gallery import draw_all
from leuk.explain.panels import panel_name
from leuk.store.atomic import whole_file, write_json, write_text
from leuk.store.spreadsheet import csv_text

log = logging.getLogger(__name__)

COHORT = "cohort"
"""Beside the methods in a summary: what is said of all of them together."""

_CHUNK = 16
"""Cells at a time: what is on the device does not grow with the cohort."""


@dataclass(frozen=True)
class Study:
    """How cells are explained.

    Attributes:
        explainers: the methods by name; files are called so.
        folder: where everything goes.
        title: of the model, over every picture.
        asking: what to open around every question to the classifier, such as its trainer's
            precision.
        checks: what is measured of the explanations; nothing where it is None.
    """

    explainers: Mapping[str, Explainer]
    folder: Path
    title: str
    asking: Callable[[], AbstractContextManager[Any]] = nullcontext
    checks: CheckSettings | None = None

    def of(self, classifier: Classifier, cohort: Cohort) -> dict[str, Any]:
        """Explain a cohort and write what was found.

        Below the folder: ``manifest.csv``, a line a cell; for each method ``<method>.npz`` and
        ``<method>.png``; ``cells/``, a picture of each shown cell; ``cohort.png``; ``figure_9.png``
        to ``figure_11.png`` where there is something to show; the tables of
        :func:`leuk.explain.check_tables.save_checks` where there are checks; and ``summary.json``,
        what is returned.

        Args:
            classifier: fitted; on its device.
            cohort: the cells.

        Returns:
            Plain values: for each method its files, ``cells``, ``degenerate``, ``seconds``, the
            mean of each of its own ``checks`` and the main ``measures``; and ``cohort``, with the
            controls' measures and with ``warnings`` for a reader.

        Raises:
            ConfigError: a method that this classifier cannot be explained with.
        """
        explainers, left_out = possible_explainers(self.explainers, classifier)
        for name, why in left_out.items():
            log.info("%s: %s: left out, %s", self.title, name, why)
        with _peak_of(classifier.device) as peak:
            found = {
                name: self._attributed(name, explainer, classifier, cohort)
                for name, explainer in explainers.items()
            }
            checked = self._checked(explainers, found, classifier, cohort)
        pictures = draw_all(self.folder, self.title, classifier, cohort, found)
        summary = {name: self._said(name, maps) for name, maps in found.items()}
        warnings = [*_degenerate(summary), *_missing(cohort)]
        for warning in warnings:
            log.warning("%s: %s", self.title, warning)
        together = {
            "manifest": self._place("manifest.csv"),
            "cells": len(cohort.cells),
            "outcomes": {outcome: len(cohort.of(outcome)) for outcome in cohort.outcomes},
            "background": len(cohort.background),
            "left_out": left_out,
            "pictures": [self._place(picture) for picture in pictures],
            "peak_memory_bytes": peak,
            "warnings": warnings,
        }
        if checked is not None:
            own, of_all = save_checks(self.folder, checked, cohort, self.title)
            summary = {name: said | own[name] for name, said in summary.items()}
            together |= of_all
        summary[COHORT] = together
        write_text(self.folder / "manifest.csv", manifest(cohort))
        write_json(self.folder / "summary.json", summary)
        return summary

    def _checked(
        self,
        explainers: Mapping[str, Explainer],
        found: Mapping[str, Attribution],
        classifier: Classifier,
        cohort: Cohort,
    ) -> Checked | None:
        if self.checks is None or not found:
            return None
        started = time.perf_counter()
        cells = cohort.cells
        log.info("%s: checking %d methods on %d cells", self.title, len(found), len(cells))
        with self.asking():
            checked = check(
                classifier,
                explainers,
                found,
                cohort.images,
                cohort.background,
                cells["group"].to_numpy().astype(str),
                torch.tensor((cells["score"] >= DECIDED).to_numpy(np.int64)),
                self.checks,
            )
        log.info("%s: checked in %.1f s", self.title, time.perf_counter() - started)
        return checked

    def _place(self, name: str) -> str:
        return f"{self.folder.name}/{name}"

    def _attributed(
        self, name: str, explainer: Explainer, classifier: Classifier, cohort: Cohort
    ) -> Attribution:
        """Maps of the whole cohort, chunk by chunk, kept as arrays."""
        started = time.perf_counter()
        device = classifier.device
        background = cohort.background.to(device)
        with self.asking():
            parts = [
                explainer.attribute(classifier, images.to(device), Label.ALL, background)
                for images in cohort.images.split(_CHUNK)
            ]
        found = _joined(parts)
        taken = time.perf_counter() - started
        count = len(found.maps)
        rate = f"{count / taken:.1f}" if count < 100 * taken else f"{count / taken:,.0f}"
        log.info("%s: %s: %d cells, %.1f s, %s cells/s", self.title, name, count, taken, rate)
        _save_arrays(self.folder / f"{name}.npz", found, cohort)
        return found

    def _said(self, name: str, maps: Attribution) -> dict[str, Any]:
        return {
            "picture": self._place(f"{name}.png"),
            "arrays": self._place(f"{name}.npz"),
            "cells": len(maps.maps),
            "degenerate": int(maps.degenerate.sum()),
            "seconds": round(maps.seconds, 3),
            "seconds_per_cell": round(maps.seconds / len(maps.maps), 5),
            "checks": {check: _mean(values) for check, values in maps.checks.items()},
        }


def manifest(cohort: Cohort) -> str:
    """The cells as CSV, in the order of the arrays.

    Columns: ``row``, ``subject``, ``group``, ``file``, ``label`` (empty where unknown), ``score``,
    ``outcome`` and ``picture`` (empty where there is none), relative to the manifest.
    """
    table = cohort.cells.drop(columns="shown")
    table["label"] = table["label"].where(table["label"] >= 0).astype("Int64")
    table["picture"] = [
        panel_name(row) if shown else ""
        for row, shown in zip(cohort.cells["row"], cohort.cells["shown"], strict=True)
    ]
    return csv_text(table)


def _joined(parts: Sequence[Attribution]) -> Attribution:
    """Attributions of chunks as one."""
    first = parts[0]
    segments = [part.segments for part in parts if part.segments is not None]
    return Attribution(
        torch.cat([part.maps for part in parts]),
        first.unit,
        sum(part.seconds for part in parts),
        {name: torch.cat([part.checks[name] for part in parts]) for name in first.checks},
        torch.cat(segments) if segments else None,
        first.signed,
    )


def _save_arrays(path: Path, found: Attribution, cohort: Cohort) -> None:
    arrays: dict[str, Any] = {
        "maps": found.maps.numpy(),
        "rows": cohort.rows.numpy(),
        "unit": np.array(found.unit),
        "signed": np.array(found.signed),
    }
    if found.segments is not None:
        arrays["segments"] = found.segments.numpy().astype(np.int32)
    arrays |= {f"check_{name}": values.numpy() for name, values in found.checks.items()}
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _mean(values: Tensor) -> float | None:
    """Mean of the finite ones."""
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else None


def _degenerate(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{name}: {said['degenerate']} of {said['cells']} maps are degenerate"
        for name, said in summary.items()
        if said["degenerate"]
    ]


def _missing(cohort: Cohort) -> list[str]:
    """Classes of which no cell was called rightly: what is explained there are errors."""
    return [
        f"explanations: no {outcome} ({MEANING[outcome]}) among the judged cells; what is "
        "explained of this class are errors alone"
        for outcome in cohort.missing
        if outcome.startswith("true")
    ]


@contextmanager
def _peak_of(device: torch.device) -> Iterator[dict[str, int]]:
    """Peak memory, filled in at the end: of the process since its start, and of a GPU within."""
    peak: dict[str, int] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield peak
    unit = 1 if sys.platform == "darwin" else 1024
    peak["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device)

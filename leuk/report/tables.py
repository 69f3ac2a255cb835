"""The main table of a sweep, and what has to be said before believing it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean

import numpy as np
import pandas as pd

from leuk.evaluate.intervals import few_subjects
from leuk.evaluate.metrics import ranking_metrics
from leuk.evaluate.sample import Sample
from leuk.grid.cell import CUT
from leuk.report.baselines import AREA, baseline_of, baselines
from leuk.report.leaking import leaking_gains
from leuk.report.lines import DRAWS, Line, draws_for, group_lines, run_lines
from leuk.report.results import Group, Results
from leuk.report.sections import Grid, Section, interval_text

COLUMNS = {
    "AUROC": "auroc",
    "AUPRC": "auprc",
    "bal. acc.": "balanced_accuracy",
    "sens.": "sensitivity",
    "spec.": "specificity",
    "F1 macro": "f1_macro",
    "F1 weighted": "f1_weighted",
    "MCC": "mcc",
}
"""Headings of the main columns, and the figures under them; the CSV has every figure."""

CHOSEN = {
    "bal. acc. (Youden)": "balanced_accuracy@youden",
    "sens. (Youden)": "sensitivity@youden",
    "spec. (Youden)": "specificity@youden",
    "bal. acc. (sens. 0.95)": "balanced_accuracy@sensitivity95",
    "sens. (sens. 0.95)": "sensitivity@sensitivity95",
    "spec. (sens. 0.95)": "specificity@sensitivity95",
}
"""The same for thresholds that were chosen on validation cells."""

CALIBRATION = {
    "Brier": "brier",
    "Brier (calibrated)": "brier_calibrated",
    "ECE": "ece",
    "ECE (calibrated)": "ece_calibrated",
}
"""The same for scores as probabilities."""

NOTES = """\
Test part only. Positive = leukemia (all), so sensitivity is the recall of leukemic cells and
specificity that of healthy ones. Figures are means over folds and seeds, in brackets their 95 %
interval from {draws} resamples of persons (and of seeds, where there are several), not of cells.
Decisions at a score of 0.5. F1 macro is the plain mean of both classes' F1, F1 weighted that by
class size; a precision or F1 of a class that nobody was assigned to counts as 0."""

FEWER = """\
Beyond 60 runs intervals come from fewer than 1,000 resamples, so that the report stays quick."""

CHOSEN_NOTES = """\
Thresholds were chosen on the validation part, by the largest sensitivity + specificity (Youden) and
as the largest that finds 95 % of leukemic cells there (sens. 0.95), and used on the test part."""

CALIBRATION_NOTES = """\
Brier: mean squared error of the score as a probability. ECE: expected calibration error over 15
bins. Calibrated: after temperature scaling, fitted on the validation part."""


def main_section(
    name: str, results: Results, groups: Sequence[Group], elsewhere: Iterable[str] = ()
) -> Section:
    """The main table: lines of all groups, baselines, and remarks.

    Args:
        name: of the sweep.
        results: what was read.
        groups: its groups and what the report added, such as the ensembles.
        elsewhere: further remarks, one Markdown list item each.
    """
    draws = draws_for(groups)
    lines = group_lines(groups, draws)
    shown = [*lines, *group_lines(baselines(groups), draws, "baseline")]
    notes = NOTES.format(draws=f"{draws:,}") + (f"\n{FEWER}" if draws < DRAWS else "")
    shared = "Common to all lines of a split: " + "; ".join(results.shared) + "."
    remarks = [*leaking_gains(results.records), *_remarks(results, groups, lines), *elsewhere]
    parts: list[Grid | str] = [shared, _grid(shown, COLUMNS), notes, "\n".join(remarks)]
    if any("sensitivity@youden" in line.figures for line in shown):
        parts += ["## At chosen thresholds", _grid(shown, CHOSEN), CHOSEN_NOTES]
    if any("brier" in line.figures for line in shown):
        parts += ["## Calibration", _grid(shown, CALIBRATION), CALIBRATION_NOTES]
    table = pd.DataFrame([_values(line) for line in [*shown, *run_lines(results.records)]])
    return Section("table", name, tuple(parts), table)


def _grid(lines: Iterable[Line], columns: dict[str, str]) -> Grid:
    rows = []
    for line in lines:
        texts = [
            interval_text(*line.figures[name]) if name in line.figures else ""
            for name in columns.values()
        ]
        if not line.figures:
            texts[0] = line.note[:60]
        rows.append((line.name, *texts))
    return Grid(("line", *columns), tuple(rows))


def _values(line: Line) -> dict[str, object]:
    """A line of the CSV: whose it is, and every figure with its interval."""
    cell = line.cell
    values: dict[str, object] = {"line": line.name, "kind": line.kind}
    for axis in ("model", "augmentation", "split", "variant"):
        values[axis] = getattr(cell, axis) if cell else None
    for axis in ("seed", "fold"):
        values[axis] = getattr(cell, axis) if cell and line.kind == "run" else None
    values |= {"runs": line.runs, "note": line.note}
    for name, (value, low, high) in line.figures.items():
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return values


def _remarks(results: Results, groups: Sequence[Group], lines: Sequence[Line]) -> list[str]:
    """What is missing, what the area of the cell alone reaches, whose persons are few."""
    remarks = [*_few(groups), *_not_above_area(groups, lines)]
    remarks += [f"{line.name}: {line.note}" for line in lines if line.figures and line.note]
    remarks += [
        f"{group.title}: has too many settings for a name, so that it is compared with lines of "
        "the same settings alone"
        for group in groups
        if any(text.startswith(CUT) for text in group.cell.settings)
    ]
    for record in results.records:
        name = record.cell.folder
        if record.status != "complete":
            remarks.append(f"{name}: {record.state}")
        remarks += [f"{name}: {text}" for text in record.warnings]
    return [f"- {text}" for text in [*remarks, *results.problems]]


def _not_above_area(groups: Sequence[Group], lines: Sequence[Line]) -> list[str]:
    """Which lines' intervals do not lie above what the area of the cell alone reaches."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, line in zip(groups, lines, strict=True):
        area = baseline_of(replace(group, runs=tuple(group.first_seed)), AREA)
        if area is None or "auroc" not in line.figures:
            continue
        samples = [run.test.sample for run in area.runs]
        reached = mean(ranking_metrics(one.scores, one.labels)["auroc"] for one in samples)
        value, low, _ = line.figures["auroc"]
        if (value if low is None else low) <= reached:
            found[group.cell.split, f"{reached:.3f}"].append(group.title)
    return [
        f"**AUROC not above what the area of the cell alone reaches ({reached}, {split}):** "
        + ", ".join(titles)
        for (split, reached), titles in found.items()
    ]


def _few(groups: Sequence[Group]) -> list[str]:
    """Splits whose test part has few persons of a class."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in groups:
        if group.runs and (text := few_subjects(all_test_cells(group))):
            found[group.cell.split, text].append(group.title)
    return [f"**{split}: {text}**" for split, text in found]


def all_test_cells(group: Group) -> Sample:
    """The test cells of all folds, each once: as the runs of the lowest seed judged them.

    Scores of several models lie side by side in it, so that it serves for counting, not ranking.
    """
    samples = [run.test.sample for run in group.first_seed]
    return Sample(
        np.concatenate([sample.scores for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.subjects for sample in samples]),
    )

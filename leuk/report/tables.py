"""The main table of a sweep, and what has to be said before believing it."""

from collections.abc import Iterable, Sequence

import pandas as pd

from leuk.report.remarks import Remark, listed
from leuk.report.results import Results
from leuk.report.rows import DRAWS, Row, run_rows
from leuk.report.sections import Grid, Section, interval_text

COLUMNS = {
    "AUROC": "auroc",
    "AUROC (patients)": "auroc_patients",
    "AUPRC": "auprc",
    "bal. acc.": "balanced_accuracy",
    "sens.": "sensitivity",
    "spec.": "specificity",
    "F1 macro": "f1_macro",
    "F1 weighted": "f1_weighted",
    "MCC": "mcc",
}
"""Headings of the main columns, and the figures under them; the CSV has every figure."""

PATIENTS = {
    "AUROC": "auroc_patients",
    "bal. acc.": "balanced_accuracy_patients",
    "sens.": "sensitivity_patients",
    "spec.": "specificity_patients",
    "bal. acc. (Youden)": "balanced_accuracy_patients@youden",
    "sens. (Youden)": "sensitivity_patients@youden",
    "spec. (Youden)": "specificity_patients@youden",
}
"""The same where every patient of a class weighs the same."""

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
specificity that of healthy ones. Metrics are means over folds and seeds, in brackets their 95 %
interval from {draws} resamples of persons (and of seeds, where there are several), not of cells.
Decisions at a score of 0.5. F1 macro is the plain mean of both classes' F1, F1 weighted that by
class size; a precision or F1 of a class that nobody was assigned to counts as 0. AUROC weighs every
image the same, AUROC (patients) every patient of a class."""

PATIENT_NOTES = """\
Each image weighs 1 / (its patient's images of that class), so that every patient of a class weighs
the same: an estimate for a new patient. The figures above weigh images, so that a patient with most
images of a class decides them."""

FEWER = """\
Beyond 60 runs intervals come from fewer than 1,000 resamples, so that the report stays quick."""

CHOSEN_NOTES = """\
Thresholds were chosen on the validation part, by the largest sensitivity + specificity (Youden) and
as the largest that finds 95 % of leukemic cells there (sens. 0.95), and used on the test part."""

CALIBRATION_NOTES = """\
Brier: mean squared error of the score as a probability. ECE: expected calibration error over 15
bins. Calibrated: after temperature scaling, fitted on the validation part."""


def main_section(
    name: str,
    results: Results,
    shown: Sequence[Row],
    draws: int,
    remarks: Iterable[Remark],
) -> Section:
    """The main table: lines of all groups, baselines, and remarks.

    Args:
        name: of the sweep.
        results: what was read.
        shown: the lines, baselines after them.
        draws: resamples behind the intervals.
        remarks: what has to be said.
    """
    notes = NOTES.format(draws=f"{draws:,}") + (f"\n{FEWER}" if draws < DRAWS else "")
    shared = "Common to all lines of a split: " + "; ".join(results.shared) + "."
    parts: list[Grid | str] = [shared, _grid(shown, COLUMNS), notes, listed(remarks)]
    if any("auroc_patients" in line.metrics for line in shown):
        parts += ["## Every patient weighs the same", _grid(shown, PATIENTS), PATIENT_NOTES]
    if any("sensitivity@youden" in line.metrics for line in shown):
        parts += ["## At chosen thresholds", _grid(shown, CHOSEN), CHOSEN_NOTES]
    if any("brier" in line.metrics for line in shown):
        parts += ["## Calibration", _grid(shown, CALIBRATION), CALIBRATION_NOTES]
    table = pd.DataFrame([_values(line) for line in [*shown, *run_rows(results)]])
    return Section("table", name, tuple(parts), table)


def _grid(lines: Iterable[Row], columns: dict[str, str]) -> Grid:
    rows = []
    for line in lines:
        texts = [
            interval_text(*line.metrics[name]) if name in line.metrics else _missing(name)
            for name in columns.values()
        ]
        if not line.metrics:
            texts[0] = line.note[:60]
        rows.append((line.name, *texts))
    return Grid(("configuration", *columns), tuple(rows))


def _missing(name: str) -> str:
    """A dash for metrics that records from before them lack."""
    return "-" if name in PATIENTS.values() else ""


def _values(line: Row) -> dict[str, object]:
    """A line of the CSV: whose it is, and every figure with its interval."""
    cell = line.run
    values: dict[str, object] = {"configuration": line.name, "kind": line.kind}
    for axis in ("model", "augmentation", "split", "variant"):
        values[axis] = getattr(cell, axis) if cell else None
    for axis in ("seed", "fold"):
        values[axis] = getattr(cell, axis) if cell and line.kind == "run" else None
    values |= {"runs": line.runs, "note": line.note}
    for name, (value, low, high) in line.metrics.items():
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return values

"""The main table of a sweep, with notes and remarks."""

from collections.abc import Iterable, Sequence

import pandas as pd

from leuk.report.remarks import Remark, listed
from leuk.report.results import Results
from leuk.report.rows import DRAWS, Row, run_rows
from leuk.report.sections import Grid, Section, interval_text
from leuk.runs.record import short_name

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
"""Headings of the main columns and their metrics; the CSV file has every metric."""

PATIENTS = {
    "AUROC": "auroc_patients",
    "bal. acc.": "balanced_accuracy_patients",
    "sens.": "sensitivity_patients",
    "spec.": "specificity_patients",
    "bal. acc. (Youden)": "balanced_accuracy_patients@youden",
    "sens. (Youden)": "sensitivity_patients@youden",
    "spec. (Youden)": "specificity_patients@youden",
}
"""Headings and metrics of the table in which every patient of a class has equal weight."""

CHOSEN = {
    "bal. acc. (Youden)": "balanced_accuracy@youden",
    "sens. (Youden)": "sensitivity@youden",
    "spec. (Youden)": "specificity@youden",
    "bal. acc. (sens. 0.95)": "balanced_accuracy@sensitivity95",
    "sens. (sens. 0.95)": "sensitivity@sensitivity95",
    "spec. (sens. 0.95)": "specificity@sensitivity95",
}
"""Headings and metrics of the table at thresholds chosen on validation images."""

CALIBRATION = {
    "Brier": "brier",
    "Brier (calibrated)": "brier_calibrated",
    "ECE": "ece",
    "ECE (calibrated)": "ece_calibrated",
}
"""Headings and metrics of the calibration table."""

NOTES = """\
Test images only. The positive class is leukemia (all): sensitivity is the share of leukemic cells
classified correctly, specificity that of healthy cells. Values are means over folds and seeds;
brackets give the 95 % interval from {draws} resamples of patients (and of seeds, if there are
several), not of images. Very wide intervals, up to [0.00, 1.00], mean that few patients contribute
most images of a class. Decisions use a score threshold of 0.5. F1 macro is the mean of the F1 of
both classes, F1 weighted their mean weighted by class size; precision and F1 of a class that was
never predicted are 0. AUROC gives every image equal weight, AUROC (patients) every patient of a
class."""

PATIENT_NOTES = """\
Each image has the weight 1 / (number of images of its patient and class), so that every patient of
a class has equal weight: this estimates performance on a new patient. The table above weights all
images equally, so a patient with many images dominates it."""

FEWER = """\
With more than 60 runs, fewer than 1,000 resamples are drawn to keep the report fast."""

CHOSEN_NOTES = """\
Thresholds were chosen on validation images and applied to test images: the threshold with the
largest sensitivity + specificity (Youden), and the largest threshold that detects 95 % of leukemic
cells (sens. 0.95)."""

CALIBRATION_NOTES = """\
Brier: mean squared error of the score as a probability of leukemia. ECE: expected calibration error
over 15 bins. Calibrated: after temperature scaling fitted on validation images."""


def main_section(
    name: str,
    results: Results,
    shown: Sequence[Row],
    draws: int,
    remarks: Iterable[Remark],
) -> Section:
    """Return the main table: all configurations and baselines, with notes and remarks.

    Args:
        name: name of the sweep.
        results: the results as read.
        shown: rows of the configurations, followed by those of the baselines.
        draws: number of resamples behind each interval.
        remarks: warnings to list.
    """
    notes = NOTES.format(draws=f"{draws:,}") + (f"\n{FEWER}" if draws < DRAWS else "")
    shared = "Settings that all configurations share, omitted from their names: "
    shared += "; ".join(results.shared) + "."
    parts: list[Grid | str] = [shared, _grid(shown, COLUMNS), notes, listed(remarks)]
    if any("auroc_patients" in row.metrics for row in shown):
        parts += ["## Equal weight for every patient", _grid(shown, PATIENTS), PATIENT_NOTES]
    if any("sensitivity@youden" in row.metrics for row in shown):
        parts += ["## Thresholds chosen on validation images", _grid(shown, CHOSEN), CHOSEN_NOTES]
    if any("brier" in row.metrics for row in shown):
        parts += ["## Calibration", _grid(shown, CALIBRATION), CALIBRATION_NOTES]
    table = pd.DataFrame([_values(row) for row in [*shown, *run_rows(results)]])
    return Section("table", name, tuple(parts), table)


def _grid(rows: Iterable[Row], columns: dict[str, str]) -> Grid:
    shown = []
    for row in rows:
        texts = [
            interval_text(*row.metrics[name]) if name in row.metrics else _missing(name)
            for name in columns.values()
        ]
        if not row.metrics:
            texts[0] = row.note[:60]
        shown.append((row.name, *texts))
    return Grid(("configuration", *columns), tuple(shown))


def _missing(name: str) -> str:
    """Return a dash for metrics by patient, which older records lack; nothing for others."""
    return "-" if name in PATIENTS.values() else ""


def _values(row: Row) -> dict[str, object]:
    """Return a row of the CSV file: identity, and every metric with its interval."""
    run = row.run
    values: dict[str, object] = {"configuration": row.name, "kind": row.kind}
    values |= {
        "model": run.model if run else None,
        "augmentation": run.augmentation if run else None,
        "split": run.split_name if run else None,
        "variant": short_name(run.settings) if run else None,
    }
    for axis in ("seed", "fold"):
        values[axis] = getattr(run, axis) if run and row.kind == "run" else None
    values |= {"runs": row.runs, "note": row.note}
    for name, (value, low, high) in row.metrics.items():
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return values

"""Tables of a sweep: metrics, the grid, dependence on cell area, and referral to an expert.

Metrics of a configuration are means over its folds and seeds; intervals resample patients.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.metrics.referral import AIM, Achieved, choose_band, outcomes
from leuk.report.heatmap import HeatMap
from leuk.report.load import Configuration, Results, Run
from leuk.report.remarks import Remark, listed
from leuk.report.rows import DRAWS, Row, run_rows
from leuk.report.table import (
    Column,
    Heading,
    Items,
    Section,
    Table,
    Written,
    estimate,
    number,
    text,
)
from leuk.runs.record import Record, short_name

# --- Metrics

MAIN = {
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
brackets give the 95 % interval from {draws:,} resamples of patients (and of seeds, if there are
several), not of images. Very wide intervals, up to [0.00, 1.00], mean that few patients contribute
most images of a class. Decisions use a score threshold of 0.5. F1 macro is the mean of the F1 of
both classes, F1 weighted their mean weighted by class size; precision and F1 of a class that was
never predicted are 0. AUROC gives every image equal weight, AUROC (patients) every patient of a
class."""

FEWER = " With more than 60 runs, fewer than 1,000 resamples are drawn to keep the report fast."

PATIENT_NOTES = """\
Each image has the weight 1 / (number of images of its patient and class), so that every patient of
a class has equal weight: this estimates performance on a new patient. The table above weights all
images equally, so a patient with many images dominates it."""

CHOSEN_NOTES = """\
Thresholds were chosen on validation images and applied to test images: the threshold with the
largest sensitivity + specificity (Youden), and the largest threshold that detects 95 % of leukemic
cells (sens. 0.95)."""

CALIBRATION_NOTES = """\
Brier: mean squared error of the score as a probability of leukemia. ECE: expected calibration error
over 15 bins. Calibrated: after temperature scaling fitted on validation images."""

OTHER_NOTES = "All other metrics at the score threshold of 0.5, by their names in the CSV file."


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
    table = pd.DataFrame([_values(row) for row in [*shown, *run_rows(results)]])
    of_rows = table[: len(shown)]

    def metrics(columns: Mapping[str, str], title: str = "") -> Table:
        first, *others = columns.items()
        # Old records lack metrics by patient; a configuration without any metric has a reason.
        formats = {
            heading: estimate(key, "-" if key in PATIENTS.values() else "")
            for heading, key in others
        }
        return Table(
            of_rows,
            {"configuration": text("configuration"), first[0]: _or_note(first[1]), **formats},
            title,
        )

    present = dict.fromkeys(name for row in shown for name in row.metrics)
    named = {key for columns in (MAIN, PATIENTS, CHOSEN, CALIBRATION) for key in columns.values()}
    others = {key: key for key in present if key not in named and "@" not in key}
    optional = (
        ("Equal weight for every patient", PATIENTS, PATIENT_NOTES, "auroc_patients"),
        ("Thresholds chosen on validation images", CHOSEN, CHOSEN_NOTES, "sensitivity@youden"),
        ("Calibration", CALIBRATION, CALIBRATION_NOTES, "brier"),
        ("Other metrics", others, OTHER_NOTES, next(iter(others), "")),
    )
    shared = "Settings that all configurations share, omitted from their names: "
    blocks: list[Written | str] = [
        f"{shared}{'; '.join(results.shared)}.",
        metrics(MAIN, "Test metrics by configuration"),
        NOTES.format(draws=draws) + (FEWER if draws < DRAWS else ""),
        listed(remarks),
    ]
    for heading, columns, notes, needed in optional:
        if needed in present:
            blocks += [Heading(heading), metrics(columns), notes]
    return Section("table", name, blocks, table)


def _or_note(key: str) -> Column:
    """Column of a metric that gives the reason for a row without metrics."""
    column = estimate(key, "-" if key in PATIENTS.values() else "")

    def show(
        value: float | None, low: float | None, high: float | None, note: str, runs: int
    ) -> Any:
        return note[:60] if value is None and not runs else column.show(value, low, high)

    return Column((*column.keys, "note", "runs"), show)


def _values(row: Row) -> dict[str, object]:
    """Return a row of the CSV file: identity, and every metric with its interval."""
    run, single = row.run, row.kind == "run"
    values: dict[str, object] = {
        "configuration": row.name,
        "kind": row.kind,
        "model": run.model if run else None,
        "augmentation": run.augmentation if run else None,
        "split": run.split_name if run else None,
        "variant": short_name(run.settings, run.fold if single else 0) if run else None,
        "seed": run.seed if run and single else None,
        "fold": run.fold if run and single else None,
        "runs": row.runs,
        "note": row.note,
    }
    for name, (value, low, high) in row.metrics.items():
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return values


# --- AUROC of each model with each augmentation

GRID_NOTES = """\
Test AUROC, mean over folds and seeds, with 95 % intervals (patients resampled). Shades run from the
lowest to the highest AUROC in this table, so a dark shade is not necessarily a good result. A dash
means that no run is complete. AUROC gives every image equal weight and determines the shades; AUROC
(patients) gives every patient of a class equal weight."""


def grid_section(heat: HeatMap) -> Section:
    """Return the heat map as tables: images, and patients of a class, weighted equally."""
    table = pd.DataFrame(heat.values, columns=list(heat.columns))
    table.insert(0, "model", heat.rows)
    for place, column in enumerate(heat.columns):
        table[f"{column}_patients"] = [
            _metric(entries[place], "auroc_patients")[0] for entries in heat.entries
        ]

    def grid(metric: str) -> pd.DataFrame:
        rows = [
            {
                "model": model,
                **{
                    f"{column}{end}": value
                    for column, entry in zip(heat.columns, entries, strict=True)
                    for end, value in zip(
                        ("", "_low", "_high"), _metric(entry, metric), strict=True
                    )
                },
            }
            for model, entries in zip(heat.rows, heat.entries, strict=True)
        ]
        return pd.DataFrame(rows)

    columns = {name: estimate(name, "-") for name in heat.columns}
    levels = [
        [heat.level(row, column) for column in range(len(heat.columns))]
        for row in range(len(heat.rows))
    ]
    blocks = (
        Table(
            grid("auroc"),
            {"AUROC": text("model"), **columns},
            "Test AUROC by model and augmentation",
            levels,
        ),
        Table(
            grid("auroc_patients"),
            {"AUROC (patients)": text("model"), **columns},
            "Test AUROC with equal weight for every patient",
        ),
        GRID_NOTES,
    )
    return Section("grid", "Test AUROC", blocks, table)


def _metric(row: Row | None, name: str) -> tuple[float | None, float | None, float | None]:
    return row.metrics.get(name, (None, None, None)) if row else (None, None, None)


# --- Dependence on cell area

AREA_NOTES = """\
Leukemic and healthy cells differ in size, so a network can reach a high AUROC by measuring cell
area alone. In area bins: AUROC among cells of similar area, averaged over bins, weighted by the
number of pairs. At one size: AUROC after all cells were scaled to the same area, unlike the
training images. Area alone: AUROC of the area itself, with the original images and with either
correction; it exceeds 0.5 within bins because bins have a width. (patients): every patient of a
class has equal weight; a dash means that neither record nor predictions contain the value. Values
are means over folds and seeds; the intervals of single runs are in the CSV file."""

_AREA_COLUMNS = {
    "AUROC": "auroc",
    "AUROC (patients)": "auroc_patients",
    "in area bins": "within_bins",
    "in area bins (patients)": "within_bins_patients",
    "at one size": "one_size",
    "at one size (patients)": "one_size_patients",
    "area alone": "area_before",
    "area in bins": "area_within_bins",
    "area in bins (patients)": "area_within_bins_patients",
    "area at one size": "area_after",
}


def area_section(configurations: Sequence[Configuration]) -> Section:
    """AUROC overall, within bins of area and at one size, of each configuration with area checks.

    Args:
        configurations: all configurations of the report.
    """
    runs = {run.id: run for one in configurations for run in one.runs}
    table = pd.DataFrame(
        [
            {
                "configuration": one.title,
                "run": record.run.folder,
                **_area_values(record, runs.get(record.run)),
            }
            for one in configurations
            for record in one.records
            if record.area
        ]
    )
    if table.empty:
        return Section(
            "area",
            "Dependence on cell area",
            ("No run of this sweep has area checks.", AREA_NOTES),
            table,
        )
    keys = list(_AREA_COLUMNS.values())
    means = table.groupby("configuration", sort=False)[keys].agg(_mean).reset_index()
    columns = {heading: number(key, missing="-") for heading, key in _AREA_COLUMNS.items()}
    shown = Table(means, {"configuration": text("configuration"), **columns})
    return Section("area", "Dependence on cell area", (shown, AREA_NOTES), table)


def _mean(values: pd.Series) -> float | None:
    known = values.dropna()
    return mean(known) if len(known) else None


def _area_values(record: Record, run: Run | None) -> dict[str, float | None]:
    """All values of a record, flat; bins are numbered from the smallest cells."""
    bins, scaled = record.area["within_bins"], record.area["one_size"]
    nothing = {"value": None, "low": None, "high": None}
    metrics = {
        "within_bins": bins,
        "within_bins_patients": bins.get("patients") or nothing,
        "one_size": scaled["metrics"]["auroc"],
        "one_size_patients": scaled["metrics"].get("auroc_patients", nothing),
    }
    by_patient = record.metrics["test"].get("auroc_patients", nothing)["value"]
    if by_patient is None and run is not None:  # an older record
        images = run.test.sample.at_half
        by_patient = float(images.metric("auroc_patients", np.ones((1, images.count)))[0])
    values = {
        "auroc": record.metrics["test"]["auroc"]["value"],
        "auroc_patients": by_patient,
        **{
            f"{name}{end}": metric[bound]
            for name, metric in metrics.items()
            for end, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
        },
        "area_before": scaled["area_auroc_before"],
        "area_within_bins": record.area["area_within_bins"],
        "area_within_bins_patients": record.area.get("area_within_bins_patients"),
        "area_after": scaled["area_auroc"],
    }
    for place, one in enumerate(bins["bins"], start=1):
        values |= {f"bin{place}_{name}": value for name, value in one.items()}
    return values


# --- Referral to an expert

THRESHOLD = "youden"

REFERRAL_NOTES = f"""\
Images with a calibrated score near the threshold (Youden) are referred to an expert; the others are
decided by the model. The limits of this band are chosen on validation images: of the images decided
as healthy, and of those decided as leukemic, {AIM * 100:.0f} % must be correct by a 95 % lower
confidence bound that resamples patients and is corrected for the number of limits tried. If no
limit reaches this for a decision, or validation has fewer than {FEWEST_PATIENTS:.0f} effective
patients of a class, all images with that decision are referred. Shares are of the test images of
all runs of a configuration, with 95 % intervals (patients resampled)."""

_REFERRAL_COLUMNS = {
    "configuration": text("configuration"),
    "runs": number("runs", "d"),
    "referred": estimate("referred", "-"),
    "runs that decide healthy": number("bands_healthy", "d"),
    "correct if healthy": estimate("right_healthy", "-"),
    "runs that decide leukemic": number("bands_leukemic", "d"),
    "correct if leukemic": estimate("right_leukemic", "-"),
}


def referral_section(configurations: Sequence[Configuration]) -> Section:
    """Bands chosen on validation images and their results on test images, by configuration.

    Args:
        configurations: all configurations of the report; those without thresholds are skipped.
    """
    rows = []
    reasons: dict[str, list[str]] = {}
    for one in configurations:
        if not one.runs or any(THRESHOLD not in run.thresholds for run in one.runs):
            continue
        bands = [choose_band(run.val.sample, run.thresholds[THRESHOLD]) for run in one.runs]
        found = [
            outcomes(run.test.sample, run.thresholds[THRESHOLD], band)
            for run, band in zip(one.runs, bands, strict=True)
        ]
        right, kept = (np.concatenate(flags, axis=1) for flags in zip(*found, strict=True))
        achieved = Achieved.of(one.pooled, right, kept, bands)
        values: dict[str, object] = {"configuration": one.title, "runs": len(bands), "aim": AIM}
        for name, cut in (("healthy", "low"), ("leukemic", "high")):
            values[f"bands_{name}"] = sum(getattr(band, cut) is not None for band in bands)
        for key, name in (
            ("referred", "referred"),
            ("right_healthy", "healthy"),
            ("right_leukemic", "leukemic"),
        ):
            share = getattr(achieved, name)
            values |= {key: share.value, f"{key}_low": share.low, f"{key}_high": share.high}
            values |= {f"{key}_images": share.images, f"{key}_patients": share.patients}
        rows.append(values)
        for reason in dict.fromkeys(band.reason for band in bands if band.reason):
            reasons.setdefault(reason, []).append(one.title)
    table = pd.DataFrame(rows)
    shown = Table(table, _REFERRAL_COLUMNS) if rows else "No run has a chosen threshold."
    blocks: list[Written | str] = [shown, REFERRAL_NOTES]
    if reasons:
        named = {
            reason: "all configurations" if len(names) == len(rows) > 2 else ", ".join(names)
            for reason, names in reasons.items()
        }
        items = tuple(f"{names}: {reason}." for reason, names in named.items())
        blocks += [Heading("Reasons for missing bands"), Items(items)]
    return Section("referral", "Referral to an expert", blocks, table)

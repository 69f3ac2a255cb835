"""Tables of a sweep: metrics, the grid, dependence on cell area, and referral to an expert.

Metrics of a configuration are means over its folds and seeds; intervals resample patients.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.splits import FEWEST as FEWEST_PATIENTS
from leuk.metrics.classification import CALIBRATED, METRICS, PATIENTS
from leuk.metrics.referral import AIM, Achieved, choose_band, outcomes
from leuk.report.load import Configuration, Results, Run
from leuk.report.remarks import Remark, listed
from leuk.report.rows import DRAWS, HeatMap, Row, run_rows, value_of
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

_ENDINGS = {
    "": "",
    PATIENTS: " (patients)",
    CALIBRATED: " (calibrated)",
    "@youden": " (Youden)",
    "@sensitivity95": " (sens. 0.95)",
}
_DECIDED = ("balanced_accuracy", "sensitivity", "specificity", "f1_macro", "f1_weighted", "mcc")


def metric_columns() -> dict[str, dict[str, str]]:
    """Metrics of the tables by heading; the CSV file has every metric.

    Returns:
        ``main``: an overview. ``patients``: every patient of a class has equal weight. ``chosen``:
        decisions at thresholds chosen on validation images. ``calibration``: metrics of
        probabilities. The last three contain every metric of their kind.
    """

    def headed(names: Iterable[str], *ends: str, middle: str = "") -> dict[str, str]:
        return {
            f"{METRICS[name].title}{_ENDINGS[end]}": f"{name}{middle}{end}"
            for name in names
            for end in ends
        }

    by_patient = [name for name, metric in METRICS.items() if metric.patients]
    decisions = [name for name in by_patient if METRICS[name].kind == "decision"]
    probabilities = [name for name, metric in METRICS.items() if metric.kind == "probability"]
    return {
        "main": headed(["auroc"], "", PATIENTS) | headed(["auprc", *_DECIDED], ""),
        "patients": headed(by_patient, "", middle=PATIENTS)
        | headed(decisions, "@youden", middle=PATIENTS),
        "chosen": headed(decisions, "@youden") | headed(decisions, "@sensitivity95"),
        "calibration": headed(probabilities, "", CALIBRATED),
    }


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
    """Return the main table of the sweep ``name``, with notes and remarks.

    ``shown`` are the rows of configurations and baselines, whose intervals rest on ``draws``.
    """
    table = pd.DataFrame([_values(row) for row in [*shown, *run_rows(results)]])
    present = dict.fromkeys(name for row in shown for name in row.metrics)
    columns = metric_columns()
    named = {key for names in columns.values() for key in names.values()}
    others = {key: key for key in present if key not in named and "@" not in key}
    blocks: list[Written | str] = [
        "Settings that all configurations share, omitted from their names: "
        f"{'; '.join(results.shared)}."
    ]
    for heading, names, notes in (
        ("", columns["main"], NOTES.format(draws=draws) + (FEWER if draws < DRAWS else "")),
        ("Equal weight for every patient", columns["patients"], PATIENT_NOTES),
        ("Thresholds chosen on validation images", columns["chosen"], CHOSEN_NOTES),
        ("Calibration", columns["calibration"], CALIBRATION_NOTES),
        ("Other metrics", others, OTHER_NOTES),
    ):
        if heading and not present.keys() & set(names.values()):
            continue
        formats = {"configuration": text("configuration")}
        for title, key in names.items():
            # Old records lack metrics by patient.
            column = estimate(key, "-" if PATIENTS in key else "")
            formats[title] = column if len(formats) > 1 else _or_note(column)
        caption = "" if heading else "Test metrics by configuration"
        blocks += [Heading(heading)] if heading else []
        blocks += [Table(table[: len(shown)], formats, caption), notes]
        blocks += [] if heading else [listed(remarks)]
    return Section("table", name, blocks, table)


def _or_note(column: Column) -> Column:
    """Column of a metric that gives the reason for a row without metrics."""

    def show(*values: Any) -> Any:
        *estimated, note, runs = values
        return note[:60] if estimated[0] is None and not runs else column.show(*estimated)

    return Column((*column.keys, "note", "runs"), show)


def _values(row: Row) -> dict[str, object]:
    """Return a row of the CSV file: identity, and every metric with its interval."""
    run, single = row.run, row.kind == "run"
    values: dict[str, object] = {
        "configuration": row.name,
        "kind": row.kind,
        "model": run.model,
        "augmentation": run.augmentation,
        "split": run.split_name,
        "variant": short_name(run.settings, run.fold if single else 0),
        "seed": run.seed if single else None,
        "fold": run.fold if single else None,
        "runs": row.runs,
        "note": row.note,
    }
    for name, estimated in row.metrics.items():
        values |= _bounds(name, *estimated)
    return values


def _bounds(
    name: str, value: float | None, low: float | None, high: float | None
) -> dict[str, float | None]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


# --- AUROC of each model with each augmentation

GRID_NOTES = """\
Test AUROC, mean over folds and seeds, with 95 % intervals (patients resampled). Shades run from the
lowest to the highest AUROC in this table, so a dark shade is not necessarily a good result. A dash
means that no run is complete. AUROC gives every image equal weight and determines the shades; AUROC
(patients) gives every patient of a class equal weight."""


def grid_section(heat: HeatMap) -> Section:
    """Return the heat map as tables: images, and patients of a class, weighted equally."""
    names = list(heat.columns)
    tables = []
    for metric in ("auroc", "auroc_patients"):
        rows: list[dict[str, Any]] = [{"model": model} for model in heat.rows]
        for row, entries in zip(rows, heat.entries, strict=True):
            for name, entry in zip(names, entries, strict=True):
                metrics = entry.metrics if entry else {}
                row |= _bounds(name, *metrics.get(metric, (None, None, None)))
        tables.append(pd.DataFrame(rows))
    images, patients = tables
    table = images[["model", *names]].join(patients[names].add_suffix(PATIENTS))
    columns = {name: estimate(name, "-") for name in names}
    headings = {"AUROC": text("model"), **columns}
    by_image = Table(images, headings, "Test AUROC by model and augmentation", heat.levels)
    headings = {"AUROC (patients)": text("model"), **columns}
    by_patient = Table(patients, headings, "Test AUROC with equal weight for every patient")
    return Section("grid", "Test AUROC", (by_image, by_patient, GRID_NOTES), table)


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
    """AUROC overall, within bins of area and at one size, of configurations with area checks."""
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
    shown: Table | str = "No run of this sweep has area checks."
    if not table.empty:
        values = table[list(_AREA_COLUMNS.values())].astype(float)
        means = values.groupby(table["configuration"], sort=False).mean().reset_index()
        columns = {heading: number(key, missing="-") for heading, key in _AREA_COLUMNS.items()}
        shown = Table(means, {"configuration": text("configuration"), **columns})
    return Section("area", "Dependence on cell area", (shown, AREA_NOTES), table)


def _area_values(record: Record, run: Run | None) -> dict[str, float | None]:
    """All values of a record, flat; bins are numbered from the smallest cells."""
    area, test = record.area, record.metrics["test"]
    bins, scaled = area["within_bins"], area["one_size"]
    by_patient = test.get("auroc_patients", {}).get("value")
    if by_patient is None and run is not None:  # an older record
        by_patient = value_of(run.test.sample.at_half, "auroc_patients")
    values = {"auroc": test["auroc"]["value"], "auroc_patients": by_patient}
    for name, metric in (
        ("within_bins", bins),
        ("within_bins_patients", bins.get("patients") or {}),
        ("one_size", scaled["metrics"]["auroc"]),
        ("one_size_patients", scaled["metrics"].get("auroc_patients", {})),
    ):
        values |= _bounds(name, *(metric.get(key) for key in ("value", "low", "high")))
    values |= {
        "area_before": scaled["area_auroc_before"],
        "area_within_bins": area["area_within_bins"],
        "area_within_bins_patients": area.get("area_within_bins_patients"),
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

    Configurations without thresholds are skipped.
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
        values: dict[str, object] = {
            "configuration": one.title,
            "runs": len(bands),
            "aim": AIM,
            "bands_healthy": sum(band.low is not None for band in bands),
            "bands_leukemic": sum(band.high is not None for band in bands),
        }
        for key, share in (
            ("referred", achieved.referred),
            ("right_healthy", achieved.healthy),
            ("right_leukemic", achieved.leukemic),
        ):
            values |= _bounds(key, share.value, share.low, share.high)
            values |= {f"{key}_images": share.images, f"{key}_patients": share.patients}
        rows.append(values)
        for reason in dict.fromkeys(band.reason for band in bands if band.reason):
            reasons.setdefault(reason, []).append(one.title)
    table = pd.DataFrame(rows)
    shown = Table(table, _REFERRAL_COLUMNS) if rows else "No run has a chosen threshold."
    blocks: list[Written | str] = [shown, REFERRAL_NOTES]
    if reasons:
        items = []
        for reason, names in reasons.items():
            every = len(names) == len(rows) > 2
            items.append(f"{'all configurations' if every else ', '.join(names)}: {reason}.")
        blocks += [Heading("Reasons for missing bands"), Items(tuple(items))]
    return Section("referral", "Referral to an expert", blocks, table)

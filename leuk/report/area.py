"""The area section: do the models use more than cell area?"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd

from leuk.report.results import Configuration, Run
from leuk.report.sections import Grid, Section
from leuk.runs.record import Record

NOTES = """\
Leukemic and healthy cells differ in size, so a network can reach a high AUROC by measuring cell
area alone. In area bins: AUROC among cells of similar area, averaged over bins, weighted by the
number of pairs. At one size: AUROC after all cells were scaled to the same area, unlike the
training images. Area alone: AUROC of the area itself, with the original images and with either
correction; it exceeds 0.5 within bins because bins have a width. (patients): every patient of a
class has equal weight; a dash means that neither record nor predictions contain the value. Values
are means over folds and seeds; the intervals of single runs are in the CSV file."""

_COLUMNS = {
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
    found = [(one, record) for one in configurations for record in one.records if record.area]
    runs = {run.id: run for one in configurations for run in one.runs}
    values = [(one, record, _values(record, runs.get(record.run))) for one, record in found]
    rows = []
    for configuration in dict.fromkeys(one for one, _, _ in values):
        own = [flat for one, _, flat in values if one is configuration]
        rows.append((configuration.title, *(_mean_text(own, name) for name in _COLUMNS.values())))
    nothing = "No run of this sweep has area checks."
    shown: Grid | str = Grid(("configuration", *_COLUMNS), tuple(rows)) if rows else nothing
    table = pd.DataFrame(
        [
            {"configuration": one.title, "run": record.run.folder, **flat}
            for one, record, flat in values
        ]
    )
    return Section("area", "Dependence on cell area", (shown, NOTES), table)


def _values(record: Record, run: Run | None) -> dict[str, float | None]:
    """All values of a record, flat; bins are numbered from the smallest cells."""
    bins, scaled = record.area["within_bins"], record.area["one_size"]
    at_one_size = scaled["metrics"]["auroc"]
    values = {
        "auroc": record.metrics["test"]["auroc"]["value"],
        "auroc_patients": _by_patient(record, run),
        **_bounded("within_bins", bins),
        **_bounded("within_bins_patients", bins.get("patients") or _UNKNOWN),
        **_bounded("one_size", at_one_size),
        **_bounded("one_size_patients", scaled["metrics"].get("auroc_patients", _UNKNOWN)),
        "area_before": scaled["area_auroc_before"],
        "area_within_bins": record.area["area_within_bins"],
        "area_within_bins_patients": record.area.get("area_within_bins_patients"),
        "area_after": scaled["area_auroc"],
    }
    for number, one in enumerate(bins["bins"], start=1):
        values |= {f"bin{number}_{name}": value for name, value in one.items()}
    return values


_UNKNOWN = {"value": None, "low": None, "high": None}


def _by_patient(record: Record, run: Run | None) -> float | None:
    """AUROC by patient from the record or, in older records, from the predictions."""
    if known := record.metrics["test"].get("auroc_patients"):
        return known["value"]
    if run is None:
        return None
    images = run.test.sample.at_half
    return float(images.metric("auroc_patients", np.ones((1, images.count)))[0])


def _bounded(name: str, metric: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: metric["value"], f"{name}_low": metric["low"], f"{name}_high": metric["high"]}


def _mean_text(values: Sequence[Mapping[str, float | None]], name: str) -> str:
    known = [value for one in values if (value := one[name]) is not None]
    return f"{mean(known):.3f}" if known else "-"

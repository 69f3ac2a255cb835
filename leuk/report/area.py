"""Whether the models know more than how large a cell is, from the records."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd

from leuk.grid.record import Record
from leuk.report.results import Configuration, Run
from leuk.report.sections import Grid, Section

NOTES = """\
The area of the cell alone tells the classes apart to some degree, so that a network can score well
by measuring. In area bins: the AUROC among cells of like area, weighted by pairs. At one size: the
AUROC after every cell was enlarged or shrunk to the same area, which the model was not trained on.
Area alone: the AUROC of the area itself, as it is and after either; what is left in the bins is
what they are too wide to take away. (patients): every patient of a class weighs the same, a dash
where neither record nor predictions know. Means over folds and seeds; the records' own intervals
are in the CSV."""

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


def area_section(groups: Sequence[Configuration]) -> Section:
    """Plain AUROC, within bins of area and at one size, for each line that was asked."""
    found = [(group, record) for group in groups for record in group.records if record.area]
    runs = {run.id: run for group in groups for run in group.runs}
    lines = [(group, record, _figures(record, runs.get(record.run))) for group, record in found]
    rows = []
    for group in dict.fromkeys(group for group, _, _ in lines):
        own = [figures for other, _, figures in lines if other is group]
        rows.append((group.title, *(_mean_text(own, name) for name in _COLUMNS.values())))
    nothing = "No record of the sweep holds a look at the area."
    shown: Grid | str = Grid(("configuration", *_COLUMNS), tuple(rows)) if rows else nothing
    table = pd.DataFrame(
        [
            {"configuration": group.title, "run": record.run.folder, **all_}
            for group, record, all_ in lines
        ]
    )
    return Section("area", "The area shortcut", (shown, NOTES), table)


def _figures(record: Record, run: Run | None) -> dict[str, float | None]:
    """Every number of one record, flat; bins are numbered from the smallest cells."""
    bins, scaled = record.area["within_bins"], record.area["one_size"]
    at_one_size = scaled["metrics"]["auroc"]
    figures = {
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
        figures |= {f"bin{number}_{name}": value for name, value in one.items()}
    return figures


_UNKNOWN = {"value": None, "low": None, "high": None}


def _by_patient(record: Record, run: Run | None) -> float | None:
    """Of the record, else of the predictions."""
    if known := record.metrics["test"].get("auroc_patients"):
        return known["value"]
    if run is None:
        return None
    images = run.test.sample.at_half
    return float(images.metric("auroc_patients", np.ones((1, images.count)))[0])


def _bounded(name: str, figure: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}


def _mean_text(figures: Sequence[Mapping[str, float | None]], name: str) -> str:
    values = [value for one in figures if (value := one[name]) is not None]
    return f"{mean(values):.3f}" if values else "-"

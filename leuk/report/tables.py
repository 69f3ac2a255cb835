"""The table of a sweep: every cell, the mean over seeds, and the baselines, on the test part."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from leuk.errors import StoreError
from leuk.grid.cell import LEAKY, Cell
from leuk.grid.record import Figures, Record, read_records
from leuk.report.leaking import leaking_gains
from leuk.store.atomic import write_text

COLUMNS = {
    "AUROC": "auroc",
    "AUPRC": "auprc",
    "bal. acc.": "balanced_accuracy",
    "sens.": "sensitivity",
    "spec.": "specificity",
    "F1 macro": "f1_macro",
    "F1 weighted": "f1_weighted",
    "MCC": "mcc",
    "bal. acc. (val)": "balanced_accuracy@youden",
    "sens. (val)": "sensitivity@youden",
    "spec. (val)": "specificity@youden",
    "Brier": "brier",
    "ECE": "ece",
}
"""Headings of the printed table, and the figures under them; the CSV has every figure."""

NOTES = """\
Test part only. Positive = leukemia (all), so sensitivity is the recall of leukemic cells and
specificity that of healthy ones. Decisions at a score of 0.5, and under (val) at the threshold that
maximises sensitivity + specificity on the validation part. A precision or F1 of a class that
nobody was assigned to counts as 0. Intervals are not computed yet."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what the line is about.
        figures: figure name to value.
        spread: figure name to standard deviation over seeds, where there are several.
        note: what there is to say instead of figures.
    """

    name: str
    figures: dict[str, float]
    spread: dict[str, float] | None = None
    note: str = ""


def write_report(sweep: Path) -> str:
    """Write ``report/table.csv`` and ``report/table.md`` of a sweep and return the latter.

    Raises:
        StoreError: no record in the folder.
    """
    records, unreadable = read_records(sweep)
    if not records:
        raise StoreError(f"{sweep}: no records; run leuk train with name={sweep.name} first")
    rows = table_rows(records)
    remarks = [*leaking_gains(records), *_remarks(records, unreadable)]
    sections = [f"# {sweep.name}", markdown(rows), NOTES, "\n".join(remarks)]
    text = "\n\n".join(section for section in sections if section)
    write_text(sweep / "report" / "table.csv", _csv(rows))
    write_text(sweep / "report" / "table.md", text + "\n")
    return text


def table_rows(records: Iterable[Record]) -> list[Row]:
    """Cells in order, each group of seeds followed by its mean, then the baselines of each data."""
    groups: dict[Cell, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.cell):
        groups[replace(record.cell, seed=0)].append(record)
    rows: list[Row] = []
    for group in groups.values():
        rows += [_cell_row(record) for record in group]
        complete = [_values(r.metrics["test"]) for r in group if r.status == "complete"]
        if len(complete) > 1:
            rows.append(_mean_row(group[0].cell, complete))
    return rows + _baseline_rows(r for group in groups.values() for r in group)


def _cell_row(record: Record) -> Row:
    if record.status == "complete":
        return Row(record.cell.folder, _values(record.metrics["test"]))
    message = record.error["message"].splitlines()[0] if record.error else "not finished"
    return Row(record.cell.folder, {}, note=f"{record.status}: {message}")


def _mean_row(cell: Cell, values: list[dict[str, float]]) -> Row:
    names = [name for name in values[0] if all(name in figures for figures in values)]
    columns = {name: [figures[name] for figures in values] for name in names}
    return Row(
        f"{replace(cell, seed=0).folder.replace('-s0', '', 1)} (mean of {len(values)} seeds)",
        {name: mean(column) for name, column in columns.items()},
        {name: stdev(column) for name, column in columns.items()},
    )


def _baseline_rows(records: Iterable[Record]) -> list[Row]:
    """Each baseline once for each data and split it was computed on; the split is named."""
    seen: dict[tuple[str, str, str], tuple[str, str, Figures]] = {}
    for record in records:
        for name, figures in record.baselines.items():
            key = (name, str(record.data.get("fingerprint")), repr(record.data.get("counts")))
            seen.setdefault(key, (name, record.cell.split, figures))
    one_split = len({split for _, split, _ in seen.values()}) == 1
    return [
        Row(
            f"baseline: {name}"
            if one_split and not split.endswith(LEAKY)
            else f"baseline: {name} ({split})",
            _values(figures),
        )
        for name, split, figures in seen.values()
    ]


def _values(figures: Figures) -> dict[str, float]:
    return {name: entry["value"] for name, entry in figures.items() if entry["value"] is not None}


def markdown(rows: Iterable[Row]) -> str:
    """The main columns as an aligned Markdown table; ``±`` is the standard deviation over seeds."""
    header = ["cell", *COLUMNS]
    lines = [[row.name, *_texts(row)] for row in rows]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def joined(line: list[str]) -> str:
        first = line[0].ljust(widths[0])
        others = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([joined(header), rule, *map(joined, lines)])


def _texts(row: Row) -> list[str]:
    if row.note:
        return [row.note.replace("|", "/")[:60], *[""] * (len(COLUMNS) - 1)]
    texts = []
    for name in COLUMNS.values():
        text = f"{row.figures[name]:.3f}" if name in row.figures else ""
        if row.spread and name in row.spread:
            text += f" ± {row.spread[name]:.3f}"
        texts.append(text)
    return texts


def _csv(rows: Iterable[Row]) -> str:
    """Every figure of every line; ``<name>_sd`` is the standard deviation over seeds."""
    lines = [
        {
            "cell": row.name,
            "note": row.note,
            **row.figures,
            **{f"{name}_sd": value for name, value in (row.spread or {}).items()},
        }
        for row in rows
    ]
    return pd.DataFrame(lines).to_csv(index=False)


def _remarks(records: Iterable[Record], unreadable: Iterable[str]) -> list[str]:
    remarks = [f"- {record.cell.folder}: {text}" for record in records for text in record.warnings]
    return remarks + [f"- {text}" for text in unreadable]

"""Tables 2 to 5 of the thesis beside the values of this sweep, in the convention of the thesis.

Its positive class is healthy, its AUC is that of hard labels, and its averages vary; see
:func:`leuk.metrics.classification.thesis_metrics`. The main table uses the standard convention.
"""

from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
import pandas as pd

from leuk.metrics.classification import thesis_metrics
from leuk.report.comparisons import SETTINGS, changed
from leuk.report.load import Configuration
from leuk.report.table import (
    Column,
    Heading,
    Items,
    Paragraph,
    Section,
    Table,
    Written,
    number,
    strong,
    text,
)
from leuk.runs.record import RunId, short_name

TABLES = {3: "cnn", 4: "vit", 5: "hybrid"}
"""Number of the table in the thesis, and its model."""

COLUMNS = ("none", "dcgan", "wgan", "cgan")
"""Augmentations of the thesis."""

METRICS = ("accuracy", "precision", "recall", "f1", "auc", "sensitivity", "specificity")

_AVERAGED = ("precision", "recall", "f1")
_MARKS = {"weighted": "w", "macro": "m", "mixed runs": "w?"}

NOTES = (
    strong(
        "These tables use the convention of the thesis, only for comparison with it; use the main "
        "table for all conclusions."
    ),
    " Each pair gives the published value and ours, from the same test images as in the main table,"
    " with decisions at 0.5. Problems of the published values:",
)

PROBLEMS = (
    "Healthy is the positive class, so sensitivity is the recall of healthy cells and specificity "
    "that of leukemic cells. Its reported gain in sensitivity means that fewer healthy cells, but "
    "more leukemic cells, were misclassified.",
    "AUC is that of hard labels, (sensitivity + specificity) / 2, wherever it can be checked; our "
    "AUC in these tables is computed the same way.",
    "Averages vary within a table: w is weighted by class size, m is the mean of both classes, w? "
    "mixes runs (ours is weighted). Our value uses the average of the published value next to it.",
    "The thesis has no test set: its results are for the images that decided when to stop "
    "training. It has one run per model and neither intervals nor tests. On its images, always "
    "answering leukemia has an accuracy of 0.653 and a weighted F1 of 0.516.",
    "Its test images differ from ours, so absolute values cannot be compared, at most the order of "
    "the four augmentations.",
)

GAN_NOTES = """\
Values published in table 2 of the thesis. They are implausible: real images of one data set do not
reach such a low FID against each other, an Inception Score of 1.000 means constant features, and
even two real cells have an SSIM of 0.86."""


def published() -> pd.DataFrame:
    """Values of the thesis: ``table``, ``group``, ``metric``, ``value``, ``averaging_or_note``."""
    with resources.as_file(resources.files("leuk.report") / "thesis_tables.csv") as path:
        return pd.read_csv(path, keep_default_na=False)


def published_gans() -> list[Written | str]:
    """Table 2 of the thesis, and why its values are implausible."""
    table = published()
    values = (
        table[table["table"] == 2].pivot_table("value", "group", "metric", sort=False).reset_index()
    )
    columns = {"FID": "fid", "Inception Score": "is_mean", "SSIM": "ssim"}
    shown = {heading: number(key) for heading, key in columns.items()}
    return [Table(values, {"thesis": text("group"), **shown}), GAN_NOTES]


def thesis_section(configurations: Sequence[Configuration]) -> Section:
    """Tables 3 to 5 for every split and variant that has their model.

    Of several configurations with the same augmentation, the first is used; those with settings
    that the thesis only proposes are omitted.
    """
    known: dict[RunId, dict[str, Configuration]] = {}
    for one in configurations:
        proposed = any(changed(one.run, key) for key in SETTINGS)
        if one.runs and not proposed and one.run.augmentation in COLUMNS:
            known.setdefault(one.run.plain, {}).setdefault(one.run.augmentation, one)
    blocks: list[Written | str] = [Paragraph(NOTES), Items(PROBLEMS)]
    tables = []
    for place, model in TABLES.items():
        plain = [run for run in known if run.model == model]
        if not plain:
            blocks += [Heading(f"Table {place}: {model}"), "Not in this sweep."]
        for run in plain:
            values = _values(place, model, known[run])
            where = "-".join(filter(None, (run.split_name, short_name(run.settings))))
            blocks += [Heading(f"Table {place}: {model}, {where}"), _table(values)]
            values.insert(0, "table", place)
            values.insert(1, "configuration", run.title)
            tables.append(values)
    table = pd.concat(tables) if tables else pd.DataFrame()
    title = "Comparison with tables 3 to 5 of the thesis"
    return Section("thesis_tables", title, blocks, table)


def thesis_means(configuration: Configuration) -> dict[str, float]:
    """Metrics in the convention of the thesis at 0.5, means over the runs of a configuration."""
    samples = [run.test.sample for run in configuration.runs]
    of_runs = [thesis_metrics(sample.scores, sample.labels) for sample in samples]
    return {name: float(np.mean([metrics[name] for metrics in of_runs])) for name in of_runs[0]}


def _values(place: int, model: str, own: Mapping[str, Configuration]) -> pd.DataFrame:
    """Return a row per metric and augmentation; ours averages as the published value does."""
    table = published()
    known = table[table["table"] == place].set_index(["group", "metric"])
    ours = {name: thesis_means(own[name]) if name in own else {} for name in COLUMNS}
    rows = []
    for metric in METRICS:
        for augmentation in COLUMNS:
            key = f"{model}/{augmentation}", metric
            value, note = (
                known.loc[key, ["value", "averaging_or_note"]] if key in known.index else (None, "")
            )
            average = "macro" if note == "macro" else "weighted"
            name = f"{metric}_{average}" if metric in _AVERAGED else metric
            rows.append((metric, augmentation, value, ours[augmentation].get(name), note))
    columns = ["metric", "augmentation", "published", "ours", "averaging_or_note"]
    return pd.DataFrame(rows, columns=columns)


def _table(values: pd.DataFrame) -> Table:
    """Return published values and ours, a pair of columns per augmentation, a row per metric."""
    rows = []
    for metric, own in values.groupby("metric", sort=False):
        notes = dict.fromkeys(note for note in own["averaging_or_note"] if note not in _MARKS)
        row: dict[str, object] = {"metric": metric, "remark": "; ".join(filter(None, notes))}
        for one in own.to_dict("records"):
            name = one["augmentation"]
            row[f"{name} mark"] = _MARKS.get(one["averaging_or_note"], "")
            row |= {f"{name} {whose}": one[whose] for whose in ("published", "ours")}
        rows.append(row)
    columns = {"": text("metric")}
    for name in COLUMNS:
        for heading, whose in (("thesis", "published"), ("ours", "ours")):
            columns[f"{name}: {heading}"] = Column((f"{name} {whose}", f"{name} mark"), _marked)
    columns["remark on the published values"] = text("remark")
    return Table(pd.DataFrame(rows), columns)


def _marked(value: float | None, mark: str) -> str:
    return "" if value is None else f"{value:.3f} {mark}".rstrip()

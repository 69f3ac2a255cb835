"""Tables 3 to 5 of the thesis compared with this sweep, in the convention of the thesis.

Its positive class is healthy, its AUC is that of hard labels, and its averages vary; see
:func:`leuk.metrics.classification.thesis_metrics`. The main table uses the standard convention.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from leuk.metrics.classification import thesis_metrics
from leuk.report.comparisons import SETTINGS, changed
from leuk.report.gan_tables import published_figures
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section
from leuk.runs.record import RunId, short_name

TABLES = {3: "cnn", 4: "vit", 5: "hybrid"}
"""Number of the table in the thesis, and its model."""

COLUMNS = ("none", "dcgan", "wgan", "cgan")

METRICS = ("accuracy", "precision", "recall", "f1", "auc", "sensitivity", "specificity")

_AVERAGED = ("precision", "recall", "f1")
_MARKS = {"weighted": "w", "macro": "m", "mixed runs": "w?"}

NOTES = """\
**These tables use the convention of the thesis, only for comparison with it; use the main table for
all conclusions.** Each pair gives the published value and ours, from the same test images as in the
main table, with decisions at 0.5. Problems of the published values:

- Healthy is the positive class, so sensitivity is the recall of healthy cells and specificity that
  of leukemic cells. Its reported gain in sensitivity means that fewer healthy cells, but more
  leukemic cells, were misclassified.
- AUC is that of hard labels, (sensitivity + specificity) / 2, wherever it can be checked; our AUC
  in these tables is computed the same way.
- Averages vary within a table: w is weighted by class size, m is the mean of both classes, w? mixes
  runs (ours is weighted). Our value uses the average of the published value next to it.
- The thesis has no test set: its results are for the images that decided when to stop training. It
  has one run per model and neither intervals nor tests. On its images, always answering leukemia
  has an accuracy of 0.653 and a weighted F1 of 0.516.
- Its test images differ from ours, so absolute values cannot be compared, at most the order of the
  four augmentations."""


def thesis_section(configurations: Sequence[Configuration]) -> Section:
    """Each table of the thesis for every split and variant that has its model.

    Of several configurations with the same augmentation, the first is used.

    Args:
        configurations: all configurations of the report.
    """
    known: dict[tuple[RunId, str], Configuration] = {}
    for one in configurations:
        if one.runs and _comparable(one.run):
            known.setdefault((one.run.plain, one.run.augmentation), one)
    parts: list[Grid | str] = [NOTES]
    rows: list[dict[str, object]] = []
    for number, model in TABLES.items():
        plain = dict.fromkeys(run for run, _ in known if run.model == model)
        if not plain:
            parts.append(f"## Table {number}: {model}\n\nNot in this sweep.")
        for run in plain:
            found = [known.get((run, name)) for name in COLUMNS]
            ours = [thesis_means(configuration) if configuration else {} for configuration in found]
            values = _compared(_published(number), model, dict(zip(COLUMNS, ours, strict=True)))
            where = "-".join(text for text in (run.split_name, short_name(run.settings)) if text)
            parts += [f"## Table {number}: {model}, {where}", _grid(values)]
            rows += [{"table": number, "configuration": run.title, **value} for value in values]
    title = "Comparison with tables 3 to 5 of the thesis"
    return Section("thesis_tables", title, tuple(parts), pd.DataFrame(rows))


def _comparable(run: RunId) -> bool:
    """Return True for augmentations of the thesis without settings it only proposes."""
    plain = not any(changed(run, key) for key in SETTINGS)
    return plain and run.augmentation in COLUMNS


def thesis_means(configuration: Configuration) -> dict[str, float]:
    """Metrics in the convention of the thesis at 0.5, means over the runs of a configuration."""
    of_runs = [
        thesis_metrics(run.test.sample.scores, run.test.sample.labels) for run in configuration.runs
    ]
    return {name: float(np.mean([metrics[name] for metrics in of_runs])) for name in of_runs[0]}


_Published = Mapping[tuple[str, str], tuple[float, str]]
"""Configuration and metric to value and note."""


def _published(number: int) -> _Published:
    table = published_figures()
    rows = table[table["table"] == number].fillna({"averaging_or_note": ""})
    return {
        (str(row["group"]), str(row["metric"])): (float(row["value"]), row["averaging_or_note"])
        for row in rows.to_dict("records")
    }


def _compared(
    published: _Published, model: str, ours: Mapping[str, Mapping[str, float]]
) -> list[dict[str, object]]:
    """Return a row per metric and augmentation; ours averages as the published value does."""
    rows: list[dict[str, object]] = []
    for metric in METRICS:
        for augmentation, metrics in ours.items():
            value, note = published.get((f"{model}/{augmentation}", metric), (None, ""))
            average = "macro" if note == "macro" else "weighted"
            name = f"{metric}_{average}" if metric in _AVERAGED else metric
            rows.append(
                {
                    "metric": metric,
                    "augmentation": augmentation,
                    "published": value,
                    "ours": metrics.get(name),
                    "averaging_or_note": note,
                }
            )
    return rows


def _grid(values: Sequence[Mapping[str, object]]) -> Grid:
    header = [text for name in COLUMNS for text in (f"{name}: thesis", "ours")]
    rows = []
    for metric in METRICS:
        texts: list[str] = []
        notes: dict[str, None] = {}
        for value in (value for value in values if value["metric"] == metric):
            note = str(value["averaging_or_note"])
            mark = f" {_MARKS[note]}" if note in _MARKS else ""
            if note and not mark:
                notes[note] = None
            texts += [_text(value["published"], mark), _text(value["ours"], mark)]
        rows.append((metric, *texts, "; ".join(notes)))
    return Grid(("", *header, "remark on the published values"), tuple(rows))


def _text(value: object, mark: str) -> str:
    return f"{value:.3f}{mark}" if isinstance(value, float) else ""

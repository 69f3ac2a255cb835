"""The thesis's tables 3 to 5 beside ours, in its own convention and for that purpose alone.

Its positive class is healthy, its AUC is that of hard labels, and its averages switch; see
:mod:`leuk.evaluate.conventions`. Our convention, in the main table, is the one to believe.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from leuk.evaluate.conventions import thesis_metrics
from leuk.grid.run_id import RunId
from leuk.report.comparisons import SETTINGS, setting
from leuk.report.gan_tables import published_figures
from leuk.report.results import Configuration
from leuk.report.sections import Grid, Section

TABLES = {3: "cnn", 4: "vit", 5: "hybrid"}
"""Number of the thesis's table, and the model in it."""

AUGMENTATIONS = ("none", "dcgan", "wgan", "cgan")

METRICS = ("accuracy", "precision", "recall", "f1", "auc", "sensitivity", "specificity")

_AVERAGED = ("precision", "recall", "f1")
_MARKS = {"weighted": "w", "macro": "m", "mixed runs": "w?"}

NOTES = """\
**In the thesis's convention, for comparison with its tables alone; believe the main table.** Each
pair: published, and ours from the same test cells as in the main table, decisions at 0.5. What is
wrong in the published ones:

- Healthy is positive, so sensitivity is the recall of healthy cells and specificity that of
  leukemic ones. What it calls a gain in sensitivity is fewer healthy cells missed; with it more
  leukemic ones were.
- AUC is that of hard labels, (sensitivity + specificity) / 2, where the two can be compared; ours
  here is too.
- Averages switch within a table: w is weighted by class size, m the plain mean of the classes, w?
  mixed runs, beside which ours is weighted. Ours has the average of its neighbor.
- There is no test set (the part that stops the training is the part reported), one run each, no
  interval and no test. Always answering leukemia has an accuracy of 0.653 and a weighted F1 of
  0.516 on its cells.
- Its test cells are not ours: the level of two neighbors does not compare, at most how the four
  augmentations lie to each other."""


def thesis_section(groups: Sequence[Configuration]) -> Section:
    """Each table of the thesis for every split and variant that has its model.

    Of several lines of one augmentation the first stands for it.
    """
    lines: dict[tuple[RunId, str], Configuration] = {}
    for group in groups:
        if group.runs and _comparable(group.run):
            lines.setdefault((group.run.plain, group.run.augmentation), group)
    parts: list[Grid | str] = [NOTES]
    figures: list[dict[str, object]] = []
    for number, model in TABLES.items():
        plain = dict.fromkeys(cell for cell, _ in lines if cell.model == model)
        if not plain:
            parts.append(f"## Table {number}: {model}\n\nNot in this sweep.")
        for cell in plain:
            found = [lines.get((cell, name)) for name in AUGMENTATIONS]
            ours = [thesis_means(group) if group else {} for group in found]
            values = _beside(_published(number), model, dict(zip(AUGMENTATIONS, ours, strict=True)))
            where = "-".join(text for text in (cell.split, cell.variant) if text)
            parts += [f"## Table {number}: {model}, {where}", _grid(values)]
            figures += [{"table": number, "configuration": cell.title, **value} for value in values]
    return Section(
        "thesis_tables", "The thesis's tables 3 to 5", tuple(parts), pd.DataFrame(figures)
    )


def _comparable(cell: RunId) -> bool:
    """Whether the thesis has such a model: one of its augmentations, none of the untested ideas."""
    plain = all(setting(cell, name) is None for name in SETTINGS)
    return plain and cell.augmentation in AUGMENTATIONS


def thesis_means(group: Configuration) -> dict[str, float]:
    """Metrics of the thesis's convention at 0.5, the mean over the runs of a group."""
    of_runs = [thesis_metrics(run.test.sample.scores, run.test.sample.labels) for run in group.runs]
    return {name: float(np.mean([figures[name] for figures in of_runs])) for name in of_runs[0]}


_Published = Mapping[tuple[str, str], tuple[float, str]]
"""Configuration and metric to value and note."""


def _published(number: int) -> _Published:
    table = published_figures()
    rows = table[table["table"] == number].fillna({"averaging_or_note": ""})
    return {
        (str(row["group"]), str(row["metric"])): (float(row["value"]), row["averaging_or_note"])
        for row in rows.to_dict("records")
    }


def _beside(
    theirs: _Published, model: str, ours: Mapping[str, Mapping[str, float]]
) -> list[dict[str, object]]:
    """One line for each metric and augmentation; ours has the average of the published figure."""
    lines: list[dict[str, object]] = []
    for metric in METRICS:
        for augmentation, figures in ours.items():
            value, note = theirs.get((f"{model}/{augmentation}", metric), (None, ""))
            average = "macro" if note == "macro" else "weighted"
            name = f"{metric}_{average}" if metric in _AVERAGED else metric
            lines.append(
                {
                    "metric": metric,
                    "augmentation": augmentation,
                    "published": value,
                    "ours": figures.get(name),
                    "averaging_or_note": note,
                }
            )
    return lines


def _grid(lines: Sequence[Mapping[str, object]]) -> Grid:
    header = [text for name in AUGMENTATIONS for text in (f"{name}: thesis", "ours")]
    rows = []
    for metric in METRICS:
        texts: list[str] = []
        notes: dict[str, None] = {}
        for line in (line for line in lines if line["metric"] == metric):
            note = str(line["averaging_or_note"])
            mark = f" {_MARKS[note]}" if note in _MARKS else ""
            if note and not mark:
                notes[note] = None
            texts += [_text(line["published"], mark), _text(line["ours"], mark)]
        rows.append((metric, *texts, "; ".join(notes)))
    return Grid(("", *header, "what is wrong"), tuple(rows))


def _text(value: object, mark: str) -> str:
    return f"{value:.3f}{mark}" if isinstance(value, float) else ""

"""What has to be said before a figure of a sweep is believed.

Made once; the main table lists it, the page sorts it by kind and puts it on its first screen.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import numpy as np

from leuk.evaluate.intervals import few_subjects
from leuk.evaluate.sample import Sample
from leuk.grid.run_id import CUT
from leuk.report.baselines import AREA, baseline_of, first_seeds
from leuk.report.leaking import leaking_gains
from leuk.report.results import Configuration, Results
from leuk.report.rows import Row

Kind = Literal["leaky", "failed", "missing", "synthetic", "area", "few", "degenerate", "other"]

KINDS: dict[Kind, str] = {
    "leaky": "LEAKY: persons may be in two parts, so figures are too good",
    "failed": "Cells that are not complete",
    "missing": "Missing or unreadable",
    "synthetic": "Made cells to be wary of",
    "area": "Not shown to lie above what the area of the cell alone reaches",
    "few": "Too few persons for what is claimed of them",
    "degenerate": "Explanations that say nothing",
    "other": "Further remarks",
}
"""Kinds of remarks, the gravest first, and what each is headed."""


@dataclass(frozen=True)
class Remark:
    """One thing to know.

    Attributes:
        kind: a key of :data:`KINDS`.
        text: what there is to say.
        where: the cell or line it is about; empty where the text names it.
        grave: whether the table prints it bold.
        brief: the same under the heading of its kind; the text if empty.
    """

    kind: Kind
    text: str
    where: str = ""
    grave: bool = False
    brief: str = ""


NAMED = 2
"""Cells that a remark names; of more it says how many they are, and their records have it too."""

_ALONE: tuple[Kind, ...] = ("failed", "synthetic", "degenerate")
"""Kinds that the main table names every cell of: there is something to be done about each."""


def listed(remarks: Iterable[Remark]) -> str:
    """Markdown items; what many cells say stands once, but for kinds that name every cell."""
    said: dict[tuple[str, bool, str], list[str]] = defaultdict(list)
    for one in remarks:
        alone = one.where if one.kind in _ALONE else ""
        said[one.text, one.grave, alone].append(one.where)
    items = [(said_of(text, where), grave) for (text, grave, _), where in said.items()]
    return "\n".join(f"- **{item}**" if grave else f"- {item}" for item, grave in items)


def said_of(text: str, where: Iterable[str]) -> str:
    """A text with the names of what it is about, or with how many they are."""
    named = [name for name in where if name]
    if len(named) > NAMED:
        return f"{text} (in {len(named)} cells)"
    return f"{', '.join(named)}: {text}" if named else text


def remarks_on(
    results: Results, groups: Sequence[Configuration], lines: Sequence[Row]
) -> tuple[Remark, ...]:
    """Everything there is to say.

    Args:
        results: what was read.
        groups: its groups and what the report added, such as the ensembles.
        lines: of these groups, in their order.
    """
    found = [Remark("leaky", text) for text in leaking_gains(results.records)]
    found += [*_few(groups), *_not_above_area(groups, lines)]
    found += [Remark("other", line.note, line.name) for line in lines if line.metrics and line.note]
    found += [
        Remark(
            "other",
            "has too many settings for a name, so that it is compared with lines of the same "
            "settings alone",
            group.title,
        )
        for group in groups
        if any(text.startswith(CUT) for text in group.run.settings)
    ]
    for record in results.records:
        name = record.run.folder
        if record.status != "complete":
            found.append(Remark("failed", record.state, name))
        found += [
            Remark("other" if one.kind == "resumed" else one.kind, one.text, name)
            for one in record.warnings
        ]
    return (*found, *(Remark("missing", text) for text in results.problems))


def _not_above_area(groups: Sequence[Configuration], lines: Sequence[Row]) -> list[Remark]:
    """Which lines' intervals do not lie above what the area of the cell alone reaches."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, line in zip(groups, lines, strict=True):
        area = baseline_of(first_seeds(group), AREA)
        if area is None or "auroc" not in line.metrics:
            continue
        asked = [run.test.sample.at_half for run in area.runs]
        reached = mean(float(one.auroc(np.ones((1, one.count)))[0]) for one in asked)
        _, low, _ = line.metrics["auroc"]
        if low is None or low <= reached:
            found[group.run.split, f"{reached:.3f}"].append(group.title)
    return [
        Remark(
            "area",
            f"**AUROC not shown to lie above the area of the cell alone ({reached}, {split}):** "
            + ", ".join(titles),
            brief=f"**{split}, where the area's {reached} is in or above the intervals of:** "
            + ", ".join(titles),
        )
        for (split, reached), titles in found.items()
    ]


def _few(groups: Sequence[Configuration]) -> list[Remark]:
    """Splits whose test part has few persons of a class."""
    found: dict[tuple[str, str], None] = {}
    for group in groups:
        if group.runs and (text := few_subjects(all_test_images(group))):
            found[group.run.split, text] = None
    return [Remark("few", text, split, grave=True) for split, text in found]


def all_test_images(group: Configuration) -> Sample:
    """The test cells of all folds, each once: as the runs of the lowest seed judged them.

    Scores of several models lie side by side in it, so that it serves for counting, not ranking.
    """
    samples = [run.test.sample for run in group.first_seed]
    return Sample(
        np.concatenate([sample.scores for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.subjects for sample in samples]),
    )

"""Warnings to read before the results of a sweep.

They are collected once; the main table lists them, and the page groups them by kind on its first
screen.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import numpy as np

from leuk.metrics.bootstrap import Sample, few_subjects
from leuk.report.baselines import AREA, baseline_of, first_seeds
from leuk.report.leaking import leaking_gains
from leuk.report.results import Configuration, Results
from leuk.report.rows import Row

Kind = Literal["leaky", "failed", "missing", "synthetic", "area", "few", "degenerate", "other"]

KINDS: dict[Kind, str] = {
    "leaky": "LEAKY split: the same patients may be in training and test, so results are too good",
    "failed": "Incomplete runs",
    "missing": "Missing or unreadable results",
    "synthetic": "Low-quality synthetic images",
    "area": "Not significantly better than cell area alone",
    "few": "Too few patients for reliable intervals",
    "degenerate": "Explanations without information",
    "other": "Other remarks",
}
"""Headings of the kinds of remarks, the most serious first."""


@dataclass(frozen=True)
class Remark:
    """Warning.

    Attributes:
        kind: a key of :data:`KINDS`.
        text: the warning in Markdown.
        source: name of the run, split or configuration it is about; empty if the text names it.
        bold: the main table prints it in bold.
        brief: shorter text under the heading of its kind; ``text`` if empty.
    """

    kind: Kind
    text: str
    source: str = ""
    bold: bool = False
    brief: str = ""


NAMED = 2
"""Number of runs that a remark names; more are counted, and their records hold the same text."""

_EACH: tuple[Kind, ...] = ("failed", "synthetic", "degenerate")
"""Kinds for which the main table names every run, since each needs action."""


def listed(remarks: Iterable[Remark]) -> str:
    """Markdown list; equal remarks on several runs are one item, except for kinds in ``_EACH``."""
    sources: dict[tuple[str, bool, str], list[str]] = defaultdict(list)
    for one in remarks:
        alone = one.source if one.kind in _EACH else ""
        sources[one.text, one.bold, alone].append(one.source)
    items = [(with_sources(text, names), bold) for (text, bold, _), names in sources.items()]
    return "\n".join(f"- **{item}**" if bold else f"- {item}" for item, bold in items)


def with_sources(text: str, sources: Iterable[str]) -> str:
    """``<source>, <source>: <text>``, or ``<text> (in <n> runs)`` for more than two sources."""
    named = [name for name in sources if name]
    if len(named) > NAMED:
        return f"{text} (in {len(named)} runs)"
    return f"{', '.join(named)}: {text}" if named else text


def remarks_on(
    results: Results, configurations: Sequence[Configuration], rows: Sequence[Row]
) -> tuple[Remark, ...]:
    """All remarks on a sweep.

    Args:
        results: the results as read.
        configurations: all configurations of the report, ensembles included.
        rows: table rows of the configurations, in the same order.
    """
    found = [Remark("leaky", text) for text in leaking_gains(results.records)]
    found += [*_few(configurations), *_not_above_area(configurations, rows)]
    found += [Remark("other", row.note, row.name) for row in rows if row.metrics and row.note]
    for record in results.records:
        name = record.run.folder
        if record.status != "complete":
            found.append(Remark("failed", record.state, name))
        found += [
            Remark("other" if one.kind == "resumed" else one.kind, one.text, name)
            for one in record.warnings
        ]
    return (*found, *(Remark("missing", text) for text in results.problems))


def _not_above_area(configurations: Sequence[Configuration], rows: Sequence[Row]) -> list[Remark]:
    """Remarks on configurations whose AUROC interval is not above the AUROC of cell area alone."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    compared: Counter[str] = Counter()
    for configuration, row in zip(configurations, rows, strict=True):
        area = baseline_of(first_seeds(configuration), AREA)
        if area is None or "auroc" not in row.metrics:
            continue
        compared[configuration.run.split_name] += 1
        images = [run.test.sample.at_half for run in area.runs]
        reached = mean(float(one.metric("auroc", np.ones((1, one.count)))[0]) for one in images)
        _, low, _ = row.metrics["auroc"]
        if low is None or low <= reached:
            found[configuration.run.split_name, f"{reached:.3f}"].append(configuration.title)
    return [
        Remark(
            "area",
            f"**AUROC not significantly better than cell area alone ({reached}, {split}):** "
            + _named(titles, compared[split]),
            brief=f"**{split}: the AUROC of cell area alone, {reached}, is within or above the "
            "interval of:** " + _named(titles, compared[split]),
        )
        for (split, reached), titles in found.items()
    ]


def _named(titles: Sequence[str], total: int) -> str:
    """Titles, or their number if they are all of many."""
    if len(titles) == total > NAMED:
        return f"all {total} configurations"
    return ", ".join(titles)


def _few(configurations: Sequence[Configuration]) -> list[Remark]:
    """Remarks on splits with few test patients in a class."""
    found: dict[tuple[str, str], None] = {}
    for configuration in configurations:
        if configuration.runs and (text := few_subjects(all_test_images(configuration))):
            found[configuration.run.split_name, text] = None
    return [Remark("few", text, split, bold=True) for split, text in found]


def all_test_images(configuration: Configuration) -> Sample:
    """Test images of all folds, each once, with the scores of the lowest seed.

    The scores come from several models, so the sample serves for counting, not for ranking.
    """
    samples = [run.test.sample for run in configuration.first_seed]
    return Sample(
        np.concatenate([sample.scores for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        np.concatenate([sample.subjects for sample in samples]),
    )

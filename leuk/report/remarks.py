"""Warnings to read before the results of a sweep.

They are collected once; the main table lists them, and the page groups them by kind on its first
screen.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from leuk.metrics.bootstrap import few_subjects
from leuk.report.derived import AREA, baseline_of
from leuk.report.load import Configuration, Results, unlike
from leuk.report.rows import Row, value_of
from leuk.report.table import Items, Span, Text, spans, strong
from leuk.runs.record import Record, RunId

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

NAMED = 2
"""Number of runs that a remark names; more are counted, and their records hold the same text."""

_EACH: tuple[Kind, ...] = ("failed", "synthetic", "degenerate")
"""Kinds for which the main table names every run, since each needs action."""


@dataclass(frozen=True)
class Remark:
    """Warning."""

    kind: Kind
    text: Text
    source: str = ""  # the run, split or configuration it is about; empty if the text names it
    brief: Text = ""  # shorter text under the heading of its kind; the text if empty
    # True if it was recorded with a run: one about all folds together replaces it on the page.
    of_run: bool = False


def listed(remarks: Iterable[Remark]) -> Items:
    """List of remarks; equal ones on several runs are one item, except for kinds in ``_EACH``."""
    sources: dict[tuple[Text, bool, str], list[str]] = defaultdict(list)
    for one in remarks:
        alone = one.source if one.kind in _EACH else ""
        sources[one.text, one.kind == "few" and not one.of_run, alone].append(one.source)
    items = []
    for (text, bold, _), names in sources.items():
        item = _with_sources(text, names)
        items.append((strong("".join(span.text for span in item)),) if bold else item)
    return Items(tuple(items), summary=True)


def boxes(remarks: Iterable[Remark]) -> dict[Kind, list[tuple[Span, ...]]]:
    """Remarks by kind, the most serious first; equal remarks on many runs are counted."""
    sources: dict[Kind, dict[Text, list[str]]] = {kind: {} for kind in KINDS}
    for one in remarks:
        if not (one.kind == "few" and one.of_run):
            sources[one.kind].setdefault(one.brief or one.text, []).append(one.source)
    return {
        kind: [_with_sources(text, names) for text, names in texts.items()]
        for kind, texts in sources.items()
        if texts
    }


def _with_sources(text: Text, sources: Iterable[str]) -> tuple[Span, ...]:
    """``<source>, <source>: <text>``, or ``<text> (in <n> runs)`` for more than two sources."""
    named = [name for name in sources if name]
    if len(named) > NAMED:
        return *spans(text), Span(f" (in {len(named)} runs)")
    return (Span(f"{', '.join(named)}: "), *spans(text)) if named else spans(text)


def remarks_on(
    results: Results, configurations: Sequence[Configuration], rows: Sequence[Row]
) -> tuple[Remark, ...]:
    """All remarks on a sweep, its configurations with ensembles, and their rows of the table."""
    found = [Remark("leaky", text) for text in leaking_gains(results.records)]
    warned = {
        (warning, one.run.split_name): None
        for one in configurations
        if one.runs and (warning := few_subjects(one.first_seed.pooled))
    }
    found += [Remark("few", text, split) for text, split in warned]
    found += _not_above_area(configurations, rows)
    found += [Remark("other", row.note, row.name) for row in rows if row.metrics and row.note]
    for record in results.records:
        name = record.run.folder
        if record.status != "complete":
            found.append(Remark("failed", record.state, name))
        for one in record.warnings:
            kind: Kind = "other" if one.kind == "resumed" else one.kind
            found.append(Remark(kind, one.text, name, of_run=True))
    return (*found, *(Remark("missing", text) for text in results.problems))


def _not_above_area(configurations: Sequence[Configuration], rows: Sequence[Row]) -> list[Remark]:
    """Remarks on configurations whose AUROC interval is not above the AUROC of cell area alone."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    compared: Counter[str] = Counter()
    for configuration, row in zip(configurations, rows, strict=True):
        area = baseline_of(configuration.first_seed, AREA)
        if area is None or "auroc" not in row.metrics:
            continue
        split = configuration.run.split_name
        compared[split] += 1
        value = mean(value_of(run.test.sample.at_half, "auroc") for run in area.runs)
        _, low, _ = row.metrics["auroc"]
        if low is None or low <= value:
            found[split, f"{value:.3f}"].append(configuration.title)
    remarks = []
    for (split, reached), titles in found.items():
        every = len(titles) == compared[split] > NAMED
        names = f" all {compared[split]} configurations" if every else f" {', '.join(titles)}"
        text = f"AUROC not significantly better than cell area alone ({reached}, {split}):"
        brief = f"{split}: the AUROC of cell area alone, {reached}, is within or above the interval"
        remarks.append(Remark("area", (strong(text), names), brief=(strong(f"{brief} of:"), names)))
    return remarks


def leaking_gains(records: Iterable[Record]) -> list[str]:
    """Return a sentence for each leaky configuration with a counterpart on a split by patient.

    The counterpart has the same model and augmentation and the most similar settings. Seeds and
    folds are averaged. The difference is not tested, since the splits have different training or
    test images.
    """
    scores: dict[RunId, list[float]] = defaultdict(list)
    for record in records:
        value = record.metrics.get("test", {}).get("auroc", {}).get("value")
        if record.status == "complete" and value is not None:
            scores[record.run.configuration].append(value)
    texts = []
    for leaky in (run for run in scores if run.leaky):
        axes = leaky.model, leaky.augmentation, False
        if same := [run for run in scores if (run.model, run.augmentation, run.leaky) == axes]:
            honest = min(same, key=lambda run: unlike(leaky, run))
            one, other = mean(scores[leaky]), mean(scores[honest])
            texts.append(
                f"LEAKY: {leaky.title} has a test AUROC of {one:.3f}, {honest.title} of "
                f"{other:.3f}: apparent gain {one - other:+.3f}"
            )
    return sorted(texts)

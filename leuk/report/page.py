"""A sweep's report as one HTML page, readable on a phone and on paper: what is on it, in order.

Numbers, tables and figures are those of :mod:`leuk.report.content`; here they are only put in
order. Nothing of a record reaches the page but as text, which the template escapes.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leuk.report.answer import QUESTION, Answer
from leuk.report.baselines import AREA
from leuk.report.blocks import (
    Block,
    Details,
    Pictures,
    fold_headings,
    folded,
    heat_table,
    prose,
    section_blocks,
    table_of,
)
from leuk.report.content import Report
from leuk.report.explained import Explained
from leuk.report.heatmap import NOTES as HEAT_NOTES
from leuk.report.html import png_uri, render
from leuk.report.prose import Spans, spans
from leuk.report.remarks import KINDS, Kind, Remark, said_of
from leuk.report.sections import Section, interval_text

FILE = "report.html"

_MANY = 6
"""Panels of a figure beyond which it is folded away."""


@dataclass(frozen=True)
class Chapter:
    """A part of the page with a heading of its own.

    Attributes:
        name: by which it is linked.
        title: its heading.
        blocks: what is in it.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Warned:
    """Remarks of one kind, on the first screen.

    Attributes:
        kind: which.
        title: what they have in common.
        texts: what there is to say, each once.
    """

    kind: Kind
    title: str
    texts: tuple[Spans, ...]


def report_page(report: Report, figures: Sequence[Pictures], explained: Sequence[Explained]) -> str:
    """The page of a sweep.

    Args:
        report: what is said of it.
        figures: what was drawn.
        explained: pictures of explanations.
    """
    name = report.sweep.name
    return render(
        "report.html",
        title=f"{name}: report",
        name=name,
        question=QUESTION,
        answer=report.answer,
        tiles=tiles(report),
        warned=warned(report.remarks),
        chapters=chapters(report, figures, explained),
    )


def missing_page(name: str, problems: Sequence[str]) -> str:
    """The page of a folder that has no record to report of: what is missing, and what to do."""
    return render(
        "missing.html",
        title=f"{name}: nothing to report",
        name=name,
        command=shlex.join(["leuk", "train", "-m", f"name={name}"]),
        problems=problems,
    )


def tiles(report: Report) -> list[tuple[str, str]]:
    """A few numbers beside the answer: figure and what it counts."""
    records = report.results.records
    complete = sum(record.status == "complete" for record in records)
    failed = sum(record.status == "failed" for record in records)
    running = len(records) - complete - failed
    found = [(f"{complete} of {len(records)}", "cells complete")]
    if failed:
        found.append((str(failed), "failed"))
    if running:
        found.append((str(running), "begun and not finished"))
    return [*found, *_best(report)]


def _best(report: Report) -> list[tuple[str, str]]:
    """The highest AUROC, and what the area of the cell alone reaches on the same split."""
    heat = report.heat
    lines = [line for row in heat.lines for line in row if line] if heat else []
    if not lines:
        return []
    top = max(lines, key=lambda line: line.metrics["auroc"][0])
    area = [
        line
        for line in report.baselines
        if line.name.startswith(f"baseline: {AREA}") and line.run and top.run
        if line.run.split == top.run.split
    ]
    # The one on the same data, where the sweep has several.
    wanted = set(top.run.settings) if top.run else set[str]()
    area.sort(key=lambda line: len(wanted ^ set(line.run.settings)) if line.run else 0)
    named = [(top, f"highest test AUROC: {top.name}")]
    named += [(line, "test AUROC of the area of the cell alone") for line in area[:1]]
    return [
        (interval_text(*line.metrics[metric]), f"{words}{weighed}")
        for line, words in named
        for metric, weighed in (
            ("auroc", ""),
            ("auroc_patients", ", patients weighing the same"),
        )
        if metric in line.metrics
    ]


def warned(remarks: Iterable[Remark]) -> list[Warned]:
    """Remarks by kind, the gravest first; what many cells say is said once, and of how many."""
    said: dict[Kind, dict[str, list[str]]] = {kind: {} for kind in KINDS}
    for remark in remarks:
        # Of the test part the whole line says it, of all its folds together.
        if remark.kind != "few" or not remark.text.startswith("test: "):
            said[remark.kind].setdefault(remark.brief or remark.text, []).append(remark.where)
    return [
        Warned(kind, KINDS[kind], tuple(spans(said_of(*one)) for one in texts.items()))
        for kind, texts in said.items()
        if texts
    ]


def chapters(
    report: Report, figures: Sequence[Pictures], explained: Sequence[Explained]
) -> list[Chapter]:
    """Everything below the first screen, in the order in which it is read."""
    sections = {section.name: section for section in report.sections}
    named = {figure.name: figure for figure in figures}
    heat = report.heat

    def of(name: str) -> list[Block]:
        return section_blocks(sections[name]) if name in sections else []

    def drawn(*names: str) -> list[Block]:
        return [named[name] for name in names if name in named]

    grid = (
        [
            heat_table(heat),
            table_of(heat.by_patient, "Test AUROC where every patient weighs the same", named=True),
            *prose(HEAT_NOTES),
        ]
        if heat
        else []
    )
    others = folded("Show all, and their figure", [*drawn("differences"), *of("comparisons")])
    made = [*drawn("synthetic_images"), *of("synthetic_images"), *of("synthetic_quality")]
    found = [
        ("grid", "The grid at a glance", grid),
        ("differences", "What made cells change", _changed(report.answer, drawn("augmentation"))),
        ("results", "What each line reaches", _results(sections["table"])),
        ("comparisons", "All differences between lines", others),
        ("thesis", "The thesis's tables 3 to 5, beside ours", of("thesis_tables")),
        ("made", "Made cells, beside the thesis's table 2", made),
        ("curves", "Curves and calibration", _curves(drawn(*_CURVES))),
        ("decisions", "Decisions, and person by person", drawn("confusion", "per_subject")),
        ("referral", "Referral to an expert", of("referral")),
        ("explanations", "Explanations", of("explanations") + _explained(explained)),
        ("area", "The area shortcut", of("area")),
        ("hypotheses", "The thesis's hypotheses", of("verdicts")),
        ("cost", "What the models cost", of("costs")),
        ("data", "Data and split", of("data")),
        ("run", "How it was run", of("run")),
    ]
    return [Chapter(name, title, tuple(blocks)) for name, title, blocks in found if blocks]


_CURVES = ("roc", "precision_recall", "reliability")


def _changed(found: Answer, figure: Sequence[Block]) -> list[Block]:
    """The figures behind the answer."""
    return [*section_blocks(found.section, "Difference in AUROC by line with made cells"), *figure]


def _results(section: Section) -> list[Block]:
    """The main table without its remarks, which are on the first screen; the others folded away."""
    listed = [part for part in section.parts if not (isinstance(part, str) and part[:2] == "- ")]
    kept = Section(section.name, section.title, tuple(listed), section.table)
    return fold_headings(section_blocks(kept, "Metrics on the test part, by line"))


def _curves(figures: Sequence[Block]) -> list[Block]:
    """All but the first folded away where each has many panels."""
    many = any(isinstance(one, Pictures) and len(one.pictures) > _MANY for one in figures)
    if not many:
        return list(figures)
    folds = [Details(one.title, (one,)) for one in figures[1:] if isinstance(one, Pictures)]
    return [*figures[:1], *folds]


def _explained(pictures: Sequence[Explained]) -> list[Block]:
    """Pictures folded away by model: they are large."""
    of_line: dict[str, list[Explained]] = {}
    for picture in pictures:
        of_line.setdefault(picture.line, []).append(picture)
    return [
        Details(
            f"Pictures of {line}: {', '.join(one.method for one in found)}",
            tuple(
                Pictures("", one.method, "", ((png_uri(one.png), one.alt),), wide=True)
                for one in found
            ),
        )
        for line, found in of_line.items()
    ]

"""The report of a sweep as one HTML page, readable on a phone and on paper.

Values, tables and figures come from :mod:`leuk.report.content`; this module arranges them. Texts
from records reach the page only as text, which the template escapes.
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
from leuk.report.naming import unlike
from leuk.report.prose import Spans, spans
from leuk.report.remarks import KINDS, Kind, Remark, with_sources
from leuk.report.sections import Section, interval_text

FILE = "report.html"

_MANY = 6
"""Number of panels above which a figure is collapsed."""


@dataclass(frozen=True)
class Chapter:
    """A chapter of the page.

    Attributes:
        name: its anchor.
        title: its heading.
        blocks: its content.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class WarningBox:
    """Remarks of a kind, on the first screen.

    Attributes:
        kind: the kind.
        title: the heading of the kind.
        texts: the remarks without repetitions.
    """

    kind: Kind
    title: str
    texts: tuple[Spans, ...]


def report_page(report: Report, figures: Sequence[Pictures], explained: Sequence[Explained]) -> str:
    """Return the page of a sweep.

    Args:
        report: the content.
        figures: the figures of the report.
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
        warnings=warning_boxes(report.remarks),
        chapters=chapters(report, figures, explained),
    )


def missing_page(name: str, problems: Sequence[str]) -> str:
    """Return the page of a folder without readable records, with its problems."""
    return render(
        "missing.html",
        title=f"{name}: nothing to report",
        name=name,
        command=shlex.join(["leuk", "train", "-m", f"name={name}"]),
        problems=problems,
    )


def tiles(report: Report) -> list[tuple[str, str]]:
    """Key numbers beside the answer, each with its label."""
    records = report.results.records
    complete = sum(record.status == "complete" for record in records)
    failed = sum(record.status == "failed" for record in records)
    running = len(records) - complete - failed
    found = [(f"{complete} of {len(records)}", "runs complete")]
    if failed:
        found.append((str(failed), "failed"))
    if running:
        found.append((str(running), "started, not finished"))
    return [*found, *_best(report)]


def _best(report: Report) -> list[tuple[str, str]]:
    """Return the highest AUROC, and the AUROC of cell area alone on the same split."""
    heat = report.heat
    rows = [row for entries in heat.entries for row in entries if row] if heat else []
    if not rows:
        return []
    top = max(rows, key=lambda row: row.metrics["auroc"][0])
    area = [
        row
        for row in report.baselines
        if row.name.startswith(f"baseline: {AREA}") and row.run and top.run
        if row.run.split_name == top.run.split_name
    ]
    # Of several baselines, the one with the most similar settings is on the same data.
    area.sort(key=lambda row: unlike(top.run, row.run) if top.run and row.run else 0)
    named = [(top, f"highest test AUROC: {top.name}")]
    named += [(row, "test AUROC of cell area alone") for row in area[:1]]
    return [
        (interval_text(*row.metrics[metric]), f"{words}{weights}")
        for row, words in named
        for metric, weights in (
            ("auroc", ""),
            ("auroc_patients", ", every patient weighted equally"),
        )
        if metric in row.metrics
    ]


def warning_boxes(remarks: Iterable[Remark]) -> list[WarningBox]:
    """Remarks by kind, the most serious first; equal remarks on many runs are counted."""
    sources: dict[Kind, dict[str, list[str]]] = {kind: {} for kind in KINDS}
    for remark in remarks:
        # Few test patients are already reported by configuration, for all folds together.
        if remark.kind != "few" or not remark.text.startswith("test: "):
            sources[remark.kind].setdefault(remark.brief or remark.text, []).append(remark.source)
    return [
        WarningBox(kind, KINDS[kind], tuple(spans(with_sources(*one)) for one in texts.items()))
        for kind, texts in sources.items()
        if texts
    ]


def chapters(
    report: Report, figures: Sequence[Pictures], explained: Sequence[Explained]
) -> list[Chapter]:
    """Return the chapters below the first screen, in reading order."""
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
            table_of(heat.by_patient, "Test AUROC with equal weight for every patient", named=True),
            *prose(HEAT_NOTES),
        ]
        if heat
        else []
    )
    others = folded(
        "Show all comparisons and their figure", [*drawn("differences"), *of("comparisons")]
    )
    synthetic = [*drawn("synthetic_images"), *of("synthetic_images"), *of("synthetic_quality")]
    found = [
        ("grid", "Overview", grid),
        (
            "differences",
            "Effect of synthetic images",
            _effect(report.answer, drawn("augmentation")),
        ),
        ("results", "Results by configuration", _results(sections["table"])),
        ("comparisons", "All comparisons", others),
        ("thesis", "Comparison with tables 3 to 5 of the thesis", of("thesis_tables")),
        ("synthetic", "Synthetic images, and table 2 of the thesis", synthetic),
        ("curves", "Curves and calibration", _curves(drawn(*_CURVES))),
        ("decisions", "Decisions by image and by patient", drawn("confusion", "per_subject")),
        ("referral", "Referral to an expert", of("referral")),
        ("explanations", "Explanations", of("explanations") + _explained(explained)),
        ("area", "Dependence on cell area", of("area")),
        ("hypotheses", "The hypotheses of the thesis", of("verdicts")),
        ("cost", "Computational cost", of("costs")),
        ("data", "Data and split", of("data")),
        ("run", "Commands, time and versions", of("run")),
    ]
    return [Chapter(name, title, tuple(blocks)) for name, title, blocks in found if blocks]


_CURVES = ("roc", "precision_recall", "reliability")


def _effect(found: Answer, figure: Sequence[Block]) -> list[Block]:
    """Return the table and the figure behind the answer."""
    caption = "Difference in test AUROC by configuration with synthetic images"
    return [*section_blocks(found.section, caption), *figure]


def _results(section: Section) -> list[Block]:
    """Return the main table without its remarks, which the first screen shows."""
    listed = [part for part in section.parts if not (isinstance(part, str) and part[:2] == "- ")]
    kept = Section(section.name, section.title, tuple(listed), section.table)
    return fold_headings(section_blocks(kept, "Test metrics by configuration"))


def _curves(figures: Sequence[Block]) -> list[Block]:
    """Return the figures; all but the first are collapsed if one has many panels."""
    many = any(isinstance(one, Pictures) and len(one.pictures) > _MANY for one in figures)
    if not many:
        return list(figures)
    folds = [Details(one.title, (one,)) for one in figures[1:] if isinstance(one, Pictures)]
    return [*figures[:1], *folds]


def _explained(pictures: Sequence[Explained]) -> list[Block]:
    """Pictures by configuration, collapsed because they are large."""
    by_configuration: dict[str, list[Explained]] = {}
    for picture in pictures:
        by_configuration.setdefault(picture.configuration, []).append(picture)
    return [
        Details(
            f"Pictures of {name}: {', '.join(one.method for one in found)}",
            tuple(
                Pictures("", one.method, "", ((png_uri(one.png), one.alt),), wide=True)
                for one in found
            ),
        )
        for name, found in by_configuration.items()
    ]

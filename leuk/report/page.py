"""The report of a sweep: tables, figures and one HTML page, readable on a phone and on paper."""

import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from leuk.report.answer import QUESTION, Answer, answer
from leuk.report.comparisons import compare, comparisons_section
from leuk.report.costs import costs_of, costs_section
from leuk.report.derived import AREA, baselines, ensembles
from leuk.report.explanations import explained_pictures, explanations_section
from leuk.report.facts import common_overrides, data_section, run_section
from leuk.report.figures import DPI, Drawn, figures_of
from leuk.report.gans import contact_sheet, quality_section, synthetic_section
from leuk.report.html import Chapter, page, png_of, png_uri
from leuk.report.load import NoRecordsError, Results, read_results, sort_key, unlike
from leuk.report.remarks import KINDS, Remark, boxes, remarks_on
from leuk.report.rows import HeatMap, Row, configuration_rows, draws_for, heat_map
from leuk.report.table import (
    Block,
    Details,
    Heading,
    Items,
    Paragraph,
    Picture,
    Pictures,
    Section,
    code,
    interval_text,
    strong,
)
from leuk.report.tables import area_section, grid_section, main_section, referral_section
from leuk.report.thesis import thesis_section
from leuk.report.verdicts import LATENCY_MS, verdicts, verdicts_section
from leuk.runs.record import Record
from leuk.store import write_text

FILE = "report.html"

FIGURES = "figures"
"""Folder of the figures, below ``report/``."""

_MANY = 6
"""Number of panels above which a figure is collapsed."""

_AT_ONCE = 3
"""Number of warnings of a kind above which the others are collapsed."""


@dataclass(frozen=True, eq=False)
class Report:
    """Content of the report of a sweep.

    Attributes:
        name: name of the sweep.
        answer: answer to the question whether synthetic images help.
        remarks: warnings to read before the results.
        tiles: key numbers beside the answer, each with its label.
        sections: all tables by name, the main one first.
        drawn: all figures, not yet drawn.
        pictures: pictures of explanations.
    """

    name: str
    answer: Answer
    remarks: tuple[Remark, ...]
    tiles: tuple[tuple[str, str], ...]
    sections: Mapping[str, Section]
    drawn: tuple[Drawn, ...]
    pictures: tuple[Details, ...]


def write_report(sweep: Path, latency_ms: float = LATENCY_MS) -> str:
    """Write the report of a sweep (page, tables and figures) and return the main table.

    The folder ``report/`` then holds ``report.html``; Markdown and CSV files ``table``, ``answer``,
    ``grid``, ``verdicts``, ``comparisons``, ``referral``, ``thesis_tables``, ``costs``, ``area``,
    ``synthetic_images``, ``synthetic_quality``, ``explanations``, ``data`` and ``run``; and in
    ``figures/`` those of :func:`leuk.report.figures.figures_of`.

    Args:
        sweep: folder of the sweep.
        latency_ms: latency limit for deployment, in ms per image.

    Raises:
        StoreError: no readable record in the folder; the page then lists the problems.
    """
    folder = sweep / "report"
    try:
        results = read_results(sweep)
    except NoRecordsError as error:
        write_text(folder / FILE, missing_page(sweep.name, error.problems))
        raise
    report = build_report(sweep, results, latency_ms)
    for section in report.sections.values():
        section.write(folder)
    figures = {one.name: pictures_of(one, one.write(folder / FIGURES)) for one in report.drawn}
    write_text(folder / FILE, report_page(report, figures))
    return report.sections["table"].markdown


def build_report(sweep: Path, results: Results, latency_ms: float = LATENCY_MS) -> Report:
    """Compute the content of the report of a sweep.

    Args:
        sweep: folder of the sweep.
        results: results read from it.
        latency_ms: latency limit for deployment, in ms per image.
    """
    records = results.records
    configurations = [*results.configurations, *ensembles(results.configurations)]
    configurations.sort(key=lambda configuration: sort_key(configuration.run))
    draws = draws_for(configurations)
    rows = configuration_rows(configurations, draws)
    of_baselines = configuration_rows(baselines(configurations), draws, "baseline")
    comparisons = compare(configurations)
    costs = costs_of(configurations)
    found = verdicts(comparisons, costs, latency_ms)
    remarks = remarks_on(results, configurations, rows)
    heat = heat_map(configurations, rows)
    overrides = common_overrides(sweep, configurations)
    answered = answer(configurations, comparisons, sweep.name, overrides)
    sections = [
        main_section(sweep.name, results, [*rows, *of_baselines], draws, remarks),
        answered.section,
        *([grid_section(heat)] if heat else []),
        verdicts_section(found, latency_ms),
        comparisons_section(comparisons),
        referral_section(configurations),
        thesis_section(configurations),
        costs_section(configurations, costs),
        area_section(configurations),
        synthetic_section(records),
        quality_section(sweep, records),
        explanations_section(configurations),
        data_section(sweep, records, results.configurations),
        run_section(sweep, records),
    ]
    reached = {
        configuration.title: {name: metric[0] for name, metric in row.metrics.items()}
        for configuration, row in zip(configurations, rows, strict=True)
    }
    drawn = figures_of(configurations, comparisons, reached, heat)
    sheet = contact_sheet(sweep, records)
    return Report(
        sweep.name,
        answered,
        remarks,
        tuple(tiles(records, heat, of_baselines)),
        {section.name: section for section in sections},
        (*drawn, *([sheet] if sheet else [])),
        tuple(explained_pictures(sweep, configurations)),
    )


def missing_page(name: str, problems: Sequence[str]) -> str:
    """Return the page of a folder without readable records, with its problems."""
    lead: list[Block] = [
        Paragraph("This folder contains no record of a run, or none is readable."),
        *([Items(tuple(problems))] if problems else []),
    ]
    why = "Run or resume the sweep with this command, which also rewrites this page:"
    return page(
        f"{name}: nothing to report",
        ("Report of the sweep ", strong(name)),
        "Nothing to report yet.",
        tone="cannot-say",
        lead=lead,
        command=(why, shlex.join(["leuk", "train", "-m", f"name={name}"])),
    )


def report_page(report: Report, figures: Mapping[str, Pictures]) -> str:
    """Return the page of a sweep.

    Args:
        report: the content.
        figures: the figures by name.
    """
    answered = report.answer
    why = "To complete the answer, run this command; complete runs are kept:"
    return page(
        f"{report.name}: report",
        ("Report of the sweep ", strong(report.name)),
        answered.headline,
        question=QUESTION,
        tone=answered.conclusion.replace(" ", "-"),
        lead=[Paragraph(sentence) for sentence in answered.sentences],
        command=(why, answered.command) if answered.command else None,
        tiles=report.tiles,
        warned="Read before using these results",
        warnings=warnings_of(report.remarks),
        chapters=chapters(report, figures),
        contents=True,
        footer=(
            "Written by leuk, for research only; not a medical device. The tables are in the same "
            "folder as CSV and Markdown files, the figures in ",
            code("figures/"),
            " as PNG and PDF files.",
        ),
    )


def tiles(
    records: Sequence[Record], heat: HeatMap | None, baselines: Sequence[Row]
) -> list[tuple[str, str]]:
    """Key numbers beside the answer, each with its label."""
    states: list[str] = [record.status for record in records]
    found = [(f"{states.count('complete')} of {len(states)}", "runs complete")]
    for state, label in (("failed", "failed"), ("running", "started, not finished")):
        if count := states.count(state):
            found.append((str(count), label))
    rows = [row for entries in heat.entries for row in entries if row] if heat else []
    if not rows:
        return found
    top = max(rows, key=lambda row: row.metrics["auroc"][0])
    named = [(top, f"highest test AUROC: {top.name}")]
    area = [
        (unlike(top.run, row.run), row)
        for row in baselines
        if row.name.startswith(f"baseline: {AREA}") and row.run.split_name == top.run.split_name
    ]
    if area:
        # Of several baselines, the one with the most similar settings is on the same data.
        _, nearest = min(area, key=lambda pair: pair[0])
        named.append((nearest, "test AUROC of cell area alone"))
    weights = {"auroc": "", "auroc_patients": ", every patient weighted equally"}
    return found + [
        (interval_text(*row.metrics[metric]), f"{label}{weighted}")
        for row, label in named
        for metric, weighted in weights.items()
        if metric in row.metrics
    ]


def warnings_of(remarks: Sequence[Remark]) -> list[Chapter]:
    """Warnings of the first screen; many of a kind are collapsed."""
    found = []
    for kind, texts in boxes(remarks).items():
        blocks: list[Block] = [Items(tuple(texts[:_AT_ONCE]))]
        if others := texts[_AT_ONCE:]:
            blocks.append(Details(f"{len(others)} more", (Items(tuple(others)),)))
        found.append(Chapter(kind, KINDS[kind], blocks))
    return found


def chapters(report: Report, figures: Mapping[str, Pictures]) -> list[Chapter]:
    """Return the chapters below the first screen, in reading order."""

    def of(name: str) -> list[Block]:
        section = report.sections.get(name)
        return list(section.shown) if section else []

    def drawn(*names: str) -> list[Block]:
        return [figures[name] for name in names if name in figures]

    # The first screen shows the remarks.
    results = [one for one in of("table") if not (isinstance(one, Items) and one.summary)]
    others = [*drawn("differences"), *of("comparisons")]
    comparisons = [Details("Show all comparisons and their figure", tuple(others))]
    curves = drawn("roc", "precision_recall", "reliability")
    if any(isinstance(one, Pictures) and len(one.pictures) > _MANY for one in curves):
        curves[1:] = [Details(one.title, (one,)) for one in curves[1:] if isinstance(one, Pictures)]
    synthetic = [*drawn("synthetic_images"), *of("synthetic_images"), *of("synthetic_quality")]
    return [
        Chapter("grid", "Overview", of("grid")),
        Chapter(
            "differences", "Effect of synthetic images", [*of("answer"), *drawn("augmentation")]
        ),
        Chapter("results", "Results by configuration", fold_headings(results)),
        Chapter("comparisons", "All comparisons", comparisons),
        Chapter("thesis", "Comparison with tables 3 to 5 of the thesis", of("thesis_tables")),
        Chapter("synthetic", "Synthetic images, and table 2 of the thesis", synthetic),
        Chapter("curves", "Curves and calibration", curves),
        Chapter(
            "decisions", "Decisions by image and by patient", drawn("confusion", "per_subject")
        ),
        Chapter("referral", "Referral to an expert", of("referral")),
        Chapter("explanations", "Explanations", [*of("explanations"), *report.pictures]),
        Chapter("area", "Dependence on cell area", of("area")),
        Chapter("hypotheses", "The hypotheses of the thesis", of("verdicts")),
        Chapter("cost", "Computational cost", of("costs")),
        Chapter("data", "Data and split", of("data")),
        Chapter("run", "Commands, time and versions", of("run")),
    ]


def fold_headings(blocks: Sequence[Block]) -> list[Block]:
    """Collapse the blocks below each heading; blocks before the first heading stay visible."""
    shown: list[Block] = []
    for block in blocks:
        last = shown[-1] if shown else None
        if isinstance(block, Heading):
            shown.append(Details(block.text, ()))
        elif isinstance(last, Details):
            shown[-1] = Details(last.summary, (*last.blocks, block))
        else:
            shown.append(block)
    return shown


def pictures_of(drawn: Drawn, png: bytes) -> Pictures:
    """Return a figure as written, cut into its panels, if any, for narrow screens."""
    pictures = [png]
    if drawn.panel is not None:
        width, height = (round(side * DPI) for side in drawn.panel)
        with Image.open(io.BytesIO(png)) as picture:
            across = round(picture.width / width)
            pictures = []
            for panel in range(len(drawn.alt)):
                left, top = panel % across * width, panel // across * height
                pictures.append(png_of(picture.crop((left, top, left + width, top + height))))
    shown = (Picture(png_uri(data), alt) for data, alt in zip(pictures, drawn.alt, strict=True))
    return Pictures(drawn.name, drawn.title, drawn.caption, tuple(shown), drawn.panel is None)

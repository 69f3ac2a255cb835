"""The report of a sweep: tables, figures, one HTML page and a summary for the terminal."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leuk.report.answer import QUESTION, Answer, answer
from leuk.report.comparisons import compare, comparisons_section
from leuk.report.costs import costs_of, costs_section
from leuk.report.derived import AREA, baselines, ensembles
from leuk.report.explanations import explained_image, explained_pictures, explanations_section
from leuk.report.facts import common_overrides, data_section, last_command, run_section
from leuk.report.figures import Drawn, figures_of
from leuk.report.gans import contact_sheet, quality_section, samples, synthetic_section
from leuk.report.html import Chapter, page, png_uri
from leuk.report.load import NoRecordsError, Results, read_results, sort_key, unlike
from leuk.report.patients import patients_section
from leuk.report.remarks import KINDS, Kind, Remark, boxes, remarks_on
from leuk.report.rows import HeatMap, Row, configuration_rows, draws_for, heat_map
from leuk.report.table import (
    Block,
    Heading,
    Items,
    Paragraph,
    Picture,
    Pictures,
    Section,
    Span,
    Table,
    code,
    interval_text,
    joined,
    strong,
    text,
)
from leuk.report.tables import area_section, grid_section, main_section, referral_section
from leuk.report.thesis import thesis_section
from leuk.report.verdicts import LATENCY_MS, verdicts, verdicts_section
from leuk.runs.record import Record
from leuk.store import write_text

FILE = "report.html"
SUMMARY = "summary.txt"

FIGURES = "figures"
"""Folder of the figures, below ``report/``."""


@dataclass(frozen=True, eq=False)
class Report:
    """Content of the report of a sweep."""

    sweep: Path
    records: Sequence[Record]
    answer: Answer
    remarks: tuple[Remark, ...]
    heat: HeatMap | None
    tiles: Sequence[tuple[str, str]]  # key numbers, each with its label
    sections: Mapping[str, Section]  # all tables by name
    drawn: tuple[Drawn, ...]  # all figures, not yet drawn
    samples: tuple[Picture, ...]  # strips of real and of synthetic images
    explained: Pictures | None
    pictures: Sequence[Block]  # of explanations


def write_report(sweep: Path, latency_ms: float = LATENCY_MS) -> str:
    """Write the report of a sweep (page, tables, figures, summary) and return the main table.

    The folder ``report/`` then holds ``report.html``; ``summary.txt``, which the commands print;
    Markdown and CSV files ``table``, ``answer``, ``grid``, ``patients``, ``verdicts``,
    ``comparisons``, ``referral``, ``thesis_tables``, ``costs``, ``area``, ``synthetic_images``,
    ``synthetic_quality``, ``explanations``, ``data`` and ``run``; and in ``figures/`` those of
    :func:`leuk.report.figures.figures_of`.

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
    figures = {}
    for one in report.drawn:
        picture = Picture(png_uri(one.write(folder / FIGURES)), one.alt)
        figures[one.name] = Pictures(one.title, one.caption, (picture,))
    write_text(folder / FILE, report_page(report, figures))
    write_text(folder / SUMMARY, summary(report))
    return report.sections["table"].markdown


def build_report(sweep: Path, results: Results, latency_ms: float = LATENCY_MS) -> Report:
    """Compute the content of the report of a sweep from its results."""
    records = results.records
    configurations = [*results.configurations, *ensembles(results.configurations)]
    configurations.sort(key=lambda configuration: sort_key(configuration.run))
    draws = draws_for(configurations)
    rows = configuration_rows(configurations, draws)
    known = baselines(configurations)
    of_baselines = configuration_rows(known, draws, "baseline")
    comparisons = compare(configurations)
    costs = costs_of(configurations)
    remarks = remarks_on(results, configurations, rows)
    heat = heat_map(configurations, rows)
    overrides = common_overrides(sweep, configurations)
    answered = answer(configurations, comparisons, sweep.name, overrides)
    sections = [
        main_section(sweep.name, results, [*rows, *of_baselines], draws, remarks),
        answered.section,
        *([grid_section(heat)] if heat else []),
        patients_section(configurations, known),
        verdicts_section(verdicts(comparisons, costs, latency_ms), latency_ms),
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
    sheet = contact_sheet(sweep, records)
    return Report(
        sweep,
        records,
        answered,
        remarks,
        heat,
        tiles(records, heat, of_baselines),
        {section.name: section for section in sections},
        (*figures_of(configurations, comparisons, reached, heat), *([sheet] if sheet else [])),
        samples(sweep, records),
        explained_image(sweep, configurations),
        explained_pictures(sweep, configurations),
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
        # Of several baselines, that with the most similar settings is on the same data.
        _, nearest = min(area, key=lambda pair: pair[0])
        named.append((nearest, "test AUROC of cell area alone"))
    return found + [(interval_text(*row.metrics["auroc"]), label) for row, label in named]


# --- The page


def missing_page(name: str, problems: Sequence[str]) -> str:
    """Return the page of a folder without readable records, with its problems."""
    lead: list[Block] = [
        Paragraph("This folder contains no record of a run, or none is readable."),
        *([Items(tuple(problems))] if problems else []),
    ]
    why = "Run or resume the sweep with this command, which also rewrites this page:"
    return page(
        f"{name}: nothing to report",
        "Nothing to report yet.",
        eyebrow=("Report of the sweep ", strong(name)),
        tone="cannot-say",
        lead=lead,
        command=(why, shlex.join(["leuk", "train", "-m", f"name={name}"])),
    )


_READ_GRID = """\
Test AUROC: the probability that a leukemic cell gets a higher score than a healthy one; 1 is
perfect, 0.5 is chance. Brackets: 95 % interval, from resampled patients. If intervals overlap
widely, a difference may be chance. Darker: higher within this table."""

_READ_SAMPLES = """\
Real cells of patients held out from training, and cells that a GAN generated. Good synthetic cells
have the size, color and texture of real ones, and differ from each other."""


def report_page(report: Report, figures: Mapping[str, Pictures]) -> str:
    """Return the page of a sweep.

    Its first screen has the question, the answer, the AUROC grid, synthetic beside real images, an
    explained image and the most serious warnings; folded chapters have everything else.
    """
    answered = report.answer
    first: list[Block] = []
    if report.heat:
        (grid, *_) = report.sections["grid"].shown
        first += [grid, Paragraph(_READ_GRID)]
    if report.samples:
        first.append(Pictures("Real and synthetic", _READ_SAMPLES, report.samples, "pixels"))
    if report.explained:
        first.append(report.explained)
    why = "To complete the answer, run this command; complete runs are kept:"
    return page(
        f"{report.sweep.name}: report",
        answered.headline,
        eyebrow=("Report of the sweep ", strong(report.sweep.name)),
        question=QUESTION,
        tone=answered.conclusion.replace(" ", "-"),
        lead=[Paragraph(experiment_text(report.records)), Paragraph(answered.sentences[0])],
        command=(why, answered.command) if answered.command else None,
        tiles=report.tiles,
        first=first,
        warned="Read before using these results",
        warnings=[
            Chapter(kind, KINDS[kind], [Items(tuple(texts[:1]))])
            for kind, texts in list(boxes(report.remarks).items())[:2]
        ],
        chapters=chapters(report, figures),
        footer=(
            "Written by leuk, for research only; not a medical device. The tables are in the same "
            "folder as CSV and Markdown files, the figures in ",
            code(f"{FIGURES}/"),
            " as PNG and PDF files.",
        ),
    )


def experiment_text(records: Sequence[Record]) -> str:
    """Describe the experiment for readers who know nothing of it."""
    models = ", ".join(sorted({record.run.model for record in records}))
    kinds: dict[str, list[str]] = {"gan": [], "control": []}
    for name, kind in sorted({(record.run.augmentation, record.run.kind) for record in records}):
        kinds.setdefault(kind, []).append(name)
    gans = f" ({', '.join(kinds['gan'])})" if kinds["gan"] else ""
    controls = ", ".join(kinds["control"])
    simpler = f", or with a simpler remedy for rare healthy images ({controls})"
    leaky = any(record.run.leaky for record in records)
    return (
        f"Classifiers ({models}) learned to tell leukemic from healthy white blood cells in "
        "microscope images of single cells. They learned from real images alone, "
        f"or also from synthetic images that a GAN generated{gans}"
        f"{simpler if controls else ''}. Their results are on images "
        f"{'not used for training' if leaky else 'of patients who were not used for training'}."
    )


_CHAPTERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("warnings", "All warnings", "The most serious kinds come first.", ()),
    (
        "answer",
        "Effect of synthetic images",
        "A difference counts if its interval excludes 0 and its corrected p is below 0.05.",
        ("augmentation",),
    ),
    (
        "table",
        "Results by configuration",
        "A configuration is a model with an augmentation; each row averages its runs.",
        (),
    ),
    (
        "grid",
        "AUROC with equal weight for every patient",
        "The grid above counts images; here, a patient with many images counts once.",
        (),
    ),
    (
        "patients",
        "Results by patient",
        "A patient is diagnosed, not an image: one score per patient, from all of the images.",
        ("patients",),
    ),
    (
        "synthetic_quality",
        "Synthetic images",
        "Compare each GAN with the row of real images, the best it can achieve.",
        ("synthetic_images",),
    ),
    ("synthetic_images", "Numbers of synthetic images", "A row per GAN, fold, seed and class.", ()),
    (
        "curves",
        "Curves and calibration",
        "Curves nearer to the upper corner, and calibration nearer to the diagonal, are better.",
        ("roc", "precision_recall", "reliability"),
    ),
    (
        "decisions",
        "Decisions by image and by patient",
        "Shares of correct decisions; a model can be right on most patients and wrong on a few.",
        ("confusion", "per_subject"),
    ),
    (
        "explanations",
        "Explanations",
        "Maps show which parts of an image support or oppose leukemia for a model; the checks "
        "test if a map describes the model at all.",
        (),
    ),
    (
        "comparisons",
        "All comparisons",
        "Every planned difference between two configurations, by question.",
        ("differences",),
    ),
    (
        "thesis_tables",
        "Comparison with the thesis",
        "Values of tables 3 to 5 of the thesis beside those of this sweep.",
        (),
    ),
    (
        "verdicts",
        "The hypotheses of the thesis",
        "Each hypothesis with the comparisons that decide it.",
        (),
    ),
    (
        "area",
        "Dependence on cell area",
        "A model that only measures cell size loses its AUROC among cells of one size.",
        (),
    ),
    (
        "referral",
        "Referral to an expert",
        "The share of images a model would leave to an expert, and its errors on the others.",
        (),
    ),
    ("costs", "Computational cost", "Size and speed of each model.", ()),
    ("data", "Data and split", "Images and patients of each stage.", ()),
    ("run", "Commands, time and versions", "Facts to repeat this sweep.", ()),
)
"""Section or name, title, a sentence on how to read it, and the figures of each chapter."""

_PRINTED = ("warnings", "answer")
"""Chapters that are printed although they are folded."""


def chapters(report: Report, figures: Mapping[str, Pictures]) -> list[Chapter]:
    """Folded chapters in reading order: their figures, then their tables."""
    blocks: dict[str, list[Block]] = {
        name: list(section.shown) for name, section in report.sections.items()
    }
    # The warnings have their own chapter, and the first screen has the grid by image.
    blocks["table"] = [
        one for one in blocks["table"] if not (isinstance(one, Items) and one.summary)
    ]
    blocks["warnings"] = []
    for kind, texts in boxes(report.remarks).items():
        blocks["warnings"] += [Heading(KINDS[kind]), Items(tuple(texts))]
    blocks["grid"] = blocks.get("grid", [])[1:]
    blocks["answer"].insert(0, Items(report.answer.sentences))
    blocks["explanations"] += report.pictures
    return [
        Chapter(
            name,
            title,
            [*(figures[one] for one in drawn if one in figures), *blocks.get(name, [])],
            intro,
            folded=True,
            printed=name in _PRINTED,
        )
        for name, title, intro, drawn in _CHAPTERS
    ]


# --- The terminal

_GRID_ROWS = 7
_WARNINGS = 4
_WIDEST = 150


def summary(report: Report) -> str:
    """Return the end of ``leuk train`` and ``leuk report`` in at most 21 lines.

    They are the answer in two sentences, the AUROC grid, the most serious warning of each kind, the
    path of the page, and the next command to try.
    """
    lines = [f"{report.sweep.name}: {report.answer.headline}", report.answer.sentences[0]]
    if report.heat:
        lines += ["", *_grid_lines(report.heat)]
    kinds = boxes(report.remarks)
    if kinds:
        lines.append("")
    for kind, texts in list(kinds.items())[:_WARNINGS]:
        lines.append(_warning_line(kind, texts))
    if others := sum(len(texts) for texts in list(kinds.values())[_WARNINGS:]):
        lines.append(f"and {others} more in the report")
    lines += ["", f"page: {report.sweep / 'report' / FILE}", f"next: {_next_command(report)}"]
    return "\n".join(lines) + "\n"


def _grid_lines(heat: HeatMap) -> list[str]:
    """AUROC with intervals; the longer of models and augmentations as rows."""
    names, columns, entries = heat.rows, heat.columns, heat.entries
    if len(columns) > len(names):
        names, columns, entries = columns, names, tuple(zip(*entries, strict=True))
    table = pd.DataFrame(
        [
            {"": name}
            | {
                column: interval_text(*row.metrics["auroc"]) if row else "-"
                for column, row in zip(columns, own, strict=True)
            }
            for name, own in zip(names, entries, strict=True)
        ]
    )
    headings = {"test AUROC": text(""), **{column: text(column) for column in columns}}
    lines = Table(table, headings).text.splitlines()
    more = len(lines) - 1 - _GRID_ROWS
    return lines if more <= 0 else [*lines[: 1 + _GRID_ROWS], f"and {more} more rows in grid.md"]


def _warning_line(kind: Kind, texts: Sequence[tuple[Span, ...]]) -> str:
    more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
    first = joined(texts[0]).replace("**", "")
    return textwrap.shorten(f"warning: {KINDS[kind]}: {first}", _WIDEST, placeholder=" ...") + more


def _next_command(report: Report) -> str:
    """Command that completes the runs, or else the answer, or else uses the best run."""
    complete = [record for record in report.records if record.status == "complete"]
    if len(complete) < len(report.records) and (again := last_command(report.sweep)):
        return again
    if report.answer.command:
        return report.answer.command
    usable = [one for one in complete if any((report.sweep / one.run.folder).glob("*/*.ckpt"))]
    if not usable:  # published records have no weights
        return last_command(report.sweep) or f"leuk report name={report.sweep.name}"
    best = max(usable, key=lambda record: record.metrics["test"]["auroc"]["value"] or 0.0)
    folder = report.sweep / best.run.folder
    return f"{shlex.join(['leuk', 'predict', f'run={folder}'])} images=FOLDER"

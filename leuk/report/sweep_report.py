"""Everything a sweep's report consists of, from its folder to the files below ``report/``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leuk.report.answer import Answer, answer
from leuk.report.area import area_section
from leuk.report.baselines import baselines
from leuk.report.comparisons import Comparison, compare, comparisons_section
from leuk.report.costs import costs_of, costs_section
from leuk.report.ensemble import ensembles
from leuk.report.explained import explained_pictures
from leuk.report.explanations import explanations_section
from leuk.report.figures import figures_of, write_figures
from leuk.report.heatmap import HeatMap, heat_map
from leuk.report.lines import Line, draws_for, group_lines
from leuk.report.made_cells import contact_sheet, made_section
from leuk.report.made_quality import quality_section
from leuk.report.naming import in_order
from leuk.report.page import FILE, PageParts, missing_page, report_page
from leuk.report.remarks import Remark, remarks_on
from leuk.report.results import Group, NoRecordsError, Results, read_results
from leuk.report.run_facts import common_overrides, data_section, run_section
from leuk.report.sections import Section
from leuk.report.tables import main_section
from leuk.report.thesis_tables import thesis_section
from leuk.report.verdicts import Verdict, verdicts, verdicts_section
from leuk.store.atomic import write_text

FIGURES = "figures"
"""Folder of the figures below that of the report."""


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say of a sweep; the page shows it its own way.

    Attributes:
        results: what was read.
        answer: to the question whether made cells help.
        groups: its lines, the ensembles among them.
        lines: what each of them reaches, in their order.
        baselines: what each baseline reaches.
        comparisons: differences between them.
        verdicts: on the thesis's hypotheses.
        remarks: what has to be said before a figure is believed.
        heat: the grid at a glance; None where no line has a figure.
        sections: all tables, the main one first.
    """

    results: Results
    answer: Answer
    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    baselines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]
    remarks: tuple[Remark, ...]
    heat: HeatMap | None
    sections: tuple[Section, ...]

    @property
    def reached(self) -> Mapping[str, Mapping[str, float]]:
        """Title of a line to its figures."""
        return {
            group.title: {name: figure[0] for name, figure in line.figures.items()}
            for group, line in zip(self.groups, self.lines, strict=True)
        }


def build_report(sweep: Path, workers: int = 1) -> Report:
    """Read a sweep and compute every table; nothing is written.

    Args:
        sweep: its folder.
        workers: processes, see :func:`leuk.report.workers.spread`.

    Raises:
        StoreError: no record in the folder.
    """
    results = read_results(sweep, workers)
    groups = [*results.groups, *ensembles(results.groups)]
    groups.sort(key=lambda group: in_order(group.cell))
    draws = draws_for(groups)
    lines = group_lines(groups, draws, workers=workers)
    comparisons = compare(groups, workers)
    costs = costs_of(groups)
    judged = verdicts(comparisons, costs)
    remarks = remarks_on(results, groups, lines)
    beside = group_lines(baselines(groups), draws, "baseline")
    heat = heat_map(groups, lines)
    answered = answer(groups, comparisons, sweep.name, common_overrides(sweep, groups))
    sections = (
        main_section(sweep.name, results, [*lines, *beside], draws, remarks),
        answered.section,
        *([heat.section] if heat else []),
        verdicts_section(judged),
        comparisons_section(comparisons),
        thesis_section(groups),
        costs_section(groups, costs),
        area_section(groups),
        made_section(results.records),
        quality_section(sweep, results.records),
        explanations_section(groups),
        data_section(sweep, results.records),
        run_section(sweep, results.records),
    )
    return Report(
        results,
        answered,
        tuple(groups),
        tuple(lines),
        tuple(beside),
        tuple(comparisons),
        tuple(judged),
        remarks,
        heat,
        sections,
    )


def write_report(sweep: Path, workers: int = 1) -> str:
    """Write the report of a sweep: page, tables and figures; return the main table.

    They lie in ``report/``: ``report.html``; as Markdown and CSV ``table``, ``answer``, ``grid``,
    ``verdicts``, ``comparisons``, ``thesis_tables``, ``costs``, ``area``, ``made_cells``,
    ``made_quality``, ``explanations``, ``data`` and ``run``; and below it in ``figures/`` those of
    :func:`leuk.report.figures.figures_of`. They are the same however many workers there are.

    Raises:
        StoreError: no record in the folder; the page then says what is missing.
    """
    folder = sweep / "report"
    try:
        report = build_report(sweep, workers)
    except NoRecordsError as error:
        write_text(folder / FILE, missing_page(sweep.name, error.problems))
        raise
    for section in report.sections:
        section.write(folder)
    drawn = figures_of(report.groups, report.comparisons, report.reached, report.heat)
    if (sheet := contact_sheet(sweep, report.results.records)) is not None:
        drawn.append(sheet)
    write_figures(folder / FIGURES, drawn, workers)
    parts = PageParts(
        sweep.name,
        report.results,
        report.answer,
        report.remarks,
        report.heat,
        report.baselines,
        report.sections,
        drawn,
        folder / FIGURES,
        explained_pictures(sweep, report.groups),
    )
    write_text(folder / FILE, report_page(parts))
    return report.sections[0].markdown

"""Everything a sweep's report consists of, from its folder to the files below ``report/``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leuk.grid.cell import Cell
from leuk.report.answer import Answer, answer
from leuk.report.area import area_section
from leuk.report.baselines import baselines
from leuk.report.comparisons import Comparison, compare, comparisons_section
from leuk.report.costs import Cost, costs_of, costs_section
from leuk.report.drawing import Drawn
from leuk.report.ensemble import ensembles
from leuk.report.explained import explained_pictures
from leuk.report.explanations import explanations_section
from leuk.report.figures import figures_of_differences, figures_of_lines, writing
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
class Reached:
    """What each line of a sweep reaches: the ground for all else that is said of it.

    Attributes:
        sweep: its folder.
        results: what was read.
        groups: its lines, the ensembles among them.
        lines: what each of them reaches, in their order.
        heat: the grid at a glance; None where no line has a figure.
        draws: resamples behind an interval.
    """

    sweep: Path
    results: Results
    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    heat: HeatMap | None
    draws: int

    @property
    def drawn(self) -> list[Drawn]:
        """What there is to draw, but for differences."""
        figures = {
            group.title: {name: figure[0] for name, figure in line.figures.items()}
            for group, line in zip(self.groups, self.lines, strict=True)
        }
        found = figures_of_lines(self.groups, figures, self.heat)
        sheet = contact_sheet(self.sweep, self.results.records)
        return [*found, sheet] if sheet else found


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say of a sweep; the page shows it its own way.

    Attributes:
        reached: by each of its lines.
        answer: to the question whether made cells help.
        baselines: what each baseline reaches.
        comparisons: differences between lines.
        costs: of each of their cells.
        verdicts: on the thesis's hypotheses.
        remarks: what has to be said before a figure is believed.
    """

    reached: Reached
    answer: Answer
    baselines: tuple[Line, ...]
    comparisons: tuple[Comparison, ...]
    costs: Mapping[Cell, Cost]
    verdicts: tuple[Verdict, ...]
    remarks: tuple[Remark, ...]

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All tables, the main one first."""
        of = self.reached
        records = of.results.records
        lines = [*of.lines, *self.baselines]
        return (
            main_section(of.sweep.name, of.results, lines, of.draws, self.remarks),
            self.answer.section,
            *([of.heat.section] if of.heat else []),
            verdicts_section(self.verdicts),
            comparisons_section(self.comparisons),
            thesis_section(of.groups),
            costs_section(of.groups, self.costs),
            area_section(of.groups),
            made_section(records),
            quality_section(of.sweep, records),
            explanations_section(of.groups),
            data_section(of.sweep, records),
            run_section(of.sweep, records),
        )


def reached_in(sweep: Path, results: Results, workers: int = 1) -> Reached:
    """Compute what each line of a sweep reaches.

    Args:
        sweep: its folder.
        results: what was read there.
        workers: processes, see :func:`leuk.report.workers.spread`.
    """
    groups = [*results.groups, *ensembles(results.groups)]
    groups.sort(key=lambda group: in_order(group.cell))
    draws = draws_for(groups)
    lines = group_lines(groups, draws, workers=workers)
    heat = heat_map(groups, lines)
    return Reached(sweep, results, tuple(groups), tuple(lines), heat, draws)


def build_report(reached: Reached) -> Report:
    """Compute everything that is said of a sweep; nothing is written.

    Args:
        reached: by each of its lines.
    """
    groups, sweep = reached.groups, reached.sweep
    comparisons = compare(groups)
    costs = costs_of(groups)
    return Report(
        reached,
        answer(groups, comparisons, sweep.name, common_overrides(sweep, groups)),
        tuple(group_lines(baselines(groups), reached.draws, "baseline")),
        tuple(comparisons),
        costs,
        tuple(verdicts(comparisons, costs)),
        remarks_on(reached.results, groups, reached.lines),
    )


def write_report(
    sweep: Path, workers: int = 1, results: Callable[[], Results] | None = None
) -> str:
    """Write the report of a sweep: page, tables and figures; return the main table.

    They lie in ``report/``: ``report.html``; as Markdown and CSV ``table``, ``answer``, ``grid``,
    ``verdicts``, ``comparisons``, ``thesis_tables``, ``costs``, ``area``, ``made_cells``,
    ``made_quality``, ``explanations``, ``data`` and ``run``; and below it in ``figures/`` those of
    :func:`leuk.report.figures.figures_of_lines` and
    :func:`leuk.report.figures.figures_of_differences`. They are the same however many workers there
    are.

    Args:
        sweep: its folder.
        workers: processes, see :func:`leuk.report.workers.spread`.
        results: waits for what :func:`leuk.report.results.reading` has begun to read.

    Raises:
        StoreError: no record in the folder; the page then says what is missing.
    """
    folder = sweep / "report"
    try:
        read = results() if results else read_results(sweep, workers)
    except NoRecordsError as error:
        write_text(folder / FILE, missing_page(sweep.name, error.problems))
        raise
    reached = reached_in(sweep, read, workers)
    # What is drawn takes longest: it begins as soon as there is something to draw.
    with writing(folder / FIGURES, reached.drawn, workers) as of_lines:
        report = build_report(reached)
        drawn = figures_of_differences(report.comparisons)
        with writing(folder / FIGURES, drawn, workers) as of_differences:
            for section in report.sections:
                section.write(folder)
            parts = PageParts(
                sweep.name,
                read,
                report.answer,
                report.remarks,
                reached.heat,
                report.baselines,
                report.sections,
                explained_pictures(sweep, reached.groups),
                [*of_differences(), *of_lines()],
            )
    write_text(folder / FILE, report_page(parts))
    return report.sections[0].markdown

"""Everything a sweep's report consists of, from its folder to the files below ``report/``."""

from dataclasses import dataclass
from pathlib import Path

from leuk.report.area import area_section
from leuk.report.comparisons import Comparison, compare, comparisons_section
from leuk.report.costs import costs_of, costs_section
from leuk.report.ensemble import ensembles
from leuk.report.figures import write_figures
from leuk.report.naming import in_order
from leuk.report.results import Group, Results, read_results
from leuk.report.sections import Section
from leuk.report.tables import main_section
from leuk.report.thesis_tables import thesis_section
from leuk.report.verdicts import Verdict, verdicts, verdicts_section

FIGURES = "figures"
"""Folder of the figures below that of the report."""


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say of a sweep; a page can show it its own way.

    Attributes:
        results: what was read.
        groups: its lines, the ensembles among them.
        comparisons: differences between them.
        verdicts: on the thesis's hypotheses.
        sections: all tables, the main one first.
    """

    results: Results
    groups: tuple[Group, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]
    sections: tuple[Section, ...]


def build_report(sweep: Path) -> Report:
    """Read a sweep and compute every table; nothing is written.

    Raises:
        StoreError: no record in the folder.
    """
    results = read_results(sweep)
    groups = sorted(
        [*results.groups, *ensembles(results.groups)], key=lambda group: in_order(group.cell)
    )
    comparisons = compare(groups)
    costs = costs_of(groups)
    judged = verdicts(comparisons, costs)
    sections = (
        main_section(sweep.name, results, groups),
        verdicts_section(judged),
        comparisons_section(comparisons),
        thesis_section(groups),
        costs_section(groups, costs),
        area_section(groups),
    )
    return Report(results, tuple(groups), tuple(comparisons), tuple(judged), sections)


def write_report(sweep: Path) -> str:
    """Write the tables of a sweep as Markdown and CSV, and its figures; return the main table.

    They lie in ``report/``: ``table``, ``verdicts``, ``comparisons``, ``thesis_tables``, ``costs``
    and ``area``, and below it in ``figures/`` those of :func:`leuk.report.figures.write_figures`.

    Raises:
        StoreError: no record in the folder.
    """
    report, folder = build_report(sweep), sweep / "report"
    for section in report.sections:
        section.write(folder)
    write_figures(folder / FIGURES, report.groups, report.comparisons)
    return report.sections[0].markdown

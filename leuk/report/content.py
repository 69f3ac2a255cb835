"""Everything there is to say of a sweep: computed here, and nothing is written."""

from collections.abc import Mapping
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
from leuk.report.explanations import explanations_section
from leuk.report.figures import figures_of_differences, figures_of_lines
from leuk.report.heatmap import HeatMap, heat_map
from leuk.report.lines import Line, draws_for, group_lines
from leuk.report.made_cells import contact_sheet, made_section
from leuk.report.made_quality import quality_section
from leuk.report.naming import in_order
from leuk.report.remarks import Remark, remarks_on
from leuk.report.results import Group, Results
from leuk.report.run_facts import common_overrides, data_section, run_section
from leuk.report.sections import Section
from leuk.report.tables import main_section
from leuk.report.thesis_tables import thesis_section
from leuk.report.verdicts import Verdict, verdicts, verdicts_section


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

    @property
    def drawn(self) -> list[Drawn]:
        """What there is to draw of differences."""
        return figures_of_differences(self.comparisons)


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
    """Compute everything that is said of a sweep.

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

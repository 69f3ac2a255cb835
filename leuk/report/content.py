"""Everything there is to say of a sweep: computed here, and nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leuk.grid.run_id import RunId
from leuk.report.answer import Answer, answer
from leuk.report.area import area_section
from leuk.report.baselines import baselines
from leuk.report.comparisons import Comparison, compare, comparisons_section
from leuk.report.costs import Cost, costs_of, costs_section
from leuk.report.drawing import Drawn
from leuk.report.ensemble import ensembles
from leuk.report.explanations import explanations_section
from leuk.report.figures import figures_of
from leuk.report.heatmap import HeatMap, heat_map
from leuk.report.naming import in_order
from leuk.report.referral import referral_section
from leuk.report.remarks import Remark, remarks_on
from leuk.report.results import Configuration, Results
from leuk.report.rows import Row, configuration_rows, draws_for
from leuk.report.run_facts import common_overrides, data_section, run_section
from leuk.report.sections import Section
from leuk.report.synthetic_images import contact_sheet, synthetic_section
from leuk.report.synthetic_quality import quality_section
from leuk.report.tables import main_section
from leuk.report.thesis_tables import thesis_section
from leuk.report.verdicts import LATENCY_MS, Verdict, verdicts, verdicts_section


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say of a sweep; the page shows it its own way.

    Attributes:
        sweep: its folder.
        results: what was read.
        answer: to the question whether made cells help.
        groups: its lines, the ensembles among them.
        lines: what each of them reaches, in their order.
        baselines: what each baseline reaches.
        comparisons: differences between them.
        costs: of each of their cells.
        verdicts: on the thesis's hypotheses.
        remarks: what has to be said before a figure is believed.
        heat: the grid at a glance; None where no line has a figure.
        referral: what referral to an expert promised and achieved.
        draws: resamples behind an interval.
        latency_ms: within which a model is fit for deployment.
    """

    sweep: Path
    results: Results
    answer: Answer
    groups: tuple[Configuration, ...]
    lines: tuple[Row, ...]
    baselines: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    costs: Mapping[RunId, Cost]
    verdicts: tuple[Verdict, ...]
    remarks: tuple[Remark, ...]
    heat: HeatMap | None
    referral: Section
    draws: int
    latency_ms: float

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All tables, the main one first."""
        records = self.results.records
        lines = [*self.lines, *self.baselines]
        return (
            main_section(self.sweep.name, self.results, lines, self.draws, self.remarks),
            self.answer.section,
            *([self.heat.section] if self.heat else []),
            verdicts_section(self.verdicts, self.latency_ms),
            comparisons_section(self.comparisons),
            self.referral,
            thesis_section(self.groups),
            costs_section(self.groups, self.costs),
            area_section(self.groups),
            synthetic_section(records),
            quality_section(self.sweep, records),
            explanations_section(self.groups),
            data_section(self.sweep, records, self.results.groups),
            run_section(self.sweep, records),
        )

    @property
    def drawn(self) -> list[Drawn]:
        """What there is to draw."""
        reached = {
            group.title: {name: figure[0] for name, figure in line.metrics.items()}
            for group, line in zip(self.groups, self.lines, strict=True)
        }
        found = figures_of(self.groups, self.comparisons, reached, self.heat)
        sheet = contact_sheet(self.sweep, self.results.records)
        return [*found, sheet] if sheet else found


def build_report(
    sweep: Path, results: Results, workers: int = 1, latency_ms: float = LATENCY_MS
) -> Report:
    """Compute everything that is said of a sweep.

    Args:
        sweep: its folder.
        results: what was read there.
        workers: processes, see :func:`leuk.report.workers.spread`.
        latency_ms: within which a model is fit for deployment.
    """
    groups = [*results.groups, *ensembles(results.groups)]
    groups.sort(key=lambda group: in_order(group.run))
    draws = draws_for(groups)
    lines = configuration_rows(groups, draws, workers=workers)
    comparisons = compare(groups, workers)
    costs = costs_of(groups)
    return Report(
        sweep,
        results,
        answer(groups, comparisons, sweep.name, common_overrides(sweep, groups)),
        tuple(groups),
        tuple(lines),
        tuple(configuration_rows(baselines(groups), draws, "baseline")),
        tuple(comparisons),
        costs,
        tuple(verdicts(comparisons, costs, latency_ms)),
        remarks_on(results, groups, lines),
        heat_map(groups, lines),
        referral_section(groups, workers),
        draws,
        latency_ms,
    )

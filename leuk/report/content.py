"""Content of the report of a sweep, computed without writing files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leuk.report.answer import Answer, answer
from leuk.report.area import area_section
from leuk.report.baselines import baselines
from leuk.report.comparisons import Comparison, compare, comparisons_section
from leuk.report.costs import Cost, costs_of, costs_section
from leuk.report.ensemble import ensembles
from leuk.report.explanations import explanations_section
from leuk.report.figures import Drawn, figures_of
from leuk.report.heatmap import HeatMap, heat_map
from leuk.report.naming import sort_key
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
from leuk.runs.record import RunId


@dataclass(frozen=True, eq=False)
class Report:
    """Content of the report of a sweep, shared by its page and its tables.

    Attributes:
        sweep: folder of the sweep.
        results: the results as read.
        answer: answer to the question whether synthetic images help.
        configurations: all configurations, ensembles included.
        rows: table rows of the configurations, in the same order.
        baselines: table rows of the baselines.
        comparisons: planned comparisons between configurations.
        costs: computational cost of the configurations.
        verdicts: verdicts on the hypotheses of the thesis.
        remarks: warnings to read before the results.
        heat: heat map of the AUROC; None if no configuration has one.
        referral: section on referral to an expert.
        draws: number of resamples behind each interval.
        latency_ms: latency limit for deployment, in ms per image.
    """

    sweep: Path
    results: Results
    answer: Answer
    configurations: tuple[Configuration, ...]
    rows: tuple[Row, ...]
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
        rows = [*self.rows, *self.baselines]
        return (
            main_section(self.sweep.name, self.results, rows, self.draws, self.remarks),
            self.answer.section,
            *([self.heat.section] if self.heat else []),
            verdicts_section(self.verdicts, self.latency_ms),
            comparisons_section(self.comparisons),
            self.referral,
            thesis_section(self.configurations),
            costs_section(self.configurations, self.costs),
            area_section(self.configurations),
            synthetic_section(records),
            quality_section(self.sweep, records),
            explanations_section(self.configurations),
            data_section(self.sweep, records, self.results.configurations),
            run_section(self.sweep, records),
        )

    @property
    def drawn(self) -> list[Drawn]:
        """All figures, not yet drawn."""
        reached = {
            configuration.title: {name: metric[0] for name, metric in row.metrics.items()}
            for configuration, row in zip(self.configurations, self.rows, strict=True)
        }
        found = figures_of(self.configurations, self.comparisons, reached, self.heat)
        sheet = contact_sheet(self.sweep, self.results.records)
        return [*found, sheet] if sheet else found


def build_report(
    sweep: Path, results: Results, workers: int = 1, latency_ms: float = LATENCY_MS
) -> Report:
    """Compute the content of the report of a sweep.

    Args:
        sweep: folder of the sweep.
        results: results read from it.
        workers: number of processes, see :func:`leuk.report.workers.spread`.
        latency_ms: latency limit for deployment, in ms per image.
    """
    configurations = [*results.configurations, *ensembles(results.configurations)]
    configurations.sort(key=lambda configuration: sort_key(configuration.run))
    draws = draws_for(configurations)
    rows = configuration_rows(configurations, draws, workers=workers)
    comparisons = compare(configurations, workers)
    costs = costs_of(configurations)
    return Report(
        sweep,
        results,
        answer(configurations, comparisons, sweep.name, common_overrides(sweep, configurations)),
        tuple(configurations),
        tuple(rows),
        tuple(configuration_rows(baselines(configurations), draws, "baseline")),
        tuple(comparisons),
        costs,
        tuple(verdicts(comparisons, costs, latency_ms)),
        remarks_on(results, configurations, rows),
        heat_map(configurations, rows),
        referral_section(configurations, workers),
        draws,
        latency_ms,
    )

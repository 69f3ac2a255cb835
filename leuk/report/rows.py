"""Lines of the main table: what each group of cells reaches.

Metrics of a group are means over its folds and seeds; intervals come from resampling persons.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leuk.evaluate.intervals import fold_mean
from leuk.evaluate.metrics import patient_metrics
from leuk.evaluate.resampling import Reweighted
from leuk.grid.record import Metrics, Record
from leuk.grid.run_id import RunId
from leuk.report.results import Configuration, Results, Run
from leuk.report.workers import spread

Estimate = tuple[float, float | None, float | None]
"""Value, and the ends of its 95 % interval where there is one."""

DRAWS, FEWEST_DRAWS = 1000, 200
_DRAWS_IN_ALL = 60_000


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Attributes:
        name: what it is about.
        kind: ``configuration``, ``run`` or ``baseline``.
        metrics: figure name to value and interval.
        note: what there is to say instead of metrics, or about them.
        cell: which cell, or the one that stands for a group.
        runs: how many runs the metrics are the mean of.
    """

    name: str
    kind: str
    metrics: Mapping[str, Estimate]
    note: str = ""
    run: RunId | None = None
    runs: int = 1


def configuration_rows(
    groups: Sequence[Configuration], draws: int, kind: str = "configuration", workers: int = 1
) -> list[Row]:
    """One line for each group, with intervals where its predictions are there."""
    return spread(lambda group: _configuration_row(group, draws, kind), groups, workers)


def draws_for(groups: Iterable[Configuration]) -> int:
    """Resamples for an interval: 1,000, and fewer, but never below 200, beyond 60 runs."""
    runs = sum(len(group.runs) for group in groups)
    hundreds = _DRAWS_IN_ALL // max(runs, 1) // 100 * 100
    return min(DRAWS, max(FEWEST_DRAWS, hundreds))


def _configuration_row(group: Configuration, draws: int, kind: str) -> Row:
    name = f"{group.title}{_counted(group)}"
    if not group.runs:
        return _without_predictions(group, name)
    samples = [(run.test.sample, run.thresholds) for run in group.runs]
    try:
        metrics: dict[str, Estimate] = dict(fold_mean(samples, draws))
        note = "no interval: a class has a single patient" if metrics["auroc"][1] is None else ""
    except ValueError as error:
        values = [_once(sample.reweighted(cuts)) for sample, cuts in samples]
        metrics, note = _means(values), f"no interval: {error}"
    return Row(name, kind, metrics, note, group.run, len(group.runs))


def _once(cells: Reweighted) -> dict[str, float]:
    """Every figure, each subject counted once."""
    once = np.ones((1, cells.count))
    return dict(zip(cells.names, cells.metrics(once, cells.names)[:, 0].tolist(), strict=True))


def _without_predictions(group: Configuration, name: str) -> Row:
    """What the records say by themselves."""
    complete = [record for record in group.records if record.status == "complete"]
    if complete:
        metrics = _means([_values(record.metrics.get("test", {})) for record in complete])
        note = "no interval: no predictions"
        return Row(name, "configuration", metrics, note, group.run, len(complete))
    return Row(
        name, "configuration", {}, "; ".join(record.state for record in group.records), group.run, 0
    )


def _counted(group: Configuration) -> str:
    """`` (3 folds)``, `` (2 seeds)``, `` (3 folds, 2 seeds)``, or nothing for a single cell."""
    cells = [run.id for run in group.runs] or [record.run for record in group.records]
    folds, seeds = ({getattr(cell, axis) for cell in cells} for axis in ("fold", "seed"))
    counts = [(len(folds), "folds"), (len(seeds), "seeds")]
    texts = [f"{count} {name}" for count, name in counts if count > 1]
    if len(cells) not in (1, len(folds) * len(seeds)):
        texts.append(f"{len(cells)} runs")
    return f" ({', '.join(texts)})" if texts else ""


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    names = [name for name in values[0] if all(name in metrics for metrics in values)]
    return {
        name: (float(np.mean([metrics[name] for metrics in values])), None, None) for name in names
    }


def _values(metrics: Metrics) -> dict[str, float]:
    return {name: entry["value"] for name, entry in metrics.items() if entry["value"] is not None}


def run_rows(results: Results) -> list[Row]:
    """One line for each run, with the metrics of its record.

    Metrics by patient that a record from before them lacks come from the run's predictions.
    """
    runs = {run.id: run for group in results.groups for run in group.runs}
    return [
        Row(
            record.run.folder,
            "run",
            _of_record(record, runs.get(record.run)) if record.status == "complete" else {},
            "" if record.status == "complete" else record.state,
            record.run,
        )
        for record in results.records
    ]


def _of_record(record: Record, run: Run | None) -> dict[str, Estimate]:
    found = _with_bounds(record.metrics.get("test", {}))
    if run is None or "auroc_patients" in found:
        return found
    sample = run.test.sample
    values = patient_metrics(sample.scores, sample.labels, sample.subjects, run.thresholds)
    return found | {name: (value, None, None) for name, value in values.items()}


def _with_bounds(metrics: Metrics) -> dict[str, Estimate]:
    return {
        name: (entry["value"], entry["low"], entry["high"])
        for name, entry in metrics.items()
        if entry["value"] is not None
    }

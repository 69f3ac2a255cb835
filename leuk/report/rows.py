"""Rows of the main table: the metrics of each configuration, run and baseline.

Metrics of a configuration are means over its folds and seeds; intervals resample patients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leuk.metrics.bootstrap import fold_mean
from leuk.metrics.classification import Reweighted, patient_metrics
from leuk.report.results import Configuration, Results, Run
from leuk.report.workers import spread
from leuk.runs.record import Metrics, Record, RunId

Estimate = tuple[float, float | None, float | None]
"""Value and the bounds of its 95 % interval; None where it has none."""

DRAWS, FEWEST_DRAWS = 1000, 200
_DRAWS_IN_ALL = 60_000


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the table.

    Attributes:
        name: name of the configuration, run or baseline.
        kind: ``configuration``, ``run`` or ``baseline``.
        metrics: metric name to value and interval.
        note: remark on the metrics, or the reason why there are none.
        run: id of the run, or the id that represents a configuration.
        runs: number of runs that the metrics average.
    """

    name: str
    kind: str
    metrics: Mapping[str, Estimate]
    note: str = ""
    run: RunId | None = None
    runs: int = 1


def configuration_rows(
    configurations: Sequence[Configuration],
    draws: int,
    kind: str = "configuration",
    workers: int = 1,
) -> list[Row]:
    """Return a row for each configuration, with intervals if its predictions are readable."""
    return spread(
        lambda configuration: _configuration_row(configuration, draws, kind),
        configurations,
        workers,
    )


def draws_for(configurations: Iterable[Configuration]) -> int:
    """Return the resamples per interval: 1,000 up to 60 runs, then fewer, at least 200."""
    runs = sum(len(configuration.runs) for configuration in configurations)
    hundreds = _DRAWS_IN_ALL // max(runs, 1) // 100 * 100
    return min(DRAWS, max(FEWEST_DRAWS, hundreds))


def _configuration_row(configuration: Configuration, draws: int, kind: str) -> Row:
    name = f"{configuration.title}{_counted(configuration)}"
    if not configuration.runs:
        return _without_predictions(configuration, name)
    samples = [(run.test.sample, run.thresholds) for run in configuration.runs]
    try:
        metrics: dict[str, Estimate] = dict(fold_mean(samples, draws))
        note = "no interval: a class has a single patient" if metrics["auroc"][1] is None else ""
    except ValueError as error:
        values = [_once(sample.reweighted(cuts)) for sample, cuts in samples]
        metrics, note = _means(values), f"no interval: {error}"
    return Row(name, kind, metrics, note, configuration.run, len(configuration.runs))


def _once(images: Reweighted) -> dict[str, float]:
    """Every metric, without resampling."""
    once = np.ones((1, images.count))
    return {name: float(images.metric(name, once)[0]) for name in images.named}


def _without_predictions(configuration: Configuration, name: str) -> Row:
    """Row of a configuration from its records alone."""
    complete = [record for record in configuration.records if record.status == "complete"]
    if complete:
        metrics = _means([_values(record.metrics.get("test", {})) for record in complete])
        note = "no interval: no predictions"
        return Row(name, "configuration", metrics, note, configuration.run, len(complete))
    return Row(
        name,
        "configuration",
        {},
        "; ".join(record.state for record in configuration.records),
        configuration.run,
        0,
    )


def _counted(configuration: Configuration) -> str:
    """`` (3 folds)``, `` (2 seeds)``, `` (3 folds, 2 seeds)``, or nothing for a single run."""
    ids = [run.id for run in configuration.runs] or [record.run for record in configuration.records]
    folds, seeds = ({getattr(one, axis) for one in ids} for axis in ("fold", "seed"))
    counts = [(len(folds), "folds"), (len(seeds), "seeds")]
    texts = [f"{count} {name}" for count, name in counts if count > 1]
    if len(ids) not in (1, len(folds) * len(seeds)):
        texts.append(f"{len(ids)} runs")
    return f" ({', '.join(texts)})" if texts else ""


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    names = [name for name in values[0] if all(name in metrics for metrics in values)]
    return {
        name: (float(np.mean([metrics[name] for metrics in values])), None, None) for name in names
    }


def _values(metrics: Metrics) -> dict[str, float]:
    return {name: entry["value"] for name, entry in metrics.items() if entry["value"] is not None}


def run_rows(results: Results) -> list[Row]:
    """Return a row for each run, with the metrics of its record.

    Metrics by patient, which older records lack, are computed from the run's predictions.
    """
    runs = {run.id: run for configuration in results.configurations for run in configuration.runs}
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

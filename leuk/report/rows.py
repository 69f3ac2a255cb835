"""Rows of the main table: the metrics of each configuration, run and baseline.

Metrics of a configuration are means over its folds and seeds; intervals resample patients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leuk.metrics.bootstrap import fold_mean
from leuk.metrics.classification import Reweighted, patient_metrics
from leuk.report.load import Configuration, Results, Run
from leuk.runs.record import Metrics, RunId

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
    configurations: Sequence[Configuration], draws: int, kind: str = "configuration"
) -> list[Row]:
    """Return a row for each configuration, with intervals if its predictions are readable."""
    return [_configuration_row(configuration, draws, kind) for configuration in configurations]


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
    if not complete:
        note = "; ".join(record.state for record in configuration.records)
        return Row(name, "configuration", {}, note, configuration.run, 0)
    values = [
        {metric: value for metric, (value, *_) in _recorded(record.metrics).items()}
        for record in complete
    ]
    note = "no interval: no predictions"
    return Row(name, "configuration", _means(values), note, configuration.run, len(complete))


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


def run_rows(results: Results) -> list[Row]:
    """Return a row for each run, with the metrics of its record.

    Metrics by patient, which older records lack, are computed from the run's predictions.
    """
    runs = {run.id: run for configuration in results.configurations for run in configuration.runs}
    rows = []
    for record in results.records:
        metrics: dict[str, Estimate] = {}
        complete = record.status == "complete"
        if complete:
            metrics = _recorded(record.metrics)
            if record.run in runs and "auroc_patients" not in metrics:
                metrics |= _by_patient(runs[record.run])
        note = "" if complete else record.state
        rows.append(Row(record.run.folder, "run", metrics, note, record.run))
    return rows


def _recorded(metrics: Mapping[str, Metrics]) -> dict[str, Estimate]:
    """Metrics on test images, with their intervals."""
    return {
        name: (entry["value"], entry["low"], entry["high"])
        for name, entry in metrics.get("test", {}).items()
        if entry["value"] is not None
    }


def _by_patient(run: Run) -> dict[str, Estimate]:
    sample = run.test.sample
    values = patient_metrics(sample.scores, sample.labels, sample.subjects, run.thresholds)
    return {name: (value, None, None) for name, value in values.items()}

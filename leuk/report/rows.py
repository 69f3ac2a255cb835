"""Rows of the main table: the metrics of each configuration, run and baseline.

Metrics of a configuration are means over its folds and seeds; intervals resample patients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leuk.metrics.bootstrap import fold_mean
from leuk.metrics.classification import Reweighted, patient_metrics
from leuk.report.load import Configuration, Results
from leuk.runs.record import Record, RunId

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
        run: id of the run, or the id that represents a configuration.
        metrics: metric name to value and interval.
        note: remark on the metrics, or the reason why there are none.
        runs: number of runs that the metrics average.
    """

    name: str
    kind: str
    run: RunId
    metrics: Mapping[str, Estimate]
    note: str = ""
    runs: int = 1


def draws_for(configurations: Iterable[Configuration]) -> int:
    """Return the resamples per interval: 1,000 up to 60 runs, then fewer, at least 200."""
    runs = sum(len(configuration.runs) for configuration in configurations)
    hundreds = _DRAWS_IN_ALL // max(runs, 1) // 100 * 100
    return min(DRAWS, max(FEWEST_DRAWS, hundreds))


def configuration_rows(
    configurations: Sequence[Configuration], draws: int, kind: str = "configuration"
) -> list[Row]:
    """Return a row for each configuration, with intervals if its predictions are readable."""
    rows = []
    for one in configurations:
        complete = [record for record in one.records if record.status == "complete"]
        count = len(one.runs or complete)
        metrics: Mapping[str, Estimate] = {}
        if one.runs:
            samples = [(run.test.sample, run.thresholds) for run in one.runs]
            try:
                metrics = fold_mean(samples, draws)
                single = metrics["auroc"][1] is None
                note = "no interval: a class has a single patient" if single else ""
            except ValueError as error:
                images = [sample.reweighted(cuts) for sample, cuts in samples]
                metrics = _means([_without_resampling(weighted) for weighted in images])
                note = f"no interval: {error}"
        elif complete:
            metrics = _means([_recorded(record) for record in complete])
            note = "no interval: no predictions"
        else:
            note = "; ".join(record.state for record in one.records)
        rows.append(Row(f"{one.title}{_counted(one)}", kind, one.run, metrics, note, count))
    return rows


def _without_resampling(images: Reweighted) -> dict[str, Estimate]:
    values = images.metrics(np.ones((1, images.count)), list(images.named))[:, 0]
    return {
        name: (value, None, None) for name, value in zip(images.named, values.tolist(), strict=True)
    }


def _means(metrics: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """Means of the metrics that all runs have."""
    names = [name for name in metrics[0] if all(name in own for own in metrics)]
    return {name: (float(np.mean([own[name][0] for own in metrics])), None, None) for name in names}


def _counted(configuration: Configuration) -> str:
    """`` (3 folds)``, `` (2 seeds)``, `` (3 folds, 2 seeds)``, or nothing for a single run."""
    ids = [run.id for run in configuration.runs] or [record.run for record in configuration.records]
    folds, seeds = len({one.fold for one in ids}), len({one.seed for one in ids})
    texts = [f"{count} {name}" for count, name in ((folds, "folds"), (seeds, "seeds")) if count > 1]
    if len(ids) not in (1, folds * seeds):
        texts.append(f"{len(ids)} runs")
    return f" ({', '.join(texts)})" if texts else ""


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
            metrics = _recorded(record)
            if record.run in runs and "auroc_patients" not in metrics:
                run = runs[record.run]
                values = patient_metrics(run.test.sample, run.thresholds)
                metrics |= {name: (value, None, None) for name, value in values.items()}
        note = "" if complete else record.state
        rows.append(Row(record.run.folder, "run", record.run, metrics, note))
    return rows


def _recorded(record: Record) -> dict[str, Estimate]:
    """Metrics on test images, with their intervals."""
    return {
        name: (entry["value"], entry["low"], entry["high"])
        for name, entry in record.metrics.get("test", {}).items()
        if entry["value"] is not None
    }

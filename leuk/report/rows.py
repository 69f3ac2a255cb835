"""Metrics by configuration, run and baseline, and the AUROC of each model with each augmentation.

Metrics of a configuration are means over its folds and seeds; intervals resample patients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leuk.metrics.bootstrap import fold_mean
from leuk.metrics.classification import Reweighted, patient_metrics
from leuk.report.load import Configuration, Results, augmentations_of
from leuk.runs.record import OF_AUGMENTATION, Record, RunId, setting_texts

Estimate = tuple[float, float | None, float | None]
"""Value and the bounds of its 95 % interval; None where it has none."""

DRAWS, FEWEST_DRAWS = 1000, 200
_DRAWS_IN_ALL = 60_000

LEVELS = 8
"""Number of shades from the lowest to the highest AUROC."""

_NARROWEST = 0.02
"""Smallest AUROC range that the shades cover: smaller differences should look the same."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the table."""

    name: str
    kind: str  # configuration, run or baseline
    run: RunId  # of the run, or the id that represents a configuration
    metrics: Mapping[str, Estimate]
    note: str = ""  # remark on the metrics, or the reason why there are none
    runs: int = 1  # number of runs that the metrics average


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
        metrics: Mapping[str, Estimate] = {}
        if one.runs:
            samples = [(run.test.sample, run.thresholds) for run in one.runs]
            try:
                metrics = fold_mean(samples, draws)
                single = metrics["auroc"][1] is None
                note = "no interval: a class has a single patient" if single else ""
            except ValueError as error:
                images = [sample.reweighted(cuts) for sample, cuts in samples]
                metrics = _means(
                    [{name: value_of(own, name) for name in own.named} for own in images]
                )
                note = f"no interval: {error}"
        elif complete:
            recorded = [_recorded(record) for record in complete]
            metrics = _means([{name: one[0] for name, one in own.items()} for own in recorded])
            note = "no interval: no predictions"
        else:
            note = "; ".join(record.state for record in one.records)
        # Such as `` (3 folds, 2 seeds)``; nothing for a single run.
        ids = [run.id for run in one.runs] or [record.run for record in one.records]
        folds, seeds = len({run.fold for run in ids}), len({run.seed for run in ids})
        counted = {"folds": folds, "seeds": seeds}
        texts = [f"{count} {name}" for name, count in counted.items() if count > 1]
        if len(ids) not in (1, folds * seeds):
            texts.append(f"{len(ids)} runs")
        name = f"{one.title} ({', '.join(texts)})" if texts else one.title
        rows.append(Row(name, kind, one.run, metrics, note, len(one.runs or complete)))
    return rows


def value_of(images: Reweighted, metric: str) -> float:
    """Value of a metric on images that are not resampled."""
    return float(images.metric(metric, np.ones((1, images.count)))[0])


def _means(runs: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """Means of the metrics that all runs have, without intervals."""
    names = [name for name in runs[0] if all(name in own for own in runs)]
    return {name: (float(np.mean([own[name] for own in runs])), None, None) for name in names}


def run_rows(results: Results) -> list[Row]:
    """Return a row for each run, with the metrics of its record.

    Metrics by patient, which older records lack, are computed from the run's predictions.
    """
    runs = {run.id: run for configuration in results.configurations for run in configuration.runs}
    rows = []
    for record in results.records:
        complete = record.status == "complete"
        metrics = _recorded(record) if complete else {}
        if complete and record.run in runs and "auroc_patients" not in metrics:
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


# --- AUROC of each model with each augmentation


@dataclass(frozen=True, eq=False)
class HeatMap:
    """AUROC of models (rows, with the settings that differ) under augmentations (columns).

    ``entries`` are table rows by model and augmentation; None where no run is complete.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    entries: tuple[tuple[Row | None, ...], ...]

    @property
    def values(self) -> list[list[float]]:
        """AUROC by row and column, NaN where no run is complete."""
        return [
            [float("nan") if one is None else one.metrics["auroc"][0] for one in entries]
            for entries in self.entries
        ]

    @property
    def span(self) -> tuple[float, float]:
        """AUROC of the lightest and of the darkest shade."""
        found = np.array(self.values)
        low, high = float(np.nanmin(found)), float(np.nanmax(found))
        spare = max(0.0, _NARROWEST - (high - low)) / 2
        return low - spare, high + spare

    @property
    def levels(self) -> list[list[int | None]]:
        """Shades from 0 to :data:`LEVELS` - 1; None where no run is complete."""
        low, high = self.span
        return [
            [
                None
                if np.isnan(value)
                else min(LEVELS - 1, max(0, int((value - low) / (high - low) * LEVELS)))
                for value in row
            ]
            for row in self.values
        ]


def heat_map(configurations: Sequence[Configuration], rows: Sequence[Row]) -> HeatMap | None:
    """Return the heat map of configurations and their rows; None without any AUROC."""
    found = {one.run: row for one, row in zip(configurations, rows, strict=True)}
    named = {
        name: {
            one.run.augmentation: found[one.run]
            for one in reversed(members)
            if "auroc" in found[one.run].metrics
        }
        for name, members in by_model(configurations).items()
    }
    present = {augmentation for row in named.values() for augmentation in row}
    if not present:
        return None
    columns = [name for name in augmentations_of(found) if name in present]
    entries = [tuple(row.get(name) for name in columns) for row in named.values()]
    return HeatMap(tuple(named), tuple(columns), tuple(entries))


def by_model(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Return configurations that differ only in the augmentation, by their name without it."""
    found: dict[RunId, list[Configuration]] = {}
    for configuration in configurations:
        found.setdefault(configuration.run.plain, []).append(configuration)
    named = {}
    for members in found.values():
        name, run = members[0].title, members[0].run
        settings = setting_texts(run.settings).items()
        own = [text for key, text in settings if key.startswith(OF_AUGMENTATION)]
        for text in (run.augmentation, *own):
            name = name.replace(f"-{text}", "", 1)
        named[name] = members
    return named

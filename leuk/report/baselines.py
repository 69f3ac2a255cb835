"""Baselines as configurations, from their scores in the prediction files."""

from collections.abc import Sequence
from dataclasses import replace

from leuk.metrics.thresholds import choose_thresholds
from leuk.report.predictions import StagePredictions
from leuk.report.results import Configuration, Run
from leuk.runs.record import setting_texts

AREA = "area"
"""Name of the baseline that uses cell area alone."""


def baseline_of(configuration: Configuration, name: str) -> Configuration | None:
    """Return a baseline on the images of each run; None if a run lacks its scores.

    Its runs have no thresholds, since most comparisons need none.

    Args:
        configuration: runs with scores of baselines.
        name: name of the baseline.
    """
    if not configuration.runs or any(name not in run.test.baselines for run in configuration.runs):
        return None
    runs = tuple(_with_scores(run, name) for run in configuration.runs)
    return Configuration(configuration.run, (), runs, f"baseline: {name}")


def first_seeds(configuration: Configuration) -> Configuration:
    """Return the configuration with one run per fold: baselines depend on no seed."""
    return replace(configuration, runs=tuple(configuration.first_seed))


def _with_scores(run: Run, name: str) -> Run:
    return Run(run.id, _scored(run.val, name), _scored(run.test, name), {})


def _scored(stage: StagePredictions, name: str) -> StagePredictions:
    sample = replace(stage.sample, scores=stage.baselines[name], calibrated=None)
    return replace(stage, sample=sample)


def baselines(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Each baseline once for each split and data set.

    Names include split and data set if several occur, and other settings if two baselines would
    have the same name. Baselines depend on neither model nor seed, so one run per fold is enough.

    Args:
        configurations: all configurations of the report.
    """
    # Configurations whose images have the same scores, by baseline, split and scores.
    found: dict[tuple[str, str, frozenset[tuple[int, bytes]]], list[Configuration]] = {}
    first: dict[tuple[str, str, frozenset[tuple[int, bytes]]], Configuration] = {}
    for configuration in configurations:
        once = first_seeds(configuration)
        for name in dict.fromkeys(name for run in once.runs for name in run.test.baselines):
            if (baseline := baseline_of(once, name)) is not None:
                scores = ((run.id.fold, run.test.sample.scores.tobytes()) for run in baseline.runs)
                key = (name, configuration.run.split_name, frozenset(scores))
                found.setdefault(key, []).append(configuration)
                first.setdefault(key, baseline)
    # A baseline whose folds are a subset of those of another adds nothing.
    kept = [
        key
        for key in found
        if not any(key[2] < more for name, split, more in found if (name, split) == key[:2])
    ]
    splits = {split for _, split, _ in kept}
    one_split = len(splits) == 1 and not any(one.run.leaky for one in configurations)
    sets = {key: _data_set(found[key]) for key in kept}
    one_set = len(set(sets.values())) == 1
    parts = {
        key: [*([] if one_split else [key[1]]), *([] if one_set else [sets[key]])] for key in kept
    }
    named = []
    for key in kept:
        alike = [other for other in kept if (other[0], parts[other]) == (key[0], parts[key])]
        shared = [_settings(found[one]) for one in alike]
        own = _settings(found[key]) - shared[0].intersection(*shared)
        inside = ", ".join([*parts[key], *sorted(own)])
        name = f"{first[key].name} ({inside})" if inside else first[key].name
        runs = tuple(map(_with_thresholds, first[key].runs))
        named.append(replace(first[key], name=name, runs=runs))
    return named


def _settings(configurations: Sequence[Configuration]) -> set[str]:
    """Return the settings common to all configurations."""
    first, *others = (
        set(setting_texts(configuration.run.settings).values()) for configuration in configurations
    )
    return first.intersection(*others)


def _data_set(configurations: Sequence[Configuration]) -> str:
    """Name of the data set as in ``data=NAME``; empty for records without settings."""
    records = [record for configuration in configurations for record in configuration.records]
    data = records[0].settings.get("data", {}) if records else {}
    name = str(data.get("_target_", "")).rpartition(".")[2]
    return name.removesuffix("DataModule").lower()


def _with_thresholds(run: Run) -> Run:
    sample = run.val.sample
    chosen = choose_thresholds(sample.scores, sample.labels, sample.subjects)
    return replace(run, thresholds=chosen)

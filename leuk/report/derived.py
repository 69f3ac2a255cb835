"""Configurations computed from others: ensembles of a CNN and a ViT, and baselines.

The report computes them, so that no run depends on another, and treats them like any configuration.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.thresholds import choose_thresholds
from leuk.report.load import Configuration, Run, StagePredictions, matching
from leuk.runs.record import setting_texts

ENSEMBLE = "ensemble"
"""Name of the ensemble in place of a model."""

MEMBERS = ("cnn", "vit")

AREA = "area"
"""Name of the baseline that uses cell area alone."""

_Scores = tuple[str, str, frozenset[tuple[int, bytes]]]
"""Name of a baseline, split, and fold and scores of each run."""


def ensembles(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Mean of the matching predictions of each CNN and ViT that differ only in the model.

    Augmentation, split, settings, fold, seed and images are the same; runs that only one of the two
    has are skipped. Temperature and thresholds are chosen on the mean validation scores.

    Args:
        configurations: configurations of the sweep.
    """
    found = {configuration.run: configuration for configuration in configurations}
    averaged = []
    for configuration in configurations:
        other = found.get(replace(configuration.run, model=MEMBERS[1]))
        if configuration.run.model != MEMBERS[0] or other is None:
            continue
        runs = tuple(
            _averaged(one, two)
            for one, two in matching(configuration, other)
            if np.array_equal(one.val.paths, two.val.paths)
        )
        if runs:
            name = configuration.title.replace(MEMBERS[0], ENSEMBLE, 1)
            run = replace(configuration.run, model=ENSEMBLE)
            averaged.append(Configuration(run, (), runs, name))
    return averaged


def _averaged(one: Run, other: Run) -> Run:
    val, test = (
        np.mean([getattr(run, stage).sample.scores for run in (one, other)], axis=0)
        for stage in ("val", "test")
    )
    sample = one.val.sample
    temperature = fit_temperature(val, sample.labels)
    return Run(
        replace(one.id, model=ENSEMBLE),
        one.val.with_scores(val, apply_temperature(val, temperature)),
        one.test.with_scores(test, apply_temperature(test, temperature)),
        choose_thresholds(val, sample.labels, sample.subjects),
    )


def baseline_of(configuration: Configuration, name: str) -> Configuration | None:
    """Return a baseline on the images of each run; None if a run lacks its scores.

    Its runs have no thresholds, since most comparisons need none.

    Args:
        configuration: runs with scores of baselines.
        name: name of the baseline.
    """
    if not configuration.runs or any(name not in run.test.baselines for run in configuration.runs):
        return None

    def scored(stage: StagePredictions) -> StagePredictions:
        return stage.with_scores(stage.baselines[name], None)

    runs = (Run(run.id, scored(run.val), scored(run.test), {}) for run in configuration.runs)
    return Configuration(configuration.run, (), tuple(runs), f"baseline: {name}")


def baselines(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Each baseline once for each split and data set, with thresholds.

    Names include split and data set if several occur, and other settings if two baselines would
    have the same name. Baselines depend on neither model nor seed, so one run per fold is enough.

    Args:
        configurations: all configurations of the report.
    """
    # Configurations whose images have the same scores of a baseline, with the latter.
    found: dict[_Scores, list[Configuration]] = {}
    first: dict[_Scores, Configuration] = {}
    for configuration in configurations:
        once = configuration.first_seed
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
    leaky = any(configuration.run.leaky for configuration in configurations)
    several_splits = leaky or len({key[1] for key in kept}) > 1
    sets = {key: _data_set(found[key]) for key in kept}
    several_sets = len(set(sets.values())) > 1
    parts = {
        key: [*([key[1]] if several_splits else []), *([sets[key]] if several_sets else [])]
        for key in kept
    }
    named = []
    for key in kept:
        alike = [other for other in kept if (other[0], parts[other]) == (key[0], parts[key])]
        shared = set.intersection(*(_settings(found[one]) for one in alike))
        inside = ", ".join([*parts[key], *sorted(_settings(found[key]) - shared)])
        name = f"{first[key].name} ({inside})" if inside else first[key].name
        runs = tuple(
            replace(run, thresholds=choose_thresholds(val.scores, val.labels, val.subjects))
            for run in first[key].runs
            for val in [run.val.sample]
        )
        named.append(replace(first[key], name=name, runs=runs))
    return named


def _settings(configurations: Sequence[Configuration]) -> set[str]:
    """Return texts of the settings common to all configurations."""
    return set.intersection(
        *(set(setting_texts(one.run.settings).values()) for one in configurations)
    )


def _data_set(configurations: Sequence[Configuration]) -> str:
    """Name of the data set as in ``data=NAME``; empty for records without settings."""
    records = [record for configuration in configurations for record in configuration.records]
    data = records[0].settings.get("data", {}) if records else {}
    name = str(data.get("_target_", "")).rpartition(".")[2]
    return name.removesuffix("DataModule").lower()

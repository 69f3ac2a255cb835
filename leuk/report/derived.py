"""Configurations computed from others: ensembles of a CNN and a ViT, and baselines.

The report computes them, so that no run depends on another, and treats them like any configuration.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.thresholds import choose_thresholds
from leuk.report.load import Configuration, Run, matching
from leuk.runs.record import setting_texts

ENSEMBLE = "ensemble"
"""Name of the ensemble in place of a model."""

MEMBERS = ("cnn", "vit")

AREA = "area"
"""Name of the baseline that uses cell area alone."""

_Scores = tuple[str, str, frozenset[tuple[int, bytes]]]


def ensembles(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Mean of the matching predictions of each CNN and ViT that differ only in the model.

    Augmentation, split, settings, fold, seed and images are the same; runs that only one of the two
    has are skipped. Temperature and thresholds are chosen on the mean validation scores.
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
    """Return a baseline on the images of each run, without thresholds, which few comparisons need.

    None if there is no run, or a run lacks its scores.
    """
    if not configuration.runs or any(name not in run.test.baselines for run in configuration.runs):
        return None
    runs = []
    for run in configuration.runs:
        val, test = (one.with_scores(one.baselines[name], None) for one in (run.val, run.test))
        runs.append(Run(run.id, val, test, {}))
    return Configuration(configuration.run, (), tuple(runs), f"baseline: {name}")


def baselines(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Each baseline once for each split and data set, with thresholds.

    Names include split and data set if several occur, and other settings if two baselines would
    have the same name. Baselines depend on neither model nor seed, so one run per fold is enough.
    """
    # By name of the baseline, split, and scores of each fold: a baseline, and the configurations
    # whose images have these scores.
    found: dict[_Scores, tuple[Configuration, list[Configuration]]] = {}
    for one in configurations:
        once = one.first_seed
        for name in dict.fromkeys(name for run in once.runs for name in run.test.baselines):
            if (baseline := baseline_of(once, name)) is not None:
                scores = ((run.id.fold, run.test.sample.scores.tobytes()) for run in baseline.runs)
                key = name, one.run.split_name, frozenset(scores)
                found.setdefault(key, (baseline, []))[1].append(one)
    # A baseline whose folds are a subset of those of another adds nothing.
    kept = {
        key: pair
        for key, pair in found.items()
        if not any(key[:2] == other[:2] and key[2] < other[2] for other in found)
    }
    leaky = any(one.run.leaky for one in configurations)
    splits = {key: key[1] for key in kept}
    sets = {key: _data_set(owners) for key, (_, owners) in kept.items()}
    settings = {key: _settings(owners) for key, (_, owners) in kept.items()}
    axes = [splits] if leaky or len(set(splits.values())) > 1 else []
    axes += [sets] if len(set(sets.values())) > 1 else []
    parts = {key: [key[0], *(axis[key] for axis in axes)] for key in kept}
    named = []
    for key, (baseline, _) in kept.items():
        alike = [other for other in kept if parts[other] == parts[key]]
        shared: set[str] = set.intersection(*(settings[other] for other in alike))
        inside = ", ".join([*parts[key][1:], *sorted(settings[key] - shared)])
        runs = []
        for run in baseline.runs:
            val = run.val.sample
            thresholds = choose_thresholds(val.scores, val.labels, val.subjects)
            runs.append(replace(run, thresholds=thresholds))
        name = f"{baseline.title} ({inside})" if inside else baseline.title
        named.append(replace(baseline, name=name, runs=tuple(runs)))
    return named


def _settings(configurations: Sequence[Configuration]) -> set[str]:
    """Return texts of the settings common to all configurations."""
    texts = (set(setting_texts(one.run.settings).values()) for one in configurations)
    return set.intersection(*texts)


def _data_set(configurations: Sequence[Configuration]) -> str:
    """Name of the data set as in ``data=NAME``; empty for records without settings."""
    records = [record for one in configurations for record in one.records]
    data = records[0].settings.get("data", {}) if records else {}
    name = str(data.get("_target_", "")).rpartition(".")[2]
    return name.removesuffix("DataModule").lower()

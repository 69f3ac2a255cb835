"""The ensemble of CNN and ViT: the mean of their matching predictions.

The report computes it, so that no run depends on another. The rest of the report treats it like any
configuration.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leuk.metrics.arrays import Floats
from leuk.metrics.calibration import apply_temperature, fit_temperature
from leuk.metrics.thresholds import choose_thresholds
from leuk.report.predictions import StagePredictions
from leuk.report.results import Configuration, Run, matching

NAME = "ensemble"
"""Name of the ensemble in place of a model."""

MEMBERS = ("cnn", "vit")


def ensembles(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Return a configuration for each pair of a CNN and a ViT that differ only in the model.

    Augmentation, split, variant, fold, seed and test images are the same; runs that only one of the
    two has are skipped.

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
            ensemble_run(one, two)
            for one, two in matching(configuration, other)
            if np.array_equal(one.val.paths, two.val.paths)
        )
        if runs:
            name = configuration.title.replace(MEMBERS[0], NAME, 1)
            averaged.append(Configuration(replace(configuration.run, model=NAME), (), runs, name))
    return averaged


def ensemble_run(one: Run, other: Run) -> Run:
    """Mean scores of two runs; temperature and thresholds are chosen on the mean validation scores.

    Args:
        one: run of the first model.
        other: run of the second model on the same images.
    """
    val, test = (
        np.mean([getattr(run, stage).sample.scores for run in (one, other)], axis=0)
        for stage in ("val", "test")
    )
    labels = one.val.sample.labels
    temperature = fit_temperature(val, labels)
    return Run(
        replace(one.id, model=NAME),
        _scored(one.val, val, temperature),
        _scored(one.test, test, temperature),
        choose_thresholds(val, labels, one.val.sample.subjects),
    )


def _scored(stage: StagePredictions, scores: Floats, temperature: float) -> StagePredictions:
    calibrated = apply_temperature(scores, temperature)
    return StagePredictions(
        replace(stage.sample, scores=scores, calibrated=calibrated), stage.paths, stage.baselines
    )

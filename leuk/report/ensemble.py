"""The ensemble of CNN and ViT: the mean of their matching predictions.

The report makes it, so that no cell of the grid depends on another; from here on it is a group like
any other.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leuk.evaluate.calibration import apply_temperature, fit_temperature
from leuk.evaluate.thresholds import choose_thresholds
from leuk.evaluate.vectors import Floats
from leuk.report.predictions import StagePredictions
from leuk.report.results import Configuration, Run, matching

NAME = "ensemble"
"""In place of a model."""

MEMBERS = ("cnn", "vit")


def ensembles(groups: Sequence[Configuration]) -> list[Configuration]:
    """One group for each pair of a CNN and a ViT that differ in the model alone.

    Augmentation, split, variant, fold and seed are the same, and so are the cells judged; runs that
    only one of the two has are left out.
    """
    found = {group.run: group for group in groups}
    made = []
    for group in groups:
        other = found.get(replace(group.run, model=MEMBERS[1]))
        if group.run.model != MEMBERS[0] or other is None:
            continue
        runs = tuple(
            ensemble_run(one, two)
            for one, two in matching(group, other)
            if np.array_equal(one.val.paths, two.val.paths)
        )
        if runs:
            name = group.title.replace(MEMBERS[0], NAME, 1)
            made.append(Configuration(replace(group.run, model=NAME), (), runs, name))
    return made


def ensemble_run(one: Run, other: Run) -> Run:
    """The mean of two runs' scores; temperature and thresholds from its own validation scores."""
    val, test = (
        np.mean([getattr(run, part).sample.scores for run in (one, other)], axis=0)
        for part in ("val", "test")
    )
    labels = one.val.sample.labels
    temperature = fit_temperature(val, labels)
    return Run(
        replace(one.id, model=NAME),
        _scored(one.val, val, temperature),
        _scored(one.test, test, temperature),
        choose_thresholds(val, labels, one.val.sample.subjects),
    )


def _scored(part: StagePredictions, scores: Floats, temperature: float) -> StagePredictions:
    calibrated = apply_temperature(scores, temperature)
    return StagePredictions(
        replace(part.sample, scores=scores, calibrated=calibrated), part.paths, part.baselines
    )

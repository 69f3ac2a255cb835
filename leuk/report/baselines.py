"""The baselines as lines like any other, from the scores saved beside the predictions."""

from collections.abc import Sequence
from dataclasses import replace

from leuk.evaluate.thresholds import choose_thresholds
from leuk.grid.run_id import LEAKY
from leuk.report.predictions import StagePredictions
from leuk.report.results import Configuration, Run

AREA = "area"
"""The baseline without which no model is worth reporting."""


def baseline_of(group: Configuration, name: str) -> Configuration | None:
    """A baseline on the cells of each run of a group; None if a run lacks its scores.

    Its runs have no thresholds: most who ask compare what needs none.
    """
    if not group.runs or any(name not in run.test.baselines for run in group.runs):
        return None
    runs = tuple(_judged(run, name) for run in group.runs)
    return Configuration(group.run, (), runs, f"baseline: {name}")


def first_seeds(group: Configuration) -> Configuration:
    """The group with one run a fold: enough for what knows neither model nor seed."""
    return replace(group, runs=tuple(group.first_seed))


def _judged(run: Run, name: str) -> Run:
    return Run(run.id, _scored(run.val, name), _scored(run.test, name), {})


def _scored(part: StagePredictions, name: str) -> StagePredictions:
    sample = replace(part.sample, scores=part.baselines[name], calibrated=None)
    return replace(part, sample=sample)


def baselines(groups: Sequence[Configuration]) -> list[Configuration]:
    """Each baseline once for each split and data.

    Split and data set are named where there are several, and other settings where that leaves two
    lines with one name. Baselines know neither model nor seed, so one run a fold is enough.
    """
    # Groups whose images have the same scores, by baseline, split and these scores.
    found: dict[tuple[str, str, frozenset[tuple[int, bytes]]], list[Configuration]] = {}
    lines: dict[tuple[str, str, frozenset[tuple[int, bytes]]], Configuration] = {}
    for group in groups:
        once = first_seeds(group)
        for name in dict.fromkeys(name for run in once.runs for name in run.test.baselines):
            if (line := baseline_of(once, name)) is not None:
                scores = ((run.id.fold, run.test.sample.scores.tobytes()) for run in line.runs)
                key = (name, group.run.split, frozenset(scores))
                found.setdefault(key, []).append(group)
                lines.setdefault(key, line)
    # A line that lacks folds which another has says nothing new.
    kept = [
        key
        for key in found
        if not any(key[2] < folds for name, split, folds in found if (name, split) == key[:2])
    ]
    splits = {split for _, split, _ in kept}
    one_split = len(splits) == 1 and not any(split.endswith(LEAKY) for split in splits)
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
        name = f"{lines[key].name} ({inside})" if inside else lines[key].name
        runs = tuple(map(_with_thresholds, lines[key].runs))
        named.append(replace(lines[key], name=name, runs=runs))
    return named


def _settings(groups: Sequence[Configuration]) -> set[str]:
    """Settings that all of the groups have."""
    first, *others = (set(group.run.settings) for group in groups)
    return first.intersection(*others)


def _data_set(groups: Sequence[Configuration]) -> str:
    """Name of the data set, as ``data=NAME`` chooses it; empty in records without settings."""
    records = [record for group in groups for record in group.records]
    data = records[0].settings.get("data", {}) if records else {}
    name = str(data.get("_target_", "")).rpartition(".")[2]
    return name.removesuffix("DataModule").lower()


def _with_thresholds(run: Run) -> Run:
    sample = run.val.sample
    chosen = choose_thresholds(sample.scores, sample.labels, sample.subjects)
    return replace(run, thresholds=chosen)

"""The baselines as lines like any other, from the scores saved beside the predictions."""

from collections.abc import Sequence
from dataclasses import replace

from leuk.evaluate.thresholds import choose_thresholds
from leuk.grid.cell import LEAKY
from leuk.report.predictions import Part
from leuk.report.results import Group, Run

AREA = "area"
"""The baseline without which no model is worth reporting."""


def baseline_of(group: Group, name: str) -> Group | None:
    """A baseline on the cells of each run of a group; None if a run lacks its scores.

    Its runs have no thresholds: most who ask compare what needs none.
    """
    if not group.runs or any(name not in run.test.baselines for run in group.runs):
        return None
    runs = tuple(_judged(run, name) for run in group.runs)
    return Group(group.cell, (), runs, f"baseline: {name}")


def first_seeds(group: Group) -> Group:
    """The group with one run a fold: enough for what knows neither model nor seed."""
    return replace(group, runs=tuple(group.first_seed))


def _judged(run: Run, name: str) -> Run:
    return Run(run.cell, _scored(run.val, name), _scored(run.test, name), {})


def _scored(part: Part, name: str) -> Part:
    sample = replace(part.sample, scores=part.baselines[name], calibrated=None)
    return replace(part, sample=sample)


def baselines(groups: Sequence[Group]) -> list[Group]:
    """Each baseline once for each split and data; the split is named where there are several.

    Baselines know neither model nor seed, so one run a fold is enough.
    """
    found: dict[tuple[str, str, frozenset[tuple[int, bytes]]], Group] = {}
    for group in groups:
        once = first_seeds(group)
        for name in dict.fromkeys(name for run in once.runs for name in run.test.baselines):
            if (line := baseline_of(once, name)) is not None:
                scores = ((run.cell.fold, run.test.sample.scores.tobytes()) for run in line.runs)
                found.setdefault((name, group.cell.split, frozenset(scores)), line)
    # A line that lacks folds which another has says nothing new.
    kept = {
        (name, split, folds): line
        for (name, split, folds), line in found.items()
        if not any(folds < more for other, where, more in found if (other, where) == (name, split))
    }
    splits = {split for _, split, _ in kept}
    plain = len(splits) == 1 and not any(split.endswith(LEAKY) for split in splits)
    return [
        replace(
            line,
            name=line.name if plain else f"{line.name} ({split})",
            runs=tuple(map(_with_thresholds, line.runs)),
        )
        for (_, split, _), line in kept.items()
    ]


def _with_thresholds(run: Run) -> Run:
    sample = run.val.sample
    chosen = choose_thresholds(sample.scores, sample.labels, sample.subjects)
    return replace(run, thresholds=chosen)

"""Which cells are explained, which stand behind them, and which methods a classifier allows."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pandas as pd

from leuk.classifiers.classifier import Classifier
from leuk.errors import ConfigError
from leuk.explain.explainer import Explainer
from leuk.explain.gradcam import GradCAM


def choose_cells(cells: pd.DataFrame, count: int) -> list[int]:
    """Choose positions in a table of test cells, the same for the same table.

    The four outcomes (label right or wrong) take turns, and within an outcome the subjects do, so
    that neither a frequent outcome nor a large subject fills the choice. The first of a larger
    choice are the smaller one.

    Args:
        cells: with ``label``, ``decided`` and ``subject``.
        count: how many; fewer where there are fewer cells.
    """
    groups = [
        _by_turns(group)
        for _, group in cells.reset_index(drop=True).groupby(["label", "decided"], sort=True)
    ]
    chosen: list[int] = []
    for turn in range(max(map(len, groups), default=0)):
        chosen += [group[turn] for group in groups if turn < len(group)]
    return chosen[:count]


def choose_background(train: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Choose training cells of both classes, as many of each where there are as many.

    Args:
        train: real training cells with ``label`` and ``subject``; the index is the row of the bank.
        count: how many; fewer where there are fewer cells.
        seed: the same seed chooses the same cells.

    Returns:
        Rows of the bank, ascending.
    """
    shuffled = train.iloc[np.random.default_rng(seed).permutation(len(train))]
    turns = [_by_turns(group) for _, group in shuffled.groupby("label", sort=True)]
    chosen: list[int] = []
    for turn in range(max(map(len, turns), default=0)):
        chosen += [group[turn] for group in turns if turn < len(group)]
    return sorted(chosen[:count])


def possible_explainers(
    explainers: Mapping[str, Explainer], classifier: Classifier
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """Methods that this classifier can be explained with, and why the others are left out.

    Args:
        explainers: by name.
        classifier: fitted or not.

    Raises:
        ConfigError: a method needs patches that the classifier has not, and was not asked for
            ``when_possible``; or a layer that there is not.
    """
    kept: dict[str, Explainer] = {}
    left_out: dict[str, str] = {}
    for name, explainer in explainers.items():
        if isinstance(explainer, GradCAM):
            explainer.layer_of(classifier)
        if not explainer.needs_patches or classifier.has_patches:
            kept[name] = explainer
        elif getattr(explainer, "when_possible", False):
            left_out[name] = f"{type(classifier).__name__} has no patches"
        else:
            raise ConfigError(f"explain={name}: {classifier.patchless()}")
    return kept, left_out


def _by_turns(group: pd.DataFrame) -> list[int]:
    """Index values of a group with its subjects taking turns."""
    turns: dict[str, int] = defaultdict(int)
    order: list[tuple[int, int]] = []
    for place, subject in enumerate(group["subject"]):
        order.append((turns[subject], place))
        turns[subject] += 1
    return [int(group.index[place]) for _, place in sorted(order)]

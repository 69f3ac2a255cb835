"""Choice of the images to explain, the background images, and the applicable methods."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pandas as pd

from leuk.classifiers.classifier import Classifier
from leuk.errors import ConfigError
from leuk.explain.explainer import Explainer
from leuk.explain.gradcam import GradCAM


def choose_images(images: pd.DataFrame, count: int) -> list[int]:
    """Choose positions in a table of test images, deterministically.

    The four outcomes (each label, predicted rightly or wrongly) take turns, and within an outcome
    the subjects take turns, so that neither a frequent outcome nor a large subject dominates. A
    smaller choice is the start of a larger one.

    Args:
        images: images with ``label``, ``decided`` (the predicted label) and ``subject``.
        count: number to choose; all if the table has fewer.
    """
    outcomes = [
        _by_turns(group)
        for _, group in images.reset_index(drop=True).groupby(["label", "decided"], sort=True)
    ]
    chosen: list[int] = []
    for turn in range(max(map(len, outcomes), default=0)):
        chosen += [outcome[turn] for outcome in outcomes if turn < len(outcome)]
    return chosen[:count]


def choose_background(train: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Choose training images, the same number from both classes as far as possible.

    Args:
        train: real training images with ``label`` and ``subject``, indexed by row of the bank.
        count: number to choose; all if the table has fewer.
        seed: seed of the random choice.

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
    """Separate the methods that support this classifier from those to omit.

    Args:
        explainers: explainers by name.
        classifier: classifier, trained or not.

    Returns:
        The applicable methods, and the reason for each omitted one, by name.

    Raises:
        ConfigError: a method without ``when_possible`` needs patches and the classifier has none;
            or Grad-CAM's layer does not exist.
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
            raise ConfigError(f"explain={name}: {classifier.no_patches_message()}")
    return kept, left_out


def _by_turns(group: pd.DataFrame) -> list[int]:
    """Index values of a group in an order in which its subjects take turns."""
    turns: dict[str, int] = defaultdict(int)
    order: list[tuple[int, int]] = []
    for position, subject in enumerate(group["subject"]):
        order.append((turns[subject], position))
        turns[subject] += 1
    return [int(group.index[position]) for _, position in sorted(order)]

"""Names and order of the configurations of a report."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from leuk.runs.record import LEAKY, RunId

MODELS = ("cnn", "vit", "ensemble", "hybrid", "pretrained")
AUGMENTATIONS = ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
"""Augmentations in the order of the tables."""


def sort_key(run: RunId) -> tuple[object, ...]:
    """Sort key of configurations: models and augmentations as in the thesis, then others."""
    ranks = [
        (names.index(name) if name in names else len(names), name)
        for name, names in ((run.model, MODELS), (run.augmentation, AUGMENTATIONS))
    ]
    bare = run.plain.settings
    return (run.split, len(bare), bare, *ranks, run.variant)


def row_names(runs: Sequence[RunId]) -> tuple[dict[RunId, str], tuple[str, ...]]:
    """Names of configurations without the settings that all share, and these settings.

    Args:
        runs: the id that represents each configuration, see
            :attr:`leuk.runs.record.RunId.configuration`.

    Returns:
        Names by id, ``<model>-<augmentation>[-<split>][-<settings>]``: the split is omitted if it
        is the only one and does not leak, a setting if all configurations of the split have it or
        all of its augmentation do. Then a text on the omitted settings for each split, and for
        each augmentation that has any.
    """
    of_split: dict[str, list[RunId]] = defaultdict(list)
    for run in runs:
        of_split[run.split].append(run)
    alone = len(of_split) == 1 and not runs[0].split.endswith(LEAKY)
    names: dict[RunId, str] = {}
    shared = []
    for split, members in of_split.items():
        common = _common(run.settings for run in members)
        shared.append(_omitted(split, common))
        of_augmentation: dict[str, list[RunId]] = defaultdict(list)
        for run in members:
            of_augmentation[run.augmentation].append(run)
        for augmentation, alike in of_augmentation.items():
            own = _common(run.augmentation_settings for run in alike) - common
            if own:
                shared.append(_omitted(f"{split}, {augmentation}", own))
            for run in alike:
                kept = [text for text in run.settings if text not in common | own]
                parts = [run.model, augmentation, *([] if alone else [split]), *kept]
                names[run] = "-".join(parts)
    return names, tuple(shared)


def _common(settings: Iterable[Sequence[str]]) -> set[str]:
    return set.intersection(*map(set, settings))


def _omitted(name: str, settings: set[str]) -> str:
    return f"{name}: {', '.join(sorted(settings))}" if settings else name

"""What the lines of a report are called, and in which order they stand."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from leuk.grid.run_id import LEAKY, RunId

MODELS = ("cnn", "vit", "ensemble", "hybrid", "pretrained")
AUGMENTATIONS = ("none", "oversample", "class_weights", "dcgan", "wgan", "cgan")
"""In the order in which lines stand."""


def in_order(cell: RunId) -> tuple[object, ...]:
    """What lines are sorted by: models and augmentations as the thesis has them, others after."""
    places = [
        (names.index(name) if name in names else len(names), name)
        for name, names in ((cell.model, MODELS), (cell.augmentation, AUGMENTATIONS))
    ]
    bare = cell.plain.settings
    return (cell.split, len(bare), bare, *places, cell.variant)


def row_names(cells: Sequence[RunId]) -> tuple[dict[RunId, str], tuple[str, ...]]:
    """Names of lines without what they share, and what that is.

    Args:
        cells: the one that stands for each line, see :attr:`leuk.grid.run_id.RunId.configuration`.

    Returns:
        RunId to ``<model>-<augmentation>[-<split>][-<settings>]``, where the split is left out if
        there is one alone and it does not leak, settings if all lines of the split have them, and
        settings of an augmentation if all its lines have them; and for each split, and each
        augmentation with such settings, what was left out.
    """
    of_split: dict[str, list[RunId]] = defaultdict(list)
    for cell in cells:
        of_split[cell.split].append(cell)
    alone = len(of_split) == 1 and not cells[0].split.endswith(LEAKY)
    names: dict[RunId, str] = {}
    shared = []
    for split, members in of_split.items():
        common = _common(cell.settings for cell in members)
        shared.append(_told(split, common))
        of_augmentation: dict[str, list[RunId]] = defaultdict(list)
        for cell in members:
            of_augmentation[cell.augmentation].append(cell)
        for augmentation, made in of_augmentation.items():
            own = _common(cell.augmentation_settings for cell in made) - common
            if own:
                shared.append(_told(f"{split}, {augmentation}", own))
            for cell in made:
                kept = [text for text in cell.settings if text not in common | own]
                parts = [cell.model, augmentation, *([] if alone else [split]), *kept]
                names[cell] = "-".join(parts)
    return names, tuple(shared)


def _common(settings: Iterable[Sequence[str]]) -> set[str]:
    return set.intersection(*map(set, settings))


def _told(where: str, settings: set[str]) -> str:
    return f"{where}: {', '.join(sorted(settings))}" if settings else where

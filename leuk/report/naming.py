"""Names and order of the configurations of a report."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from leuk.runs.record import OF_AUGMENTATION, RunId, setting_texts

_KINDS = ("none", "control", "gan")


def sort_key(run: RunId) -> tuple[object, ...]:
    """Sort key of configurations: no augmentation first, then controls, then GANs, by name."""
    bare = tuple(sorted(setting_texts(run.plain.settings).values()))
    order = (run.model, _KINDS.index(run.kind), run.augmentation, run.title)
    return (run.split_name, len(bare), bare, *order)


def augmentations_of(runs: Iterable[RunId]) -> list[str]:
    """Names of the augmentations of runs, each once, in the order of :func:`sort_key`."""
    found = {(_KINDS.index(run.kind), run.augmentation) for run in runs}
    return [name for _, name in sorted(found)]


def unlike(one: RunId, other: RunId) -> int:
    """Count the settings that only one of two runs has, or with another value."""
    keys = one.settings.keys() | other.settings.keys()
    return sum(one.settings.get(key) != other.settings.get(key) for key in keys)


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
        of_split[run.split_name].append(run)
    alone = len(of_split) == 1 and not runs[0].leaky
    names: dict[RunId, str] = {}
    shared = []
    for split, members in of_split.items():
        texts = {run: setting_texts(run.settings) for run in members}
        common = set.intersection(*(set(texts[run].values()) for run in members))
        shared.append(_omitted(split, common))
        of_augmentation: dict[str, list[RunId]] = defaultdict(list)
        for run in members:
            of_augmentation[run.augmentation].append(run)
        for augmentation, alike in of_augmentation.items():
            own = set.intersection(*(_of_augmentation(texts[run]) for run in alike)) - common
            if own:
                shared.append(_omitted(f"{split}, {augmentation}", own))
            for run in alike:
                kept = sorted(text for text in texts[run].values() if text not in common | own)
                parts = [run.model, augmentation, *([] if alone else [split]), *kept]
                names[run] = "-".join(parts)
    return names, tuple(shared)


def _of_augmentation(texts: Mapping[str, str]) -> set[str]:
    return {text for key, text in texts.items() if key.startswith(OF_AUGMENTATION)}


def _omitted(name: str, settings: set[str]) -> str:
    return f"{name}: {', '.join(sorted(settings))}" if settings else name

"""Which test cells are explained: right and wrong ones of both classes, from many subjects."""

from collections import defaultdict

import pandas as pd


def choose_cells(cells: pd.DataFrame, count: int) -> list[int]:
    """Choose positions in a table of test cells, the same for the same table.

    The four outcomes (label right or wrong) take turns, and within an outcome the subjects do, so
    that neither a frequent outcome nor a large subject fills the picture.

    Args:
        cells: with ``label``, ``decided`` and ``subject``.
        count: how many; fewer where there are fewer cells.

    Returns:
        Positions, ordered by label, then right before wrong, then position.
    """
    groups = [
        _by_turns(group)
        for _, group in cells.reset_index(drop=True).groupby(["label", "decided"], sort=True)
    ]
    chosen: list[int] = []
    for turn in range(max(map(len, groups), default=0)):
        chosen += [group[turn] for group in groups if turn < len(group)]
    labels, decided = cells["label"].to_numpy(), cells["decided"].to_numpy()
    return sorted(chosen[:count], key=lambda i: (-labels[i], labels[i] != decided[i], i))


def _by_turns(group: pd.DataFrame) -> list[int]:
    """Positions of a group with its subjects taking turns."""
    turns: dict[str, int] = defaultdict(int)
    order: list[tuple[int, int]] = []
    for position, subject in zip(group.index, group["subject"], strict=True):
        order.append((turns[subject], int(position)))
        turns[subject] += 1
    return [position for _, position in sorted(order)]

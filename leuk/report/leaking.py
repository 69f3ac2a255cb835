"""What a leaky split would have gained, beside the honest cells of the same sweep."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean

from leuk.grid.record import Record
from leuk.grid.run_id import LEAKY, RunId


def leaking_gains(records: Iterable[Record]) -> list[str]:
    """One line for each leaky cell that has an honest one of the same model and augmentation.

    Seeds and folds are averaged. The difference is no test: other cells are trained on, or judged.
    """
    scores: dict[RunId, list[float]] = defaultdict(list)
    for record in records:
        value = record.metrics.get("test", {}).get("auroc", {}).get("value")
        if record.status == "complete" and value is not None:
            scores[record.run.configuration].append(value)
    lines = []
    for cell in (cell for cell in scores if cell.split.endswith(LEAKY)):
        honest = _honest(cell, scores)
        if honest is not None:
            gain = mean(scores[cell]) - mean(scores[honest])
            lines.append(
                f"LEAKY: {cell.title} has a test AUROC of {mean(scores[cell]):.3f}, "
                f"{honest.title} of {mean(scores[honest]):.3f}: leaking seems to gain {gain:+.3f}"
            )
    return sorted(lines)


def _honest(leaky: RunId, cells: Iterable[RunId]) -> RunId | None:
    """The honest cell of the same model and augmentation that differs in the fewest settings."""
    settings = set(leaky.settings)
    same = [
        cell
        for cell in cells
        if (cell.model, cell.augmentation) == (leaky.model, leaky.augmentation)
        and not cell.split.endswith(LEAKY)
    ]
    return min(same, key=lambda cell: len(settings ^ set(cell.settings)), default=None)

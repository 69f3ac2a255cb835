"""Apparent gain of leaky splits over splits by patient of the same sweep."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean

from leuk.report.naming import unlike
from leuk.runs.record import Record, RunId


def leaking_gains(records: Iterable[Record]) -> list[str]:
    """Return a sentence for each leaky configuration with a counterpart on a split by patient.

    Seeds and folds are averaged. The difference is not tested, since the splits have different
    training or test images.

    Args:
        records: records of the sweep.
    """
    scores: dict[RunId, list[float]] = defaultdict(list)
    for record in records:
        value = record.metrics.get("test", {}).get("auroc", {}).get("value")
        if record.status == "complete" and value is not None:
            scores[record.run.configuration].append(value)
    texts = []
    for leaky in (run for run in scores if run.leaky):
        honest = _honest(leaky, scores)
        if honest is not None:
            gain = mean(scores[leaky]) - mean(scores[honest])
            texts.append(
                f"LEAKY: {leaky.title} has a test AUROC of {mean(scores[leaky]):.3f}, "
                f"{honest.title} of {mean(scores[honest]):.3f}: apparent gain {gain:+.3f}"
            )
    return sorted(texts)


def _honest(leaky: RunId, runs: Iterable[RunId]) -> RunId | None:
    """Return the most similar run of the same model and augmentation that has no leak."""
    same = [
        run
        for run in runs
        if (run.model, run.augmentation) == (leaky.model, leaky.augmentation) and not run.leaky
    ]
    return min(same, key=lambda run: unlike(leaky, run), default=None)

"""How a model does on each person: an average over cells hides whom it fails."""

import pandas as pd

from leuk.evaluate.sample import Sample


def per_subject(sample: Sample, threshold: float) -> pd.DataFrame:
    """One row for each subject, two for one with cells of both classes.

    Args:
        sample: the cells of one part.
        threshold: cells with at least this score are called leukemic.

    Returns:
        ``subject``, ``label``, ``cells`` (how many), ``correct`` (share called rightly) and
        ``score`` (mean), by label and subject.
    """
    called = sample.scores >= threshold
    table = pd.DataFrame(
        {
            "subject": sample.subjects.astype(str),
            "label": sample.labels,
            "correct": called == (sample.labels == 1),
            "score": sample.scores,
        }
    )
    return (
        table.groupby(["label", "subject"])
        .agg(cells=("score", "size"), correct=("correct", "mean"), score=("score", "mean"))
        .reset_index()[["subject", "label", "cells", "correct", "score"]]
    )

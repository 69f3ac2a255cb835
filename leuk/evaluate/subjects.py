"""How a model does on each person: an average over cells hides whom it fails."""

import numpy as np
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
    right = (sample.scores >= threshold) == (sample.labels == 1)
    names, codes = np.unique(sample.subjects.astype(str), return_inverse=True)
    pairs, rows = np.unique(sample.labels * len(names) + codes, return_inverse=True)
    cells = np.bincount(rows)
    return pd.DataFrame(
        {
            "subject": names[pairs % len(names)],
            "label": pairs // len(names),
            "images": cells,
            "correct": np.bincount(rows, right) / cells,
            "score": np.bincount(rows, sample.scores) / cells,
        }
    )

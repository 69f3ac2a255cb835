"""Performance per subject, since an average over images hides the subjects a model fails on."""

import numpy as np
import pandas as pd

from leuk.evaluate.sample import Sample


def per_subject(sample: Sample, threshold: float) -> pd.DataFrame:
    """Tabulate results per subject and class.

    Args:
        sample: the images of a stage.
        threshold: images with at least this score are called leukemic.

    Returns:
        Columns ``subject``, ``label``, ``images`` (number), ``correct`` (share of correct
        decisions) and ``score`` (mean), ordered by label and subject; two rows for a subject with
        images of both classes.
    """
    right = (sample.scores >= threshold) == (sample.labels == 1)
    names, codes = np.unique(sample.subjects.astype(str), return_inverse=True)
    pairs, rows = np.unique(sample.labels * len(names) + codes, return_inverse=True)
    images = np.bincount(rows)
    return pd.DataFrame(
        {
            "subject": names[pairs % len(names)],
            "label": pairs // len(names),
            "images": images,
            "correct": np.bincount(rows, right) / images,
            "score": np.bincount(rows, sample.scores) / images,
        }
    )

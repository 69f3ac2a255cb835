"""Synthetic images of a sweep: their numbers and examples."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from leuk.data.labels import Label
from leuk.metrics.arrays import Images
from leuk.metrics.synthetic.quality import rows_figure
from leuk.report.figures import Drawn
from leuk.report.gans import quality_examples, quality_records
from leuk.runs.record import Record
from leuk.store import file_in

_SHOWN = 12


def contact_sheet(sweep: Path, records: Sequence[Record]) -> Drawn | None:
    """Return example images by augmentation and class, below real images if kept.

    Args:
        sweep: folder of the sweep.
        records: records of the sweep.

    Returns:
        None if the sweep has no synthetic images, or none are readable.
    """
    sets = quality_records(records)
    rows: dict[str, Images] = {}
    kept = quality_examples(sweep, sets)
    rows |= {name: images[:_SHOWN] for name, images in kept.items() if name.startswith("real")}
    for record in sets:
        for cls, images in _images(sweep, record).items():
            rows.setdefault(f"{record.run.augmentation} {cls}", images)
    if not any(not name.startswith("real") for name in rows):
        return None
    return Drawn(
        "synthetic_images",
        "Synthetic images",
        "The first images of each set, not selected, from the first split, fold and seed that has "
        "it. hem: healthy, all: leukemic.",
        partial(rows_figure, rows),
        (f"Rows of up to {_SHOWN} images each: {', '.join(rows)}.",),
    )


def _images(sweep: Path, record: Record) -> dict[str, Images]:
    """Return the first synthetic images of each class; empty without a readable artifact."""
    recorded = Path(str(record.data["synthetic"].get("artifact")))
    # Only the name is used: the recorded path may be of another host.
    folder = sweep.parent.parent / "artifacts" / "synthetic" / recorded.name
    try:
        pixels = np.load(file_in(folder, "cells.npy"), mmap_mode="r")
        labels = pd.read_csv(file_in(folder, "origin.csv"))["label"].to_numpy()
        found = {label.folder: np.flatnonzero(labels == label)[:_SHOWN] for label in Label}
        return {name: np.asarray(pixels[rows]) for name, rows in found.items() if len(rows)}
    except (OSError, ValueError, KeyError, IndexError):
        return {}

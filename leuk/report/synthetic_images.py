"""The cells that a sweep's GANs made: how many, and a look at them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.labels import Label
from leuk.evaluate.sheets import rows_figure
from leuk.evaluate.vectors import Images
from leuk.grid.record import Record
from leuk.report.drawing import Drawn
from leuk.report.sections import Grid, Section
from leuk.report.synthetic_quality import quality_examples, quality_records
from leuk.store.foreign import file_in

_SHOWN = 12


def synthetic_section(records: Sequence[Record]) -> Section:
    """What was made of which class, and by which GANs.

    Args:
        records: of the sweep.
    """
    made = quality_records(records)
    table = pd.DataFrame([line for record in made for line in _lines(record)])
    shown: Grid | str = "No cell of the sweep was trained with GAN-made cells."
    if made:
        header = ("made by", "split", "fold", "seed", "class", "images", "GAN")
        rows = [tuple(str(value) for value in line) for line in table.itertuples(index=False)]
        shown = Grid(header, tuple(rows))
    return Section("synthetic_images", "Made cells", (shown,), table)


def _lines(record: Record) -> list[dict[str, Any]]:
    made, cell = record.data["synthetic"], record.run
    return [
        {
            "augmentation": cell.augmentation,
            "split": cell.split,
            "fold": cell.fold,
            "seed": cell.seed,
            "class": name,
            "images": count,
            "gan": ", ".join(made.get("gans", [])),
        }
        for name, count in made.get("counts", {}).items()
    ]


def contact_sheet(sweep: Path, records: Sequence[Record]) -> Drawn | None:
    """A row of cells for each augmentation and class, real ones above where they were kept.

    Returns:
        None where nothing was made, or what was made is no longer there.
    """
    made = quality_records(records)
    rows: dict[str, Images] = {}
    kept = quality_examples(sweep, made)
    rows |= {name: cells[:_SHOWN] for name, cells in kept.items() if name.startswith("real")}
    for record in made:
        for cls, cells in _cells(sweep, record).items():
            rows.setdefault(f"{record.run.augmentation} {cls}", cells)
    if not any(not name.startswith("real") for name in rows):
        return None
    return Drawn(
        "synthetic_images",
        "Made cells",
        "The first cells of each set, not chosen: of the first split, fold and seed that has it. "
        "hem: healthy, all: leukemic.",
        partial(rows_figure, rows),
        (f"Rows of up to {_SHOWN} cell images each: {', '.join(rows)}.",),
    )


def _cells(sweep: Path, record: Record) -> dict[str, Images]:
    """The first made cells of each class; none where the artifact is gone or damaged."""
    told = Path(str(record.data["synthetic"].get("artifact")))
    # A record may hold a whole path, which is the place of another host, or anywhere.
    folder = sweep.parent.parent / "artifacts" / "synthetic" / told.name
    try:
        pixels = np.load(file_in(folder, "cells.npy"), mmap_mode="r")
        labels = pd.read_csv(file_in(folder, "origin.csv"))["label"].to_numpy()
        found = {label.folder: np.flatnonzero(labels == label)[:_SHOWN] for label in Label}
        return {name: np.asarray(pixels[rows]) for name, rows in found.items() if len(rows)}
    except (OSError, ValueError, KeyError, IndexError):
        return {}

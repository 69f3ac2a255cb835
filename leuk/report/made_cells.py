"""The cells that a sweep's GANs made: how many, a look at them, and how good they are if judged."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leuk.data.labels import Label
from leuk.evaluate.sheets import rows_figure
from leuk.evaluate.vectors import Images
from leuk.grid.record import Record
from leuk.report.drawing import Drawn
from leuk.report.gan_tables import (
    QUALITY,
    published_parts,
    quality_parts,
    read_quality,
    shown_cells,
)
from leuk.report.sections import Grid, Section
from leuk.store.foreign import file_in

log = logging.getLogger(__name__)

_SHOWN = 12

NOT_JUDGED = """\
None of these GANs has been judged: `leuk synthesize -m name=NAME gan=dcgan,wgan,cgan` with the same
other settings finds them fitted and says how good their cells are; this report then shows it."""

JUDGED = "## How good they are"


def made_with_gans(records: Iterable[Record]) -> list[Record]:
    """One record for each set of made cells, the first."""
    found: dict[str, Record] = {}
    for record in records:
        if made := record.data.get("synthetic"):
            found.setdefault(str(made.get("cells")), record)
    return list(found.values())


def made_section(sweep: Path, records: Sequence[Record]) -> Section:
    """What was made, how good it is, and what the thesis published of its own.

    Args:
        sweep: its folder; GANs are judged in ``<outputs>/synthetic``.
        records: of the sweep.
    """
    made = made_with_gans(records)
    parts: list[Grid | str] = []
    table = pd.DataFrame([line for record in made for line in _lines(record)])
    if made:
        header = ("made by", "split", "fold", "seed", "class", "cells", "GAN")
        rows = [tuple(str(value) for value in line) for line in table.itertuples(index=False)]
        judged, problems = _judged(sweep, made)
        parts = [Grid(header, tuple(rows)), "\n".join(problems)]
        parts += [JUDGED, *quality_parts(judged)[0]] if judged else [NOT_JUDGED]
    else:
        parts.append("No cell of the sweep was trained with GAN-made cells.")
    title = "Made cells, and the thesis's table 2"
    return Section("made_cells", title, (*parts, "## Published", *published_parts()), table)


def _lines(record: Record) -> list[dict[str, Any]]:
    made, cell = record.data["synthetic"], record.cell
    return [
        {
            "augmentation": cell.augmentation,
            "split": cell.split,
            "fold": cell.fold,
            "seed": cell.seed,
            "class": name,
            "cells": count,
            "gan": ", ".join(made.get("gans", [])),
        }
        for name, count in made.get("counts", {}).items()
    ]


def _judged(sweep: Path, records: Iterable[Record]) -> tuple[dict[Path, Any], list[str]]:
    """Reports of the very GANs that these records name, and what cannot be read."""
    names = {name for record in records for name in record.data["synthetic"].get("gans", [])}
    found: dict[Path, Any] = {}
    problems = []
    for path in sorted((sweep.parent.parent / "synthetic").glob(f"*/*/{QUALITY}")):
        try:
            report = read_quality([path])[path.parent]
            if names.intersection(report.get("artefacts", [])):
                quality_parts({path.parent: report})
                found[path.parent] = report
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            problems.append(f"- {path}: cannot be read ({error}); run leuk synthesize again")
    return found, problems


def contact_sheet(sweep: Path, records: Sequence[Record]) -> Drawn | None:
    """A row of cells for each augmentation and class, real ones above where they were kept.

    Returns:
        None where nothing was made, or what was made is no longer there.
    """
    made = made_with_gans(records)
    rows: dict[str, Images] = {}
    try:
        kept = shown_cells(_judged(sweep, made)[0])
    except (OSError, ValueError, KeyError) as error:
        log.warning("made cells that were judged cannot be shown (%s)", error)
        kept = {}
    rows |= {name: cells[:_SHOWN] for name, cells in kept.items() if name.startswith("real")}
    for record in made:
        for cls, cells in _cells(sweep, record).items():
            rows.setdefault(f"{record.cell.augmentation} {cls}", cells)
    if not any(not name.startswith("real") for name in rows):
        return None
    return Drawn(
        "made_cells",
        "Made cells",
        "The first cells of each set, not chosen: of the first split, fold and seed that has it. "
        "hem: healthy, all: leukemic.",
        rows_figure(rows),
        (f"Rows of up to {_SHOWN} cell images each: {', '.join(rows)}.",),
    )


def _cells(sweep: Path, record: Record) -> dict[str, Images]:
    """The first made cells of each class; none where the artefact is gone or damaged."""
    told = Path(str(record.data["synthetic"].get("cells")))
    # A record may hold a whole path, which is the place of another host, or anywhere.
    folder = sweep.parent.parent / "artefacts" / "synthetic" / told.name
    try:
        pixels = np.load(file_in(folder, "cells.npy"), mmap_mode="r")
        labels = pd.read_csv(file_in(folder, "origin.csv"))["label"].to_numpy()
    except (OSError, ValueError, KeyError):
        return {}
    found = {label.folder: np.flatnonzero(labels == label)[:_SHOWN] for label in Label}
    return {name: np.asarray(pixels[rows]) for name, rows in found.items() if len(rows)}

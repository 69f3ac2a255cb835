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
_UNREADABLE = (OSError, ValueError, AttributeError, KeyError, TypeError)

NOT_JUDGED = """\
None of these sets has been judged: too few real or made cells, or a leuk that did not judge them
yet."""

DEEPER = """\
Judged by measures of the cells, which need no network; `leuk synthesize -m name=NAME
gan=dcgan,wgan,cgan` with the same other settings judges them in a network's features, FID among
them, and this report then shows that."""

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
        sweep: its folder; GANs are judged in ``<outputs>/synthetic`` too.
        records: of the sweep.
    """
    made = made_with_gans(records)
    parts: list[Grid | str] = []
    table = pd.DataFrame([line for record in made for line in _lines(record)])
    if made:
        header = ("made by", "split", "fold", "seed", "class", "cells", "GAN")
        rows = [tuple(str(value) for value in line) for line in table.itertuples(index=False)]
        parts = [Grid(header, tuple(rows)), *_quality(sweep, made)]
    else:
        parts.append("No cell of the sweep was trained with GAN-made cells.")
    title = "Made cells, and the thesis's table 2"
    return Section("made_cells", title, (*parts, "## Published", *published_parts()), table)


def _quality(sweep: Path, made: Sequence[Record]) -> list[Grid | str]:
    """How good the cells are, as ``leuk synthesize`` found; else as the sweep itself did."""
    judged, problems = _judged(sweep, made)
    covered = {name for report in judged.values() for name in report["artefacts"]}
    left = [record for record in made if not covered.issuperset(_gans(record))]
    own, unreadable = _own_judgement(left)
    parts: list[Grid | str] = ["\n".join(problems + unreadable)]
    if not judged and not own:
        return [*parts, NOT_JUDGED]
    parts.append(JUDGED)
    if judged:
        named = {folder.name: report for folder, report in judged.items()}
        parts += quality_parts(named)[0]
    return [*parts, *quality_parts(own)[0], DEEPER] if own else parts


def _gans(record: Record) -> list[str]:
    return list(record.data["synthetic"].get("gans", []))


def _own_judgement(records: Iterable[Record]) -> tuple[dict[str, Any], list[str]]:
    """What these records say of their made cells, and which of it cannot be read."""
    found: dict[str, Any] = {}
    problems = []
    for record in records:
        made, cell = record.data["synthetic"], record.cell
        if not made.get("quality"):
            continue
        name = f"{cell.augmentation}-{cell.split}-f{cell.fold}-s{cell.seed}"
        try:
            quality_parts({name: made})
        except _UNREADABLE as error:
            problems.append(f"- {cell.folder}: quality of its made cells: {error!r}")
        else:
            found[f"{name}-{made.get('judged')}" if name in found else name] = made
    return found, problems


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
    names = {name for record in records for name in _gans(record)}
    found: dict[Path, Any] = {}
    problems = []
    for path in sorted((sweep.parent.parent / "synthetic").glob(f"*/*/{QUALITY}")):
        try:
            report = read_quality([path])[path.parent]
            if names.intersection(report.get("artefacts", [])):
                quality_parts({path.parent.name: report})
                found[path.parent] = report
        except _UNREADABLE as error:
            problems.append(f"- {path}: cannot be read ({error}); run leuk synthesize again")
    return found, problems


def contact_sheet(sweep: Path, records: Sequence[Record]) -> Drawn | None:
    """A row of cells for each augmentation and class, real ones above where they were kept.

    Returns:
        None where nothing was made, or what was made is no longer there.
    """
    made = made_with_gans(records)
    rows: dict[str, Images] = {}
    kept = _kept(sweep, made)
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


def _kept(sweep: Path, made: Sequence[Record]) -> dict[str, Images]:
    """Rows of cells that were kept when made ones were judged."""
    artefacts = sweep.parent.parent / "artefacts" / "quality"
    told = [Path(str(record.data["synthetic"].get("judged", ""))).name for record in made]
    folders = [*_judged(sweep, made)[0], *(artefacts / name for name in told if name)]
    try:
        return shown_cells(folders)
    except (OSError, ValueError, KeyError) as error:
        log.warning("made cells that were judged cannot be shown (%s)", error)
        return {}


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

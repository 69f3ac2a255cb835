"""How good the cells of a sweep's GANs are, as the sweep found and as ``leuk synthesize`` did."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leuk.evaluate.vectors import Images
from leuk.grid.record import Record
from leuk.report.gan_tables import (
    QUALITY,
    published_tables,
    quality_tables,
    read_quality,
    synthesis_examples,
)
from leuk.report.sections import Grid, Section

log = logging.getLogger(__name__)

_UNREADABLE = (
    OSError, ValueError, AttributeError, KeyError, TypeError, ArithmeticError, RecursionError
)  # fmt: skip

DEEPER = """\
These were judged by measures of the cells, which need no network. `leuk synthesize -m name=NAME
gan=dcgan,wgan,cgan` with the same other settings judges them in a network's features, with
`extractor=inception` by FID, beside cells of the test part; this report then shows that."""


def quality_records(records: Iterable[Record]) -> list[Record]:
    """One record for each set of made cells, the first that says how good they are."""
    found: dict[str, Record] = {}
    for record in records:
        if made := record.data.get("synthetic"):
            first = found.setdefault(str(made.get("artifact")), record)
            if made.get("quality") and not first.data["synthetic"].get("quality"):
                found[str(made.get("artifact"))] = record
    return list(found.values())


def quality_section(sweep: Path, records: Sequence[Record]) -> Section:
    """Metrics of each set of made cells, and what the thesis published of its own.

    What ``leuk synthesize`` found of a set comes before what the sweep did.

    Args:
        sweep: its folder; ``leuk synthesize`` leaves what it finds in ``<outputs>/synthetic``.
        records: of the sweep.
    """
    made = quality_records(records)
    network, problems = _by_network(sweep, made)
    covered = {
        (gan, cls)
        for report in network.values()
        for gan in report["artifacts"]
        for cls in report["quality"]
    }
    own, unreadable, left = _by_measures(made, covered)
    parts: list[Grid | str] = ["\n".join(problems + unreadable)]
    tables = []
    for found in (_named(network), own):
        if found:
            shown, table = quality_tables(found)
            parts += shown
            tables.append(table)
    parts += [DEEPER] if own else []
    if left:
        parts.append(f"Not judged (too few cells, or by an older leuk): {', '.join(left)}.")
    table = pd.concat(tables) if tables else pd.DataFrame()
    title = "How good made cells are, and the thesis's table 2"
    return Section("synthetic_quality", title, (*parts, "## Published", *published_tables()), table)


def _named(network: Mapping[Path, Any]) -> dict[str, Any]:
    """Reports by the folder they are of; two of a name with that of their sweep."""
    found: dict[str, Any] = {}
    for folder, report in network.items():
        known = folder.name in found
        found[f"{folder.parent.name}/{folder.name}" if known else folder.name] = report
    return found


def _by_measures(
    records: Sequence[Record], covered: set[tuple[str, str]]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """What these records say of their made cells, what of it cannot be read, what is not there.

    Args:
        records: one of each set.
        covered: artifact of a GAN, and class, of which more is known.
    """
    found: dict[str, Any] = {}
    problems, left = [], []
    places = {_place(record) for record in records}
    for record in records:
        made = record.data["synthetic"]
        name = f"{record.run.augmentation} ({_place(record)})"
        if name in found:
            name = f"{name} {', '.join(made.get('gans', []))}"
        asked = [
            cls
            for cls in made.get("counts", {})
            if not any((gan, cls) in covered for gan in made.get("gans", []))
        ]
        judged = made.get("quality", {})
        if asked and not judged:
            left.append(name)
        classes = {cls: judged[cls] for cls in asked if cls in judged}
        where = _place(record) if len(places) > 1 else ""
        report = {"held_out": made.get("held_out"), "quality": classes, "where": where}
        try:
            if classes:
                quality_tables({name: report})
                found[name] = report
        except _UNREADABLE as error:
            problems.append(f"- {record.run.folder}: quality of its made cells: {error!r}")
    return found, problems, left


def _place(record: Record) -> str:
    return f"{record.run.split} fold {record.run.fold} seed {record.run.seed}"


def _by_network(sweep: Path, records: Iterable[Record]) -> tuple[dict[Path, Any], list[str]]:
    """Reports of the very GANs that these records name, and what cannot be read."""
    names = {name for record in records for name in record.data["synthetic"].get("gans", [])}
    found: dict[Path, Any] = {}
    problems = []
    for path in sorted((sweep.parent.parent / "synthetic").glob(f"*/*/{QUALITY}")):
        try:
            report = read_quality([path])[path.parent]
            if names.intersection(report.get("artifacts", [])):
                quality_tables({path.parent.name: report})
                found[path.parent] = report
        except _UNREADABLE as error:
            problems.append(f"- {path}: cannot be read ({error}); run leuk synthesize again")
    return found, problems


def quality_examples(sweep: Path, made: Sequence[Record]) -> dict[str, Images]:
    """Rows of cells that were kept when made ones were judged."""
    artifacts = sweep.parent.parent / "artifacts" / "quality"
    told = [Path(str(record.data["synthetic"].get("quality_artifact", ""))).name for record in made]
    folders = [*_by_network(sweep, made)[0], *(artifacts / name for name in told if name)]
    try:
        return synthesis_examples(folders)
    except (OSError, ValueError, KeyError) as error:
        log.warning("made cells that were judged cannot be shown (%s)", error)
        return {}

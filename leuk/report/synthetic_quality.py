"""Quality of a sweep's synthetic images, from its records and from ``leuk synthesize``."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leuk.metrics.arrays import Images
from leuk.report.gan_tables import (
    QUALITY,
    published_tables,
    quality_tables,
    read_quality,
    synthesis_examples,
)
from leuk.report.sections import Grid, Section
from leuk.runs.record import Record

log = logging.getLogger(__name__)

_UNREADABLE = (
    OSError, ValueError, AttributeError, KeyError, TypeError, ArithmeticError, RecursionError
)  # fmt: skip

DEEPER = """\
These values were computed from measurements of the cells, without a neural network.
`leuk synthesize -m name=NAME gan=dcgan,wgan,cgan` with otherwise the same settings evaluates the
images with the features of a network against test images, and by FID with `extractor=inception`;
this report then includes the result."""


def quality_records(records: Iterable[Record]) -> list[Record]:
    """One record for each set of synthetic images: the first with their quality, else the first."""
    found: dict[str, Record] = {}
    for record in records:
        if synthetic := record.data.get("synthetic"):
            first = found.setdefault(str(synthetic.get("artifact")), record)
            if synthetic.get("quality") and not first.data["synthetic"].get("quality"):
                found[str(synthetic.get("artifact"))] = record
    return list(found.values())


def quality_section(sweep: Path, records: Sequence[Record]) -> Section:
    """Quality of each set of synthetic images, and the values published in the thesis.

    Results of ``leuk synthesize`` take precedence over those in the records.

    Args:
        sweep: folder of the sweep; ``leuk synthesize`` writes to ``<outputs>/synthetic``.
        records: records of the sweep.
    """
    sets = quality_records(records)
    network, problems = _by_network(sweep, sets)
    covered = {
        (gan, cls)
        for report in network.values()
        for gan in report["artifacts"]
        for cls in report["quality"]
    }
    own, unreadable, skipped = _by_measures(sets, covered)
    parts: list[Grid | str] = ["\n".join(problems + unreadable)]
    tables = []
    for found in (_named(network), own):
        if found:
            shown, table = quality_tables(found)
            parts += shown
            tables.append(table)
    parts += [DEEPER] if own else []
    if skipped:
        parts.append(
            f"Not evaluated (too few images, or run by an older leuk): {', '.join(skipped)}."
        )
    table = pd.concat(tables) if tables else pd.DataFrame()
    title = "Quality of synthetic images, and table 2 of the thesis"
    return Section(
        "synthetic_quality", title, (*parts, "## Table 2 of the thesis", *published_tables()), table
    )


def _named(network: Mapping[Path, Any]) -> dict[str, Any]:
    """Return reports by name of their folder, or by sweep and folder if the name occurs twice."""
    found: dict[str, Any] = {}
    for folder, report in network.items():
        known = folder.name in found
        found[f"{folder.parent.name}/{folder.name}" if known else folder.name] = report
    return found


def _by_measures(
    records: Sequence[Record], covered: set[tuple[str, str]]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Quality from the records: reports by name, unreadable ones, and sets without quality.

    Args:
        records: a record of each set.
        covered: pairs of GAN artifact and class that ``leuk synthesize`` evaluated.
    """
    found: dict[str, Any] = {}
    problems, skipped = [], []
    folds = {_fold(record) for record in records}
    for record in records:
        synthetic = record.data["synthetic"]
        name = f"{record.run.augmentation} ({_fold(record)})"
        if name in found:
            name = f"{name} {', '.join(synthetic.get('gans', []))}"
        wanted = [
            cls
            for cls in synthetic.get("counts", {})
            if not any((gan, cls) in covered for gan in synthetic.get("gans", []))
        ]
        quality = synthetic.get("quality", {})
        if wanted and not quality:
            skipped.append(name)
        classes = {cls: quality[cls] for cls in wanted if cls in quality}
        where = _fold(record) if len(folds) > 1 else ""
        report = {"held_out": synthetic.get("held_out"), "quality": classes, "where": where}
        try:
            if classes:
                quality_tables({name: report})
                found[name] = report
        except _UNREADABLE as error:
            problems.append(
                f"- {record.run.folder}: unreadable quality of its synthetic images: {error!r}"
            )
    return found, problems, skipped


def _fold(record: Record) -> str:
    return f"{record.run.split_name} fold {record.run.fold} seed {record.run.seed}"


def _by_network(sweep: Path, records: Iterable[Record]) -> tuple[dict[Path, Any], list[str]]:
    """Return reports of ``leuk synthesize`` on the GANs of these records, and problems."""
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


def quality_examples(sweep: Path, sets: Sequence[Record]) -> dict[str, Images]:
    """Rows of real and synthetic images that were kept when their quality was computed.

    Args:
        sweep: folder of the sweep.
        sets: a record of each set of synthetic images.
    """
    artifacts = sweep.parent.parent / "artifacts" / "quality"
    names = [Path(str(one.data["synthetic"].get("quality_artifact", ""))).name for one in sets]
    folders = [*_by_network(sweep, sets)[0], *(artifacts / name for name in names if name)]
    try:
        return synthesis_examples(folders)
    except (OSError, ValueError, KeyError) as error:
        log.warning("examples of synthetic images cannot be shown (%s)", error)
        return {}

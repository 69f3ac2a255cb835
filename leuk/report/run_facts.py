"""What a sweep was made of and how: data and split, command, versions, hardware and time."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd

from leuk.config.stored import read_plain
from leuk.data.labels import Label
from leuk.errors import StoreError
from leuk.grid.record import Record
from leuk.grid.run_id import RunId
from leuk.report.results import Configuration, Run
from leuk.report.sections import Grid, Section

STAGES = ("train", "val", "test")

DATA_NOTES = """\
Images of each part, and persons: linked subjects are one. Whoever is linked to the test part leaves
the training part; what was left out is said below. Effective patients: how many equally large
patients would weigh as unequally as these, (sum n)^2 / (sum n^2) over the images n per patient; a
dash where neither record nor predictions know."""

TIME_NOTES = """\
Seconds as the records have them: a stage that found its artifact made has next to none, and cells
that ran at the same time took less by the clock than together."""


def data_section(
    sweep: Path, records: Sequence[Record], groups: Sequence[Configuration] = ()
) -> Section:
    """Who is in which part, what was left out and added, and what an audit found.

    Args:
        sweep: its folder; audits lie in ``<outputs>/data``.
        records: of the sweep.
        groups: with the predictions, for records from before effective patients were counted.
    """
    runs = {run.id: run for group in groups for run in group.runs}
    told = [record for record in records if record.data.get("counts")]
    if not told:
        said = "No record of the sweep says what its data were."
        return Section("data", "Data and split", (said,), pd.DataFrame())
    lines: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for record in told:
        key = (record.run.split, record.run.fold, json.dumps(record.data["counts"]))
        lines.setdefault(key, [_counts(record, stage, runs) for stage in STAGES])
    table = pd.DataFrame([line for key in sorted(lines) for line in lines[key]])
    header = ("split", "fold", "stage", "leukemic", "healthy", "patients", *_EFFECTIVE)
    rows = [tuple(str(value) for value in line) for line in table.itertuples(index=False)]
    notes = [*_left_out(told), *_added(told), *_fingerprints(told), *_audits(sweep, told)]
    listed = "\n".join(f"- {text}" for text in notes)
    return Section("data", "Data and split", (Grid(header, tuple(rows)), DATA_NOTES, listed), table)


_EFFECTIVE = {"eff. leukemic patients": Label.ALL, "eff. healthy patients": Label.HEM}


def _counts(record: Record, stage: str, runs: Mapping[RunId, Run]) -> dict[str, Any]:
    counts = record.data["counts"].get(stage, {})
    return {
        "split": record.run.split,
        "fold": record.run.fold,
        "stage": stage,
        "leukemic": counts.get("all", ""),
        "healthy": counts.get("hem", ""),
        "patients": counts.get("subjects", ""),
        **{
            f"effective_{label.folder}": _effective(record, stage, label, runs)
            for label in _EFFECTIVE.values()
        },
    }


def _effective(
    record: Record, stage: str, label: Label, runs: Mapping[RunId, Run]
) -> float | Literal["-"]:
    """Effective patients of a class: of the record, else of the predictions, else a dash."""
    known = record.data["counts"].get(stage, {}).get(f"effective_{label.folder}")
    if known is not None:
        return float(known)
    run = runs.get(record.run)
    if run is None or stage not in ("val", "test"):
        return "-"
    part = run.val if stage == "val" else run.test
    return round(part.sample.effective_subjects_of(label), 2)


def _left_out(records: Iterable[Record]) -> list[str]:
    """One sentence for each reason and split."""
    found = {
        (record.run.split, record.run.fold, why): count
        for record in records
        for why, count in record.data.get("dropped", {}).items()
    }
    return [
        f"{split}, fold {fold}: {n} left out of {why}" for (split, fold, why), n in found.items()
    ]


def _added(records: Iterable[Record]) -> list[str]:
    """What each augmentation added, by split and fold."""
    found: dict[tuple[str, str, int], str] = {}
    for record in records:
        added = record.data.get("synthetic", {}).get("counts") or record.data.get("oversampled")
        if added:
            said = " and ".join(f"{count} {label}" for label, count in added.items())
            kind = "oversampled" if "oversampled" in record.data else "synthetic"
            key = (record.run.augmentation, record.run.split, record.run.fold)
            found.setdefault(key, f"{said} cells {kind}")
    return [f"{name} ({split}, fold {fold}): {said}" for (name, split, fold), said in found.items()]


def _fingerprints(records: Iterable[Record]) -> list[str]:
    counts = Counter(str(record.data.get("fingerprint", "?")) for record in records)
    named = ", ".join(f"{name} ({count} cells)" for name, count in counts.items())
    more = "; cells of other data do not compare" if len(counts) > 1 else ""
    return [f"Fingerprint of the data: {named}{more}"]


def _audits(sweep: Path, records: Sequence[Record]) -> list[str]:
    """What ``leuk data`` found in the same images, told by the same counts of the same split."""
    counts = [record.data["counts"] for record in records]
    said = []
    for path in sorted((sweep.parent.parent / "data").glob("*/audit.json")):
        try:
            found: Mapping[str, Any] = json.loads(path.read_text())
            if found["split"].get("counts") not in counts:
                continue
            said.append(
                f"Audit {path.parent.name}: {len(found['problems'])} problems, "
                f"{len(found['groups'])} groups of linked subjects "
                f"({', '.join(found['groups']) or 'none'}); see audit.html beside it"
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said.append(f"Audit {path}: cannot be read ({error}); run leuk data again")
    return said or [
        "No audit of these images beside the sweep: `leuk data` looks for their faults."
    ]


def run_section(sweep: Path, records: Sequence[Record]) -> Section:
    """Command, time, hardware and versions."""
    parts: list[Grid | str] = [_command(sweep), *_times(records), *_made_with(records)]
    return Section("run", "How it was run", tuple(parts), pd.DataFrame(map(_facts, records)))


def last_command(sweep: Path) -> str:
    """What was typed last, from what Hydra left; empty where it left nothing."""
    multirun = sweep / "multirun.yaml"
    single = sorted(sweep.glob("*/.hydra/overrides.yaml"))
    try:
        if multirun.is_file():
            task = read_plain(multirun)["hydra"]["overrides"]["task"]
            return shlex.join(["leuk", "train", "-m", *map(str, task or ())])
        if single:
            return shlex.join(["leuk", "train", *map(str, read_plain(single[0]))])
    except (StoreError, KeyError, TypeError):
        return ""
    return ""


def common_overrides(sweep: Path, groups: Iterable[Configuration]) -> list[str]:
    """What every line of a sweep was given alike; of seeds and folds all that there are."""
    found: dict[str, list[str]] = {}
    lines = [group.records for group in groups if group.records]
    for records in lines:
        path = sweep / records[0].run.folder / ".hydra" / "overrides.yaml"
        try:
            given = [str(text).partition("=")[::2] for text in read_plain(path)]
        except (StoreError, TypeError):
            return []
        for key, value in given:
            found.setdefault(key, []).append(value)
    cells = [record.run for records in lines for record in records]
    several = {"seed": {cell.seed for cell in cells}, "split.fold": {cell.fold for cell in cells}}
    kept = []
    for key, values in found.items():
        alike = {str(value) for value in sorted(several.get(key, ()))} or set(values)
        if len(values) == len(lines) and (key in several or len(alike) == 1):
            kept.append(f"{key}={','.join(sorted(alike, key=lambda text: (len(text), text)))}")
    return kept


def _command(sweep: Path) -> str:
    command = last_command(sweep)
    return f"Last command: `{command}`" if command else "Hydra left no command beside the records."


def _times(records: Iterable[Record]) -> list[Grid | str]:
    """Time of each stage, over all cells."""
    seconds: dict[str, list[float]] = {}
    for record in records:
        for stage, value in record.timings.items():
            seconds.setdefault(stage, []).append(value)
    if not seconds:
        return []
    rows = [
        (stage, str(len(of)), *(duration_text(x) for x in (median(of), max(of), sum(of))))
        for stage, of in seconds.items()
    ]
    return [
        "## Time",
        Grid(("stage", "runs", "median", "longest", "together"), tuple(rows)),
        TIME_NOTES,
    ]


def _made_with(records: Sequence[Record]) -> list[Grid | str]:
    """Hardware and versions, and how many cells had them."""
    devices = Counter(
        (str(record.device.get("name")), str(record.device.get("precision")))
        for record in records
        if record.device
    )
    versions = Counter(item for record in records for item in record.versions.items())
    parts: list[Grid | str] = []
    if devices:
        rows = [(*device, str(count)) for device, count in devices.items()]
        parts += ["## Hardware", Grid(("device", "precision", "runs"), tuple(rows))]
    if versions:
        named = [(name, version, str(count)) for (name, version), count in versions.items()]
        parts += ["## Versions", Grid(("library", "version", "runs"), tuple(named))]
    return parts


def _facts(record: Record) -> dict[str, Any]:
    """A line of the CSV: everything that is not a figure of merit."""
    return {
        "run": record.run.folder,
        "status": record.status,
        "fingerprint": record.fingerprint,
        "device": record.device.get("name"),
        "precision": record.device.get("precision"),
        **{f"{stage}_s": value for stage, value in record.timings.items()},
        **record.versions,
    }


def duration_text(seconds: float) -> str:
    """``0.4 s``, ``51 s``, ``4.2 min`` or ``1.3 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

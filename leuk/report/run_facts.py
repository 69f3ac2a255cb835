"""Data and split of a sweep, its command, times, hardware and versions."""

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
from leuk.report.results import Configuration, Run
from leuk.report.sections import Grid, Section
from leuk.runs.record import Record, RunId

STAGES = ("train", "val", "test")

DATA_NOTES = """\
Numbers of images and patients by stage; linked subjects count as one patient. In the list below,
hem is the healthy and all the leukemic class. Training images of patients who are linked to the
test set are left out; the list below counts them. Effective patients (eff.): number of patients
with equally many images that would give the same precision, (sum n)^2 / (sum n^2) over the images n
per patient; a dash means that neither record nor predictions contain it."""

TIME_NOTES = """\
Times are from the records. A step that reused an existing artifact takes almost no time. Runs in
parallel finish earlier than the sum suggests."""


def data_section(
    sweep: Path, records: Sequence[Record], configurations: Sequence[Configuration] = ()
) -> Section:
    """Images and patients by stage, excluded and added images, and audits of the data.

    Args:
        sweep: folder of the sweep; audits are in ``<outputs>/data``.
        records: records of the sweep.
        configurations: configurations with predictions, needed for older records without effective
            patients.
    """
    runs = {run.id: run for configuration in configurations for run in configuration.runs}
    counted = [record for record in records if record.data.get("counts")]
    if not counted:
        text = "No record of the sweep describes its data."
        return Section("data", "Data and split", (text,), pd.DataFrame())
    counts: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for record in counted:
        key = (record.run.split_name, record.run.fold, json.dumps(record.data["counts"]))
        counts.setdefault(key, [_counts(record, stage, runs) for stage in STAGES])
    table = pd.DataFrame([row for key in sorted(counts) for row in counts[key]])
    header = ("split", "fold", "stage", "leukemic", "healthy", "patients", *_EFFECTIVE)
    rows = [tuple(str(value) for value in row) for row in table.itertuples(index=False)]
    notes = [*_excluded(counted), *_added(counted), *_fingerprints(counted)]
    notes += _audits(sweep, counted)
    listed = "\n".join(f"- {text}" for text in notes)
    return Section("data", "Data and split", (Grid(header, tuple(rows)), DATA_NOTES, listed), table)


_EFFECTIVE = {"eff. leukemic patients": Label.ALL, "eff. healthy patients": Label.HEM}


def _counts(record: Record, stage: str, runs: Mapping[RunId, Run]) -> dict[str, Any]:
    counts = record.data["counts"].get(stage, {})
    return {
        "split": record.run.split_name,
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
    """Effective patients of a class, from the record or else the predictions; else a dash."""
    known = record.data["counts"].get(stage, {}).get(f"effective_{label.folder}")
    if known is not None:
        return float(known)
    run = runs.get(record.run)
    if run is None or stage not in ("val", "test"):
        return "-"
    predictions = run.val if stage == "val" else run.test
    return round(predictions.sample.effective_subjects_of(label), 2)


def _excluded(records: Iterable[Record]) -> list[str]:
    """Return a sentence on the excluded images of each split, fold and reason."""
    found = {
        (record.run.split_name, record.run.fold, why): count
        for record in records
        for why, count in record.data.get("dropped", {}).items()
    }
    return [
        f"{split}, fold {fold}: {n} images left out of {why}"
        for (split, fold, why), n in found.items()
    ]


def _added(records: Iterable[Record]) -> list[str]:
    """Images that each augmentation added, by split and fold."""
    found: dict[tuple[str, str, int], str] = {}
    for record in records:
        added = record.data.get("synthetic", {}).get("counts") or record.data.get("oversampled")
        if added:
            counts = " and ".join(f"{count} {label}" for label, count in added.items())
            kind = "oversampled" if "oversampled" in record.data else "synthetic"
            key = (record.run.augmentation, record.run.split_name, record.run.fold)
            found.setdefault(key, f"{counts} images added ({kind})")
    return [f"{name} ({split}, fold {fold}): {text}" for (name, split, fold), text in found.items()]


def _fingerprints(records: Iterable[Record]) -> list[str]:
    counts = Counter(str(record.data.get("fingerprint", "?")) for record in records)
    named = ", ".join(f"{name} ({count} runs)" for name, count in counts.items())
    more = "; runs on different data cannot be compared" if len(counts) > 1 else ""
    return [f"Fingerprint of the data: {named}{more}"]


def _audits(sweep: Path, records: Sequence[Record]) -> list[str]:
    """Results of ``leuk data`` for the same images, recognized by the counts of the split."""
    counts = [record.data["counts"] for record in records]
    texts = []
    for path in sorted((sweep.parent.parent / "data").glob("*/audit.json")):
        try:
            found: Mapping[str, Any] = json.loads(path.read_text())
            if found["split"].get("counts") not in counts:
                continue
            texts.append(
                f"Audit {path.parent.name}: {len(found['problems'])} problem(s), "
                f"{len(found['groups'])} group(s) of linked subjects "
                f"({', '.join(found['groups']) or 'none'}); details in its audit.html"
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            texts.append(f"Audit {path}: unreadable ({error}); run leuk data again")
    return texts or ["No audit of these images was found; `leuk data` checks them for errors."]


def run_section(sweep: Path, records: Sequence[Record]) -> Section:
    """Command, time, hardware and versions."""
    parts: list[Grid | str] = [_command(sweep), *_times(records), *_environment(records)]
    return Section(
        "run", "Commands, time and versions", tuple(parts), pd.DataFrame(map(_facts, records))
    )


def last_command(sweep: Path) -> str:
    """Return the last command line, from Hydra's files; empty without them."""
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


def common_overrides(sweep: Path, configurations: Iterable[Configuration]) -> list[str]:
    """Return the overrides common to all configurations of a sweep, with all seeds and folds.

    Args:
        sweep: folder of the sweep.
        configurations: all configurations of the sweep.
    """
    found: dict[str, list[str]] = {}
    recorded = [one.records for one in configurations if one.records]
    for records in recorded:
        path = sweep / records[0].run.folder / ".hydra" / "overrides.yaml"
        try:
            given = [str(text).partition("=")[::2] for text in read_plain(path)]
        except (StoreError, TypeError):
            return []
        for key, value in given:
            found.setdefault(key, []).append(value)
    runs = [record.run for records in recorded for record in records]
    several = {"seed": {run.seed for run in runs}, "split.fold": {run.fold for run in runs}}
    kept = []
    for key, values in found.items():
        alike = {str(value) for value in sorted(several.get(key, ()))} or set(values)
        if len(values) == len(recorded) and (key in several or len(alike) == 1):
            kept.append(f"{key}={','.join(sorted(alike, key=lambda text: (len(text), text)))}")
    return kept


def _command(sweep: Path) -> str:
    command = last_command(sweep)
    return f"Last command: `{command}`" if command else "The command is not recorded."


def _times(records: Iterable[Record]) -> list[Grid | str]:
    """Time of each step, over all runs."""
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
        Grid(("step", "runs", "median", "longest", "sum"), tuple(rows)),
        TIME_NOTES,
    ]


def _environment(records: Sequence[Record]) -> list[Grid | str]:
    """Hardware and versions, with numbers of runs."""
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
    """Return a row of the CSV file: status, environment and times of a run."""
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

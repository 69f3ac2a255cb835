"""Data and split of a sweep, its command, times, hardware and versions."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leuk.config.stored import read_plain
from leuk.data.labels import Label
from leuk.errors import StoreError
from leuk.report.load import Configuration, Run
from leuk.report.table import (
    Column,
    Heading,
    Items,
    Paragraph,
    Section,
    Table,
    Text,
    Written,
    code,
    number,
    text,
)
from leuk.runs.record import Record

DATA_NOTES = """\
Numbers of images and patients by stage; linked subjects count as one patient. In the list below,
hem is the healthy and all the leukemic class. Training images of patients who are linked to the
test set are left out; the list below counts them. Effective patients (eff.): number of patients
with equally many images that would give the same precision, (sum n)^2 / (sum n^2) over the images n
per patient; a dash means that neither record nor predictions contain it."""

TIME_NOTES = """\
Times are from the records. A step that reused an existing artifact takes almost no time. Runs in
parallel finish earlier than the sum suggests."""

_COUNTS = {
    "split": text("split"),
    "fold": Column(("fold",), str),
    "stage": text("stage"),
    "leukemic": Column(("leukemic",), str),
    "healthy": Column(("healthy",), str),
    "patients": Column(("patients",), str),
    "eff. leukemic patients": Column(("effective_all",), str),
    "eff. healthy patients": Column(("effective_hem",), str),
}


def data_section(
    sweep: Path, records: Sequence[Record], configurations: Sequence[Configuration] = ()
) -> Section:
    """Images and patients by stage, excluded and added images, and audits of the data.

    Older records lack effective patients, which then follow from the configurations' predictions.
    """
    runs = {run.id: run for configuration in configurations for run in configuration.runs}
    counted = [record for record in records if record.data.get("counts")]
    if not counted:
        nothing = "No record of the sweep describes its data."
        return Section("data", "Data and split", (nothing,), pd.DataFrame())
    rows: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    excluded: dict[tuple[str, int, str], int] = {}
    added: dict[tuple[str, str, int], str] = {}
    for record in counted:
        data, split, fold = record.data, record.run.split_name, record.run.fold
        key = split, fold, json.dumps(data["counts"])
        if key not in rows:
            rows[key] = [
                {"split": split, "fold": fold, "stage": stage}
                | _counts(data["counts"].get(stage, {}), stage, runs.get(record.run))
                for stage in ("train", "val", "test")
            ]
        for why, count in data.get("dropped", {}).items():
            excluded[split, fold, why] = count
        if images := data.get("synthetic", {}).get("counts") or data.get("oversampled"):
            listed = " and ".join(f"{count} {label}" for label, count in images.items())
            kind = "oversampled" if "oversampled" in data else "synthetic"
            where = record.run.augmentation, split, fold
            added.setdefault(where, f"{listed} images added ({kind})")
    prints = Counter(str(record.data.get("fingerprint", "?")) for record in counted)
    named = ", ".join(f"{name} ({count} runs)" for name, count in prints.items())
    more = "; runs on different data cannot be compared" if len(prints) > 1 else ""
    notes = [
        f"{split}, fold {fold}: {count} images left out of {why}"
        for (split, fold, why), count in excluded.items()
    ]
    notes += [
        f"{name} ({split}, fold {fold}): {note}" for (name, split, fold), note in added.items()
    ]
    notes.append(f"Fingerprint of the data: {named}{more}")
    audits = _audits(sweep, [record.data["counts"] for record in counted])
    table = pd.DataFrame([row for key in sorted(rows) for row in rows[key]])
    blocks = (Table(table, _COUNTS), DATA_NOTES, Items((*notes, *audits)))
    return Section("data", "Data and split", blocks, table)


def _counts(counts: Mapping[str, Any], stage: str, run: Run | None) -> dict[str, Any]:
    """Images, patients and effective patients of a stage; a dash if the latter are unknown."""
    values = {
        "leukemic": counts.get("all", ""),
        "healthy": counts.get("hem", ""),
        "patients": counts.get("subjects", ""),
    }
    for label in (Label.ALL, Label.HEM):
        key = f"effective_{label.folder}"
        values[key] = "-" if counts.get(key) is None else float(counts[key])
        if values[key] == "-" and run is not None and stage != "train":
            sample = getattr(run, stage).sample
            values[key] = round(sample.effective_subjects_of(label), 2)
    return values


def _audits(sweep: Path, counts: Sequence[object]) -> list[Text]:
    """Results of ``leuk data`` for the same images, recognized by the counts of the split."""
    texts: list[Text] = []
    for path in sorted((sweep.parent.parent / "data").glob("*/audit.json")):
        try:
            found: Mapping[str, Any] = json.loads(path.read_text())
            if found["split"].get("counts") in counts:
                linked = found["linked_patients"]
                texts.append(
                    f"Audit {path.parent.name}: {len(found['problems'])} problem(s), "
                    f"{len(linked)} patient(s) with several subject numbers "
                    f"({', '.join(linked) or 'none'}); details in its audit.html"
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            texts.append(f"Audit {path}: unreadable ({error}); run leuk data again")
    return texts or [
        ("No audit of these images was found; ", code("leuk data"), " checks them for errors.")
    ]


def run_section(sweep: Path, records: Sequence[Record]) -> Section:
    """Command, time, hardware and versions."""
    command = last_command(sweep)
    known: Text = ("Last command: ", code(command)) if command else "The command is not recorded."
    blocks: list[Written | str] = [Paragraph(known)]
    times = [(step, value) for record in records for step, value in record.timings.items()]
    if times:
        by_step = pd.DataFrame(times, columns=["step", "seconds"]).groupby("step", sort=False)
        rows = by_step["seconds"].agg(["count", "median", "max", "sum"]).reset_index()
        blocks += [Heading("Time"), Table(rows, _TIMES), TIME_NOTES]
    devices = [
        (str(record.device.get("name")), str(record.device.get("precision")))
        for record in records
        if record.device
    ]
    versions = [item for record in records for item in record.versions.items()]
    for title, names, found in (
        ("Hardware", ["device", "precision"], devices),
        ("Versions", ["library", "version"], versions),
    ):
        if found:
            counts = [(*key, count) for key, count in Counter(found).items()]
            rows = pd.DataFrame(counts, columns=[*names, "runs"])
            columns = {**{name: text(name) for name in names}, "runs": number("runs", "d")}
            blocks += [Heading(title), Table(rows, columns)]
    table = pd.DataFrame(
        [
            {
                "run": record.run.folder,
                "status": record.status,
                "fingerprint": record.fingerprint,
                "device": record.device.get("name"),
                "precision": record.device.get("precision"),
                **{f"{step}_s": value for step, value in record.timings.items()},
                **record.versions,
            }
            for record in records
        ]
    )
    return Section("run", "Commands, time and versions", blocks, table)


def last_command(sweep: Path) -> str:
    """Return the last command line, from Hydra's files; empty without them."""
    multirun = sweep / "multirun.yaml"
    single = sorted(sweep.glob("*/.hydra/overrides.yaml"))
    try:
        if multirun.is_file():
            task = read_plain(multirun)["hydra"]["overrides"]["task"]
            return shlex.join(["leuk", "train", "-m", *map(str, task or ())])
        return shlex.join(["leuk", "train", *map(str, read_plain(single[0]))]) if single else ""
    except (StoreError, KeyError, TypeError):
        return ""


def common_overrides(sweep: Path, configurations: Sequence[Configuration]) -> list[str]:
    """Return the overrides common to all configurations of a sweep, with all seeds and folds."""
    recorded = [one.records for one in configurations if one.records]
    found: dict[str, list[str]] = {}
    for records in recorded:
        path = sweep / records[0].run.folder / ".hydra" / "overrides.yaml"
        try:
            for override in read_plain(path):
                key, _, value = str(override).partition("=")
                found.setdefault(key, []).append(value)
        except (StoreError, TypeError):
            return []
    runs = [record.run for records in recorded for record in records]
    several = {
        "seed": {str(run.seed) for run in runs},
        "split.fold": {str(run.fold) for run in runs},
    }
    kept = []
    for key, values in found.items():
        alike = sorted(several.get(key, set(values)), key=lambda value: (len(value), value))
        if len(values) == len(recorded) and (key in several or len(alike) == 1):
            kept.append(f"{key}={','.join(alike)}")
    return kept


def duration_text(seconds: float) -> str:
    """``0.4 s``, ``51 s``, ``4.2 min`` or ``1.3 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_TIMES = {
    "step": text("step"),
    "runs": number("count", "d"),
    "median": Column(("median",), duration_text),
    "longest": Column(("max",), duration_text),
    "sum": Column(("sum",), duration_text),
}

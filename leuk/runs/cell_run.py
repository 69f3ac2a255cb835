"""The life of one cell: data, GAN, fit, test, explain, record."""

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.audit import count_cuts, framing_warning
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import LeukError, StoreError
from leuk.grid.record import Record
from leuk.grid.state import LOCK, State, look_at
from leuk.runs.classifier_fit import fitted_classifier, forget_fit
from leuk.runs.disk import told_of_disk
from leuk.runs.identity import begin, current_hydra, folder_of, sweep_of, uses_gan
from leuk.runs.judging import judge
from leuk.runs.launching import place
from leuk.runs.made_quality import judged_once, told_of
from leuk.runs.progress import clock
from leuk.runs.synthesis import repeated_rows, synthesise
from leuk.store.atomic import write_text

log = logging.getLogger(__name__)

SETTINGS = ".hydra"
"""Folder in a cell's that holds the settings it is run with, as Hydra would leave them there."""

FAILED = ".failed"
"""File in a sweep's folder that names its first failure, where that ends the sweep."""

_PATIENCE = 1.0
"""Seconds to wait for a cell's lock: who only looks whether it is held holds it for an instant."""

LIBRARIES = ("leuk", "torch", "torchvision", "lightning", "torchmetrics", "captum", "hydra-core")


def run_cell(cfg: DictConfig) -> None:
    """Run one cell unless its record says that it is complete; leave a record in any case.

    A failure is taken down in the record and logged, not raised, so that a sweep goes on; the
    command reads the records to tell how it went.
    """
    hydra_cfg = current_hydra()
    record, folder = begin(cfg, hydra_cfg), folder_of(cfg, hydra_cfg)
    if not _is_to_run(cfg, folder, record):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK).acquire(timeout=_PATIENCE)
    except Timeout:
        log.warning("%s: another process runs it; left to that one", record.cell.folder)
        return
    # Not "with lock", which would acquire it a second time and release it once.
    with held:
        # Once more: another process may have run it meanwhile.
        if not _is_to_run(cfg, folder, record, ours=True):
            return
        place(cfg, hydra_cfg)
        _keep_settings(cfg, hydra_cfg, folder)
        _run(cfg, folder, record)
    if record.status == "complete":
        auroc = record.metrics["test"]["auroc"]["value"]
        took = clock(record.timings["total"])
        log.info("%s: done in %s, test AUROC %.3f, %s", record.cell.folder, took, auroc, folder)
    elif cfg.grid.fail_fast:
        write_text(sweep_of(cfg) / FAILED, record.cell.folder)


def _is_to_run(cfg: DictConfig, folder: Path, record: Record, ours: bool = False) -> bool:
    """Whether a cell is to be run, and if not, why, in the log."""
    name, found = record.cell.folder, look_at(folder, record, ours)
    if found.state == State.COMPLETE:
        log.info("%s: complete already", name)
        explained = found.record.explanations if found.record else {}
        known = {*explained, *explained.get("cohort", {}).get("left_out", {})}
        lacking = [str(method) for method in cfg.explain if method not in known]
        if lacking:
            log.warning(
                "%s: not explained with %s; leuk explain run=%s explains a complete run",
                *(name, ", ".join(lacking), folder),
            )
    elif found.state in (State.OTHER, State.UNREADABLE):
        # Seldom, as this is looked for before any work: another sweep was quicker.
        log.error("%s: left as it is: %s: %s", name, found.state, found.said)
    elif cfg.grid.fail_fast and (failed := sweep_of(cfg) / FAILED).exists():
        log.warning("%s: not begun, as %s failed", name, failed.read_text(encoding="utf-8"))
    else:
        return True
    return False


def _keep_settings(cfg: DictConfig, hydra_cfg: DictConfig, folder: Path) -> None:
    """Write the cell's settings while its folder is ours; Hydra would write before it is."""
    write_text(folder / SETTINGS / "config.yaml", OmegaConf.to_yaml(cfg))
    write_text(folder / SETTINGS / "overrides.yaml", OmegaConf.to_yaml(hydra_cfg.overrides.task))


def _run(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Live through one cell, and write its record whatever happens."""
    name = record.cell.folder
    started = time.perf_counter()
    try:
        record.versions = {"python": platform.python_version()}
        record.versions |= {name: version(name) for name in LIBRARIES}
        with told_of_disk(folder):
            record.write(folder)
            _live(cfg, folder, record)
        record.status = "complete"
    except LeukError as error:
        record.fail(error)
        log.error("%s: failed: %s", name, error)
    except Exception as error:
        record.fail(error)
        log.exception("%s: failed", name)
    record.timings["total"] = round(time.perf_counter() - started, 3)
    _leave(folder, record)


def _leave(folder: Path, record: Record) -> None:
    """Write how a cell ended, or say that this cannot be: then it counts as stopped."""
    try:
        with told_of_disk(folder):
            record.write(folder)
    except StoreError as error:
        record.fail(error)
        log.error("%s: its record cannot be written: %s", record.cell.folder, error)
    else:
        if record.status == "complete":
            forget_fit(folder)


def _live(cfg: DictConfig, folder: Path, record: Record) -> None:
    with _timed(record, "data"):
        data = _open_data(cfg, record)
    with _timed(record, "augmentation"):
        _augment(cfg, data, record)
        if cfg.fit.equal_updates:
            data.images_per_epoch = len(data.split.train)
        record.data["epoch"] = data.expected_epoch()
    with _timed(record, "fit"):
        classifier = fitted_classifier(cfg, folder, data, record)
    with _timed(record, "test"):
        judge(cfg, folder, data, classifier, record)


def _open_data(cfg: DictConfig, record: Record) -> CNMCDataModule:
    data: CNMCDataModule = instantiate(
        cfg.data, split=instantiate(cfg.split), transforms=instantiate(cfg.transforms)
    )
    data.prepare_data()
    data.setup()
    record.data = {
        "fingerprint": data.dataset.store.fingerprint,
        "files": data.listing(),
        "counts": data.counts(),
        "dropped": data.split.dropped,
        "scale": {**asdict(scale := data.scale()), "input": data.resolution},
    }
    log.info("%s: %s", record.cell.folder, _counted(record))
    if scale.frame is None and data.framing != "cell":
        log.warning(
            "%s: data.frame=null: images of %s; leuk predict refuses other sizes unless they show "
            "the same field of view; set data.frame=450 for reduced copies of C-NMC's frames",
            *(record.cell.folder, scale.shown),
        )
    for why, count in data.split.dropped.items():
        log.info("%s: left out %d cells of %s", record.cell.folder, count, why)
    if data.split.leaky:
        record.warnings.append(f"LEAKY: {data.split.leaky}")
        log.warning("%s: LEAKY: %s", record.cell.folder, data.split.leaky)
    cuts = count_cuts(data.dataset.cells, data.dataset.store)
    if text := framing_warning(data.framing, cuts):
        record.warnings.append(text)
        log.warning("%s: %s", record.cell.folder, text)
    return data


def _augment(cfg: DictConfig, data: CNMCDataModule, record: Record) -> None:
    """Add what the augmentation adds to the training part, and take it down."""
    if uses_gan(cfg):
        if made := synthesise(cfg, data):
            data.add_synthetic(made.pixels, made.origin["label"].to_numpy(np.int64))
            added = made.origin["label"].value_counts().to_dict()
            record.data["synthetic"] = {
                "counts": {label.folder: added[label] for label in Label if label in added},
                "gans": sorted(set(made.origin["gan"])),
                "cells": made.folder.name,
                **judged_once(cfg, data, made),
            }
            for text in told_of(record.data["synthetic"], cfg.augmentation.name):
                record.warnings.append(text)
                log.warning("%s: %s", record.cell.folder, text)
            return
    elif cfg.augmentation.name == "oversample":
        repeated = repeated_rows(cfg, data)
        if repeated:
            data.repeat(np.concatenate(list(repeated.values())))
            record.data["repeated"] = {k.folder: len(rows) for k, rows in repeated.items()}
            return
    else:
        return
    record.warnings.append("augmentation: healthy cells are not the fewer; nothing was added")


def _counted(record: Record) -> str:
    parts = [
        f"{stage} {counts['all']} all + {counts['hem']} hem of {counts['subjects']} subjects"
        for stage, counts in record.data["counts"].items()
    ]
    return ", ".join(parts)


@contextmanager
def _timed(record: Record, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        record.timings[stage] = round(time.perf_counter() - started, 3)

"""The life of one cell: data, GAN, fit, test, explain, record."""

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import LeukError, StoreError
from leuk.grid.record import FILE, Record
from leuk.runs.classifier_fit import fitted_classifier
from leuk.runs.identity import cell_of, current_hydra, fingerprint_of, folder_of, uses_gan
from leuk.runs.judging import judge
from leuk.runs.progress import clock
from leuk.runs.synthesis import repeated_rows, synthesise

log = logging.getLogger(__name__)

LOCK = ".lock"

LIBRARIES = ("leuk", "torch", "torchvision", "lightning", "torchmetrics", "captum", "hydra-core")


def run_cell(cfg: DictConfig) -> None:
    """Run one cell unless its record says that it is complete; leave a record in any case.

    A failure is taken down in the record and logged, not raised, so that a sweep goes on; the
    command reads the records to tell how it went.
    """
    hydra_cfg = current_hydra()
    cell, folder = cell_of(cfg, hydra_cfg), folder_of(cfg, hydra_cfg)
    record = Record(cell, fingerprint_of(cfg))
    if is_complete(folder, record.fingerprint):
        log.info("%s: complete already", cell.folder)
        return
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s: another process runs it; left to that one", cell.folder)
        return
    with lock:
        _run(cfg, folder, record)
    if record.status == "complete":
        auroc = record.metrics["test"]["auroc"]["value"]
        took = clock(record.timings["total"])
        log.info("%s: done in %s, test AUROC %.3f, %s", cell.folder, took, auroc, folder)


def _run(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Live through one cell, and write its record whatever happens."""
    name = record.cell.folder
    started = time.perf_counter()
    try:
        record.versions = {"python": platform.python_version()}
        record.versions |= {name: version(name) for name in LIBRARIES}
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
    record.write(folder)


def is_complete(folder: Path, fingerprint: str) -> bool:
    """Whether the folder holds a complete record of the settings with this fingerprint.

    Raises:
        StoreError: it holds a complete record of other settings, or one that cannot be read.
    """
    if not (folder / FILE).exists():
        return False
    record = Record.read(folder)
    if record.status == "complete" and record.fingerprint != fingerprint:
        raise StoreError(
            f"{folder}: complete with other settings; give this sweep a name of its own: name=NAME"
        )
    return record.status == "complete"


def _live(cfg: DictConfig, folder: Path, record: Record) -> None:
    with _timed(record, "data"):
        data = _open_data(cfg, record)
    with _timed(record, "augmentation"):
        _augment(cfg, data, record)
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
    }
    log.info("%s: %s", record.cell.folder, _counted(record))
    for why, count in data.split.dropped.items():
        log.info("%s: left out %d cells of %s", record.cell.folder, count, why)
    if data.split.leaky:
        record.warnings.append(f"LEAKY: {data.split.leaky}")
        log.warning("%s: LEAKY: %s", record.cell.folder, data.split.leaky)
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
                "cells": str(made.folder),
            }
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

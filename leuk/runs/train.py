"""Execution of a run: data, augmentation, training, test, explanations, record."""

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.audit import image_warnings
from leuk.data.datamodule import CNMCDataModule
from leuk.data.labels import Label
from leuk.errors import LeukError, StoreError
from leuk.runs.classifier import FITTED, fitted_classifier, remove_fitted_weights
from leuk.runs.evaluate import evaluate
from leuk.runs.gan import cached_quality, quality_warnings, repeated_rows, synthesize
from leuk.runs.launching import assign_devices
from leuk.runs.record import Record
from leuk.runs.run import current_hydra, folder_of, initial_record, sweep_of, uses_gan
from leuk.runs.state import LOCK, State, disk_errors, inspect_folder
from leuk.runs.trainer import clock
from leuk.store import write_text

# --- Incomplete runs of a sweep, from the records in their folders

_REASONS = {
    State.MISSING: "not started",
    State.RUNNING: "in another process",
    State.STOPPED: "start again to resume",
}


def incomplete_runs(configs: Sequence[DictConfig]) -> list[str]:
    """Describe each run that is not complete as ``<folder>: <state>: <reason>``."""
    lines = []
    for cfg in configs:
        folder = folder_of(cfg, cfg.hydra)
        found = inspect_folder(folder, initial_record(cfg, cfg.hydra))
        if found.state != State.COMPLETE:
            reason = _REASONS.get(found.state, found.message)
            lines.append(f"{folder.name}: {found.state}: {reason}")
    return lines


log = logging.getLogger(__name__)

SETTINGS = ".hydra"
"""Subfolder of a run with its settings, in Hydra's layout."""

FAILED = ".failed"
"""File in a sweep's folder with the name of the first failed run, written with ``fail_fast``."""

_PATIENCE = 1.0
"""Seconds to wait for a run's lock, because inspecting a run holds the lock for an instant."""

LIBRARIES = ("leuk", "torch", "torchvision", "lightning", "torchmetrics", "captum", "hydra-core")


def train_run(cfg: DictConfig) -> None:
    """Execute a run unless it is already complete, and write its record.

    Failures are logged and recorded, not raised, so that a sweep continues with the other runs. The
    command reads the records to report the outcome.

    Args:
        cfg: composed config of the run.
    """
    hydra_cfg = current_hydra()
    record, folder = initial_record(cfg, hydra_cfg), folder_of(cfg, hydra_cfg)
    if not _should_run(cfg, folder, record):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK).acquire(timeout=_PATIENCE)
    except Timeout:
        log.warning("%s: already running in another process, skipping", record.run.folder)
        return
    # "with lock" would acquire the lock a second time and release it only once.
    with held:
        # Check again, because another process may have finished the run meanwhile.
        if not _should_run(cfg, folder, record, ours=True):
            return
        assign_devices(cfg, hydra_cfg)
        _keep_settings(cfg, hydra_cfg, folder)
        _run(cfg, folder, record)
    if record.status == "complete":
        auroc = record.metrics["test"]["auroc"]["value"]
        took = clock(record.timings["total"])
        log.info("%s: done in %s, test AUROC %.3f, %s", record.run.folder, took, auroc, folder)
    elif cfg.grid.fail_fast:
        write_text(sweep_of(cfg) / FAILED, record.run.folder)


def _should_run(cfg: DictConfig, folder: Path, record: Record, ours: bool = False) -> bool:
    """Decide whether to execute a run; log the reason if not."""
    name, found = record.run.folder, inspect_folder(folder, record, ours)
    if found.state == State.COMPLETE:
        log.info("%s: already complete, skipping", name)
        explained = found.record.explanations if found.record else {}
        known = {*explained, *explained.get("cohort", {}).get("left_out", {})}
        lacking = [str(method) for method in cfg.explain if method not in known]
        if lacking:
            log.warning(
                "%s: not explained with %s; use leuk explain run=%s",
                *(name, ", ".join(lacking), folder),
            )
    elif found.state in (State.OTHER, State.UNREADABLE):
        # Preflight refuses such folders, so another sweep must have written it since.
        log.error("%s: skipping: %s: %s", name, found.state, found.message)
    elif cfg.grid.fail_fast and (failed := sweep_of(cfg) / FAILED).exists():
        failure = failed.read_text(encoding="utf-8")
        log.warning("%s: not started, because %s failed (grid.fail_fast)", name, failure)
    else:
        return True
    return False


def _keep_settings(cfg: DictConfig, hydra_cfg: DictConfig, folder: Path) -> None:
    """Write the run's settings while holding its lock; Hydra would write them before."""
    write_text(folder / SETTINGS / "config.yaml", OmegaConf.to_yaml(cfg))
    write_text(folder / SETTINGS / "overrides.yaml", OmegaConf.to_yaml(hydra_cfg.overrides.task))


def _run(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Execute the stages and write the record, also after a failure."""
    name = record.run.folder
    started = time.perf_counter()
    try:
        record.versions = {"python": platform.python_version()}
        record.versions |= {name: version(name) for name in LIBRARIES}
        with disk_errors(folder):
            record.write(folder)
            _run_stages(cfg, folder, record)
        record.status = "complete"
    except LeukError as error:
        record.fail(error)
        log.error("%s: failed: %s", name, error)
    except Exception as error:
        record.fail(error)
        log.exception("%s: failed", name)
    if record.status == "failed" and (folder / FITTED).exists():
        log.info(
            "%s: the trained weights are kept; repeat the command to resume with the test", name
        )
    record.timings["total"] = round(time.perf_counter() - started, 3)
    _close(folder, record)


def _close(folder: Path, record: Record) -> None:
    """Write the final record; without it, the run counts as stopped."""
    try:
        with disk_errors(folder):
            record.write(folder)
    except StoreError as error:
        record.fail(error)
        log.error("%s: cannot write the record: %s", record.run.folder, error)
    else:
        if record.status == "complete":
            remove_fitted_weights(folder)


def _run_stages(cfg: DictConfig, folder: Path, record: Record) -> None:
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
        evaluate(cfg, folder, data, classifier, record)


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
    log.info("%s: %s", record.run.folder, _counted(record))
    for reason, count in data.split.dropped.items():
        log.info("%s: excluded %d images from %s", record.run.folder, count, reason)
    if scale.frame is None and data.framing != "cell":
        log.warning(
            "%s: data.frame=null: images of %s; leuk predict refuses other sizes unless they show "
            "the same field of view; set data.frame=450 for reduced copies of C-NMC's frames",
            *(record.run.folder, scale.sizes_text),
        )
    if data.split.leaky:
        record.warn("leaky", data.split.leaky)
    for text in image_warnings(data):
        record.warn("other", text)
    return data


def _augment(cfg: DictConfig, data: CNMCDataModule, record: Record) -> None:
    """Add synthetic or repeated images to the training stage and record them."""
    if uses_gan(cfg):
        if synthetic := synthesize(cfg, data):
            data.add_synthetic(synthetic.pixels, synthetic.origin["label"].to_numpy(np.int64))
            added = synthetic.origin["label"].value_counts().to_dict()
            record.data["synthetic"] = {
                "counts": {label.folder: added[label] for label in Label if label in added},
                "gans": sorted(set(synthetic.origin["gan"])),
                "artifact": synthetic.folder.name,
                **cached_quality(cfg, data, synthetic),
            }
            for text in quality_warnings(record.data["synthetic"], cfg.augmentation.name):
                record.warn("synthetic", text)
            return
    elif cfg.augmentation.name == "oversample":
        repeated = repeated_rows(cfg, data)
        if repeated:
            data.repeat(np.concatenate(list(repeated.values())))
            record.data["oversampled"] = {k.folder: len(rows) for k, rows in repeated.items()}
            return
    else:
        return
    record.warn("other", "augmentation: no healthy images are missing; nothing was added")


def _counted(record: Record) -> str:
    stages = [
        f"{stage} {counts['all']} all + {counts['hem']} hem from {counts['subjects']} subjects"
        for stage, counts in record.data["counts"].items()
    ]
    return ", ".join(stages)


@contextmanager
def _timed(record: Record, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        record.timings[stage] = round(time.perf_counter() - started, 3)

"""Execution of a run. Read :func:`run_stages` first: five stages, joined into the record."""

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from leuk.config.targets import instantiate
from leuk.data.audit import image_warnings
from leuk.data.datamodule import CNMCDataModule
from leuk.errors import LeukError, StoreError
from leuk.progress import ONCE
from leuk.runs.classifier import FITTED, fit_classifier
from leuk.runs.evaluate import Scorer, evaluate
from leuk.runs.explain import explain_test
from leuk.runs.gan import add_images
from leuk.runs.record import RESUMED, Record, RunWarning
from leuk.runs.run import current_hydra, folder_of, initial_record, sweep_of
from leuk.runs.state import LOCK, State, disk_errors, inspect_folder
from leuk.runs.trainer import assign_devices, clock
from leuk.store import write_text

log = logging.getLogger(__name__)


def run_stages(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Execute the stages of a run and join what each returns into its record.

    After a failure the record holds the results of the stages before. Only this function and those
    that start it change the record.
    """
    with _timed(record, "data"):
        data, facts, warnings = open_data(cfg, folder.name)
    record.data = facts
    _warn(record, warnings)

    with _timed(record, "augmentation"):
        facts, warnings = add_images(cfg, data)
    if cfg.fit.equal_updates:
        data.images_per_epoch = len(data.split.train)
    record.data |= {**facts, "epoch": data.expected_epoch()}
    _warn(record, warnings)

    with _timed(record, "fit"):
        fitted = fit_classifier(cfg, folder, data, record.fingerprint)
    record.device = fitted.device
    record.warnings += [RESUMED] if fitted.resumed else []

    with _timed(record, "test"):
        scorer = Scorer.build(cfg, folder, fitted.classifier)
        evaluated = evaluate(cfg, folder, data, scorer, record.run)
    record.metrics = evaluated.metrics
    record.calibration = evaluated.calibration
    record.referral = evaluated.referral
    record.baselines = evaluated.baselines
    record.area = evaluated.area
    record.cost = evaluated.cost
    record.predictions = evaluated.predictions
    record.warnings += evaluated.warnings

    with _timed(record, "explain"):
        summary, warnings = explain_test(cfg, folder, data, scorer, evaluated.predicted["test"])
    record.explanations = evaluated.prototypes | summary
    record.warnings += warnings


def open_data(
    cfg: DictConfig, name: str
) -> tuple[CNMCDataModule, dict[str, Any], list[RunWarning]]:
    """Decode and split the images of a run; ``name`` is for the log.

    Returns:
        Data module, set up; ``data`` of the record: fingerprint, counts, excluded images and scale;
        and warnings such as a split that leaks.
    """
    data: CNMCDataModule = instantiate(
        cfg.data, split=instantiate(cfg.split), transforms=instantiate(cfg.transforms)
    )
    data.prepare_data()
    data.setup()
    counts, scale = data.counts(), data.scale()
    stages = [
        f"{stage} {of['all']} all + {of['hem']} hem from {of['subjects']} subjects"
        for stage, of in counts.items()
    ]
    log.info("%s", ", ".join(stages), extra=ONCE)
    for reason, count in data.split.dropped.items():
        log.info("excluded %d images from %s", count, reason, extra=ONCE)
    if scale.frame is None and data.framing != "cell":
        log.warning(
            "%s: data.frame=null: images of %s; leuk predict refuses other sizes unless they show "
            "the same field of view; set data.frame=450 for reduced copies of C-NMC's frames",
            *(name, scale.sizes_text),
        )
    facts = {
        "fingerprint": data.dataset.store.fingerprint,
        "files": data.listing(),
        "counts": counts,
        "dropped": data.split.dropped,
        "scale": {**asdict(scale), "input": data.resolution},
    }
    leaks = [RunWarning("leaky", data.split.leaky)] if data.split.leaky else []
    return data, facts, leaks + [RunWarning("other", text) for text in image_warnings(data)]


def _warn(record: Record, warnings: list[RunWarning]) -> None:
    for warning in warnings:
        record.warn(warning.kind, warning.text)


@contextmanager
def _timed(record: Record, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        record.timings[stage] = round(time.perf_counter() - started, 3)


# --- Around the stages: locks, runs to skip, failures

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
    """
    hydra_cfg = current_hydra()
    record, folder = initial_record(cfg, hydra_cfg), folder_of(cfg, hydra_cfg)
    if not _should_run(cfg, folder, record):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK).acquire(timeout=_PATIENCE)
    except Timeout:
        log.warning("%s: already running in another process, skipping", folder.name)
        return
    # "with lock" would acquire the lock a second time and release it only once.
    with held:
        # Check again, because another process may have finished the run meanwhile.
        if not _should_run(cfg, folder, record, ours=True):
            return
        assign_devices(cfg, hydra_cfg)
        # Settings are written while holding the lock; Hydra would write them before.
        write_text(folder / SETTINGS / "config.yaml", OmegaConf.to_yaml(cfg))
        overrides = OmegaConf.to_yaml(hydra_cfg.overrides.task)
        write_text(folder / SETTINGS / "overrides.yaml", overrides)
        _execute(cfg, folder, record)
    if record.status == "complete":
        auroc = record.metrics["test"]["auroc"]["value"]
        took = clock(record.timings["total"])
        log.info("%s: done in %s, test AUROC %.3f, %s", folder.name, took, auroc, folder)
    elif cfg.grid.fail_fast:
        write_text(sweep_of(cfg) / FAILED, folder.name)


def _should_run(cfg: DictConfig, folder: Path, record: Record, ours: bool = False) -> bool:
    """Decide whether to execute a run; log the reason if not."""
    name, found = folder.name, inspect_folder(folder, record, ours)
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


def _execute(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Execute the stages, and write the record before and after, also after a failure."""
    name, started = folder.name, time.perf_counter()
    try:
        record.versions = {"python": platform.python_version()}
        record.versions |= {library: version(library) for library in LIBRARIES}
        with disk_errors(folder):
            record.write(folder)
            run_stages(cfg, folder, record)
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
    try:
        with disk_errors(folder):
            record.write(folder)
    except StoreError as error:  # without the record, the run counts as stopped
        record.fail(error)
        log.error("%s: cannot write the record: %s", name, error)
    else:
        if record.status == "complete":
            (folder / FITTED).unlink(missing_ok=True)

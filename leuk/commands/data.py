"""``leuk data``: audit of an image folder: content, problems, linked subjects."""

from pathlib import Path

from omegaconf import DictConfig

from leuk.config.targets import instantiate
from leuk.report.audit_page import FINDINGS, audit_text
from leuk.report.inspection import check_kept, inspect_data
from leuk.runs.preconditions import check_root
from leuk.store import ensure_writable

_faulty: list[Path] = []


def check(configs: list[DictConfig]) -> None:
    """Check splits and output folders before any work."""
    _faulty.clear()
    for cfg in configs:
        check_root(cfg)
        instantiate(cfg.split).check()
        ensure_writable(Path(cfg.outputs), "outputs")
        check_kept(cfg)


def run(cfg: DictConfig) -> None:
    """Audit a folder; print and write the results."""
    audit, folder = inspect_data(cfg)
    print(audit_text(audit))
    print(f"written to {folder}: audit.html, audit.json, {FINDINGS} and augmentation examples")
    if audit.problems:
        _faulty.append(folder)


def finish(configs: list[DictConfig]) -> int:
    """Return 1 if an audit found problems."""
    return 1 if _faulty else 0
